"""Two minutes of everything that goes wrong on a plant, at once: no event is lost, no board is answered twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import run


@pytest.mark.timeout(1200)
def test_whatever_is_killed_unplugged_filled_or_forgotten_no_promise_is_broken(tmp_path: Path) -> None:
    outcome = run(tmp_path, minutes=2.0, seed=1)
    assert outcome.broken == [], str(outcome)
