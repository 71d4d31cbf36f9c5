"""Who says that the wall clock is right, and what is believed when nobody may be asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from station.clock import Clock, systemd_synced


def clock(tmp_path: Path, *, kernel: bool | None, systemd: bool = False, mark: bool = False) -> Clock:
    if mark:
        (tmp_path / "mark").touch()
    return Clock(kernel=lambda: kernel, systemd=lambda: systemd, mark=tmp_path / "mark")


@pytest.mark.parametrize(
    ("kernel", "mark", "systemd", "synced"),
    [
        (True, False, False, True),
        (False, True, True, False),
        (None, True, False, True),
        (None, False, True, True),
        (None, False, False, False),
    ],
)
def test_the_kernel_is_believed_first_then_timesyncd_then_systemd(
    tmp_path: Path, *, kernel: bool | None, mark: bool, systemd: bool, synced: bool
) -> None:
    found = clock(tmp_path, kernel=kernel, systemd=systemd, mark=mark)
    found.look()
    assert found.synced() is synced


def test_a_clock_that_is_lost_again_is_not_believed_for_ever(tmp_path: Path) -> None:
    said = [True, False]
    found = Clock(kernel=lambda: None, systemd=lambda: said.pop(0), mark=tmp_path / "mark")
    found.look()
    assert found.synced()
    found.look()
    assert not found.synced()


@pytest.mark.parametrize(("says", "synced"), [("b true", True), ("b false", False), ("", False)])
def test_what_systemd_says_is_read_as_busctl_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, says: str, synced: bool
) -> None:
    program = tmp_path / "busctl"
    program.write_text(f"#!/bin/sh\necho {says}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert systemd_synced() is synced


def test_a_machine_without_systemd_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert systemd_synced() is False
