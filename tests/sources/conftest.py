"""Sources that do not make the tests wait."""

from __future__ import annotations

import pytest

from station.sources import folder, inbox


@pytest.fixture(autouse=True)
def _short_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    """How often an idle source looks at its (perhaps injected) clock changes nothing but the length of a test."""
    monkeypatch.setattr(folder, "_IDLE_S", 0.02)
    monkeypatch.setattr(inbox, "_NAP_S", 0.02)
