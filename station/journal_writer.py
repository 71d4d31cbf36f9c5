"""Writes the triggers' journal beside the line: an answer never waits longer for the disk than it has time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import structlog

from station.errors import LedgerError
from station.health import Health
from station.types import Beat, Stop, Trigger, Verdict

log = structlog.get_logger(__name__)

TURN_S = 0.25
RETRY_S = 1.0
FAULT = "trigger_journal"


class Journal(Protocol):
    """What is made durable (``trigger_journal.TriggerJournal``). Raises LedgerError."""

    def arrived(self, trigger: Trigger, /) -> None: ...

    def answered(self, trigger_id: str, verdict: Verdict, /) -> None: ...

    def recorded(self, trigger_id: str, /) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    commit: Callable[[], None]
    tried: threading.Event = field(default_factory=threading.Event)


class JournalWriter:
    """
    Takes what happens to triggers, from any thread and at once, and commits it in that order in the loop ``run``.

    While the disk does not take it (a fault says so) it is tried again and again, so that the books come out even when
    it does. What still waits when the station stops is tried once more, and else found in the ledger at the next start.
    """

    def __init__(self, journal: Journal, *, health: Health, beat: Beat) -> None:
        self._journal = journal
        self._health = health
        self._beat = beat
        self._changed = threading.Condition()
        self._steps: deque[_Step] = deque()

    def arrived(self, trigger: Trigger) -> threading.Event:
        """What it returns is set once the trigger is on disk, or the disk has refused it."""
        return self._take(partial(self._journal.arrived, trigger))

    def answered(self, trigger_id: str, verdict: Verdict) -> None:
        self._take(partial(self._journal.answered, trigger_id, verdict))

    def recorded(self, trigger_id: str) -> None:
        self._take(partial(self._journal.recorded, trigger_id))

    def run(self, stop: Stop) -> None:
        while not stop.is_set():
            self._beat("journal")
            with self._changed:
                if not self._steps:
                    self._changed.wait(TURN_S)
                    continue
            if not self._commit():
                stop.wait(RETRY_S)
        while self._steps and self._commit():
            pass

    def _take(self, commit: Callable[[], None]) -> threading.Event:
        step = _Step(commit)
        with self._changed:
            self._steps.append(step)
            self._changed.notify()
        return step.tried

    def _commit(self) -> bool:
        """Commits the oldest; False: the disk does not take it, and nobody waits for it any longer."""
        step = self._steps[0]  # only this loop takes any away
        try:
            step.commit()
        except LedgerError as error:
            log.error("trigger not journalled", error=str(error))
            self._health.begin(FAULT, f"what becomes of triggers cannot be written down: {error}")
            with self._changed:
                for one in self._steps:
                    one.tried.set()
            return False
        with self._changed:
            self._steps.popleft()
        step.tried.set()
        self._health.end(FAULT)
        return True
