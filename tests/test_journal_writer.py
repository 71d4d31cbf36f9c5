"""What becomes of triggers is written in its order, beside the line, until the disk takes it."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from datetime import datetime, timezone

import pytest

from station import journal_writer
from station.errors import LedgerError
from station.health import Health
from station.journal_writer import FAULT, JournalWriter
from station.types import Trigger, Verdict
from tests.looping import running
from tests.waiting import until

TRIGGER = Trigger("id-1", "serial", datetime(2026, 11, 23, 12, tzinfo=timezone.utc), 0.0, 1)


class Disk:
    """A journal; *full*: it takes nothing. *hangs*: until that is set it answers nothing either."""

    def __init__(self) -> None:
        self.full = False
        self.hangs: threading.Event | None = None
        self.steps: list[str] = []
        self.tried = 0

    def arrived(self, trigger: Trigger) -> None:
        self._commit(f"arrived {trigger.id}")

    def answered(self, trigger_id: str, verdict: Verdict) -> None:
        self._commit(f"answered {trigger_id} {verdict.value}")

    def recorded(self, trigger_id: str) -> None:
        self._commit(f"recorded {trigger_id}")

    def _commit(self, step: str) -> None:
        self.tried += 1
        if self.hangs is not None:
            assert self.hangs.wait(30)
        if self.full:
            raise LedgerError("ledger triggers.db: disk is full")
        self.steps.append(step)


class Writing:
    def __init__(self) -> None:
        self.disk = Disk()
        self.health = Health()
        self.writer = JournalWriter(self.disk, health=self.health, beat=lambda _: None)

    def running(self) -> AbstractContextManager[None]:
        return running(self.writer.run)

    def faults(self) -> list[str]:
        return [fault.code for fault in self.health.faults()]


def test_nobody_waits_and_the_order_stays() -> None:
    writing = Writing()
    writing.disk.hangs = threading.Event()
    with writing.running():
        written = writing.writer.arrived(TRIGGER)
        writing.writer.answered("id-1", Verdict.PASS)
        writing.writer.recorded("id-1")
        assert not written.is_set()
        writing.disk.hangs.set()
        assert written.wait(30)
    assert writing.disk.steps == ["arrived id-1", "answered id-1 pass", "recorded id-1"], "and a stop writes the rest"


def test_what_the_disk_refuses_is_told_tried_again_and_written_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_writer, "RETRY_S", 0.01)
    writing = Writing()
    writing.disk.full = True
    with writing.running():
        first = writing.writer.arrived(TRIGGER)
        assert first.wait(30), "whoever waits for a disk that says no need not wait until it is late"
        until(lambda: writing.faults() == [FAULT])
        writing.writer.answered("id-1", Verdict.PASS)
        before = writing.disk.tried
        until(lambda: writing.disk.tried > before + 2)
        assert writing.disk.steps == []
        writing.disk.full = False
        until(lambda: len(writing.disk.steps) == 2)
        until(lambda: writing.faults() == [])
    assert writing.disk.steps == ["arrived id-1", "answered id-1 pass"]


def test_a_disk_that_takes_nothing_does_not_hold_up_a_stop() -> None:
    writing = Writing()
    writing.disk.full = True
    with writing.running():
        writing.writer.recorded("id-1")
        until(lambda: writing.faults() == [FAULT])
