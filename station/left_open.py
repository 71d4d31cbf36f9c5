"""Settles the triggers that a crash left without an answer, or without a board on record."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import structlog

from station.events import GATE_LATE, GATE_UNKNOWN, Aftermath, event_of
from station.inspection import Bench, inspect
from station.types import Frame, Ledger, Recorded, Trigger, Verdict

log = structlog.get_logger(__name__)


class LeftOpen(Protocol):
    """The triggers of an earlier run (``trigger_journal.TriggerJournal``). Raises LedgerError."""

    def left_open(self) -> list[tuple[Trigger, str | None]]: ...

    def unanswered(self, trigger_id: str, /) -> None: ...

    def recorded(self, trigger_id: str, /) -> None: ...


class Known(Ledger, Protocol):
    """A ledger that can say what it knows of a board."""

    def recorded(self, event_id: str, /) -> Recorded | None: ...

    def amend_late(self, event_id: str, why: str, /) -> None: ...


def settle_left_open(journal: LeftOpen, ledger: Known, choose: Callable[[Frame], Bench]) -> int:
    """
    Ends what a crash left of earlier triggers, before new ones come; returns how many there were. Raises LedgerError.

    A trigger whose board is not on record got no answer (so the line rejected the board), or was answered UNKNOWN when
    its time ran out: it is recorded as UNKNOWN. A recorded board whose trigger had already been answered UNKNOWN is
    amended to UNKNOWN.
    """
    left = journal.left_open()
    for trigger, answered in left:
        if ledger.recorded(trigger.id) is None:
            went = "the station went down"
            problem = (
                f"{went} before it answered" if answered is None else f"late: it was answered {answered}, then {went}"
            )
            frame = Frame(trigger.id, None, trigger.at, "camera", None, trigger.board_serial, "", problem, trigger)
            bench = choose(frame)
            inspection = inspect(frame, bench)
            after = Aftermath(GATE_UNKNOWN if answered is None else GATE_LATE, None)
            ledger.record(inspection, partial(event_of, inspection, aftermath=after, station=bench.station), owed=True)
        elif answered == Verdict.UNKNOWN.value:
            ledger.amend_late(trigger.id, "it was answered unknown, then the station went down")
        journal.unanswered(trigger.id)
        journal.recorded(trigger.id)
    if left:
        log.warning("triggers were left unanswered", triggers=len(left))
    return len(left)
