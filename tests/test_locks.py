"""Locks on files and folders, also where there are none."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from station.locks import held, hold, is_held


def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_what_is_held_is_nobody_elses_until_it_is_closed(tmp_path: Path) -> None:
    assert is_held(tmp_path) is False
    ours = hold(tmp_path)
    assert is_held(tmp_path) is True
    with pytest.raises(BlockingIOError):
        hold(tmp_path)
    os.close(ours)
    assert is_held(tmp_path) is False


def test_who_waits_gets_it_when_it_is_let_go(tmp_path: Path) -> None:
    through = threading.Event()

    def wait() -> None:
        with held(tmp_path) as alone:
            assert alone
            through.set()

    ours = hold(tmp_path)
    thread = threading.Thread(target=wait)
    thread.start()
    assert not through.wait(0.1)
    os.close(ours)
    thread.join(10)
    assert through.is_set()
    os.close(hold(tmp_path, wait=True))


def test_where_there_are_no_locks_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_locks(monkeypatch)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a count of names
    with held(tmp_path) as alone:
        assert not alone
    assert is_held(tmp_path) is None
    with pytest.raises(OSError, match="No locks available"):
        hold(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before, "nothing is left open"  # noqa: PTH208


def test_what_is_not_there_cannot_be_held(tmp_path: Path) -> None:
    assert is_held(tmp_path / "away") is None
    with pytest.raises(FileNotFoundError):
        hold(tmp_path / "away")
    with pytest.raises(FileNotFoundError), held(tmp_path / "away"):
        pass
