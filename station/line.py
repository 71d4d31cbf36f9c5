"""
The line: frame, detect, decide, record, gate, evidence, seal; one board after the other.

Without a gate nobody waits for the verdict: the evidence comes first, and recording and sealing are one commit.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

import structlog

from station.digest import pixels_sha256
from station.errors import GateError, GateLateError
from station.events import GATE_FAILED, GATE_LATE, GATE_OFF, GATE_SHOWN, GATE_UNKNOWN, Aftermath, event_of, late
from station.inspection import Bench, Look, inspect
from station.types import Answer, Beat, Entry, Evidence, Frame, Gate, Inspection, Ledger, Source, Stop, Verdict

log = structlog.get_logger(__name__)

# A line that failed counts as well again after so many turns without a board, each of a quarter of a second: one that
# fails at the same file again and again has fewer in between.
WELL_TURNS = 8


@dataclass(frozen=True, slots=True)
class Listeners:
    """
    What hears of the line's progress. Each must return quickly.

    *inspected*: a board is recorded. *worked*: all is well, with a board or without. *committed*: something new is
    owed to the broker (called by the thread that seals, too; the others only by the line's own).
    """

    inspected: Callable[[Inspection], None]
    worked: Callable[[], None]
    committed: Callable[[], None]


def run_line(
    stop: Stop,
    *,
    source: Source,
    choose: Callable[[Frame], Bench],
    look: Look,
    gate: Gate | None,
    ledger: Ledger,
    evidence: Evidence,
    may_take: Callable[[], bool],
    beat: Beat,
    listeners: Listeners,
) -> None:
    """
    Inspects until *stop* is set, each board by the bench that *choose* gives it, as *look* sees it.

    No board is taken while *may_take* says no (the disk is full): it waits and goes on. Raises what the source, the
    ledger or the detector's host raises; the supervisor runs it again.
    """
    # With a gate, a board's evidence and seal are written while the next board is inspected, so that the line does not
    # wait for the disk. Leaving the block waits for the last of them.
    with (
        ThreadPoolExecutor(1, "seal") as beside,
        ThreadPoolExecutor(1, "hash") as hashing,
        closing(source.frames(stop)) as frames,
    ):
        sealing: Future[None] = Future()  # of the board before
        sealing.set_result(None)
        idle_turns = 0
        while not stop.is_set():
            beat("line")
            if not may_take():
                stop.wait(0.5)
                continue
            try:
                frame = next(frames)
            except StopIteration:
                return  # asked to stop; a source that ends by itself is a failure, and the supervisor takes it for one
            if frame is None:
                sealing.result()
                idle_turns += 1
                if idle_turns >= WELL_TURNS:
                    listeners.worked()
                continue
            idle_turns = 0
            if gate is not None:
                gate.busy(True)
            bench = choose(frame)  # once a board: a recipe never changes within one
            try:
                inspection = _inspected(frame, bench, look, hashing)
            except CancelledError:
                return  # at a stop: the board is not on record, so the next start meets it again
            sealing.result()  # a LedgerError of its own ends the line here, before another board is answered
            if gate is None:
                keep_and_record(inspection, bench.station, ledger=ledger, evidence=evidence)
                listeners.committed()
            else:
                inspection, entry, shown = answer(inspection, bench.station, gate=gate, ledger=ledger)
                sealing = beside.submit(
                    seal,
                    inspection,
                    entry,
                    shown,
                    station=bench.station,
                    ledger=ledger,
                    evidence=evidence,
                    then=listeners,
                )
            listeners.inspected(inspection)
            listeners.worked()
            del inspection  # its picture is not to stay in memory while the line is idle


def _inspected(frame: Frame, bench: Bench, look: Look, hashing: Executor) -> Inspection:
    """A camera's picture comes without a hash: it is hashed during the inspection, since a gate waits (0.7 ms)."""
    if frame.image is None or frame.sha256:
        return inspect(frame, bench, look)
    sha256 = hashing.submit(pixels_sha256, frame.image)
    inspection = inspect(frame, bench, look)
    return replace(inspection, frame=replace(frame, sha256=sha256.result()))


def keep_and_record(inspection: Inspection, station: str, *, ledger: Ledger, evidence: Evidence) -> None:
    """
    Keeps the evidence, whole on disk before the event names it, then records the board and owes its event.

    Whatever becomes of the evidence, the board is recorded: else the line would meet it again and again.
    """
    kept: str | None = None
    try:
        kept = evidence.keep(inspection)
    finally:
        left = Aftermath(GATE_OFF, kept)
        ledger.record(inspection, lambda entry: event_of(inspection, entry, left, station=station), owed=True)


def answer(inspection: Inspection, station: str, *, gate: Gate, ledger: Ledger) -> tuple[Inspection, Entry, str]:
    """
    Puts the verdict on disk, then shows it at the gate.

    Returns the inspection, its entry, and how the gate took it (one of ``GATE_*``). If this answer came too late, the
    line had already been answered UNKNOWN, and the inspection that is returned says UNKNOWN too.

    What is visible outside is on disk first. A crash from here on leaves the event as it is recorded here: without
    evidence, and with ``gate: unknown``.
    """
    left = Aftermath(GATE_UNKNOWN, None)
    entry = ledger.record(inspection, lambda entry: event_of(inspection, entry, left, station=station), owed=False)
    frame, decision = inspection.frame, inspection.decision
    try:
        gate.show(Answer(frame.id, decision.verdict, decision.reason, frame.trigger))
    except GateLateError as error:
        return _too_late(inspection, str(error)), entry, GATE_LATE
    except GateError as error:
        log.error("gate did not take the result", event_id=frame.id, error=str(error))
        return inspection, entry, GATE_FAILED
    finally:
        gate.busy(False)
    return inspection, entry, GATE_SHOWN


def _too_late(inspection: Inspection, why: str) -> Inspection:
    decision = inspection.decision
    if decision.verdict is Verdict.UNKNOWN:
        return inspection
    reason = late(why, decision.verdict, decision.reason)
    return replace(inspection, decision=replace(decision, verdict=Verdict.UNKNOWN, reason=reason))


def seal(
    inspection: Inspection,
    entry: Entry,
    shown: str,
    *,
    station: str,
    ledger: Ledger,
    evidence: Evidence,
    then: Listeners,
) -> None:
    """Keeps the evidence, whole on disk before the event names it, and lets the event go."""
    aftermath = Aftermath(shown, evidence.keep(inspection))
    amended = inspection.decision if shown == GATE_LATE else None
    ledger.seal(entry, event_of(inspection, entry, aftermath, station=station), amended=amended)
    then.committed()


def log_inspection(inspection: Inspection) -> None:
    """
    Logs one line a board: FAIL and UNKNOWN at level info, PASS at level debug.

    *trigger* (the number that the line gave the board) and *board_serial* are left out where the board has none.
    """
    frame, decision = inspection.frame, inspection.decision
    named = {"trigger": None if frame.trigger is None else frame.trigger.number, "board_serial": frame.board_serial}
    say = log.debug if decision.verdict is Verdict.PASS else log.info
    say(
        "board inspected",
        verdict=decision.verdict.value,
        reason=decision.reason,
        file=frame.file,
        **{key: value for key, value in named.items() if value is not None},
        event_id=frame.id,
        total_ms=round(inspection.total_ms, 1),
    )
