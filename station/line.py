"""The line: frame, detect, decide, record, gate, evidence, seal; one board after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import structlog

from station.decide import decide, unknown
from station.errors import DetectorError, GateError
from station.events import GATE_FAILED, GATE_OFF, GATE_SHOWN, GATE_UNKNOWN, Aftermath, event_of
from station.types import (
    Beat,
    Detector,
    Entry,
    Evidence,
    Frame,
    Gate,
    Inspection,
    Ledger,
    Message,
    Recipe,
    Source,
    Stop,
    Verdict,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Bench:
    """What judges a board, and under which names it is on record."""

    detector: Detector
    recipe: Recipe
    recipe_sha256: str
    station: str
    clock_synced: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Listeners:
    """
    Who hears of the line's progress, each from the line's thread and each quick.

    *inspected*: a board is recorded. *worked*: the loop turned, with or without a board. *committed*: something new is
    owed to the broker.
    """

    inspected: Callable[[Inspection], None]
    worked: Callable[[], None]
    committed: Callable[[], None]


def run_line(
    stop: Stop,
    *,
    source: Source,
    bench: Bench,
    gate: Gate | None,
    ledger: Ledger,
    evidence: Evidence,
    may_take: Callable[[], bool],
    beat: Beat,
    listeners: Listeners,
) -> None:
    """
    Inspects until *stop* is set. No board is taken while *may_take* says no (the disk is full): it waits and goes on.

    Raises what the source, the ledger or the detector's host raises; the supervisor runs it again.
    """
    with closing(source.frames(stop)) as frames:
        while not stop.is_set():
            beat("line")
            if not may_take():
                stop.wait(0.5)
                continue
            frame = next(frames, None)
            if frame is not None:
                inspection = inspect(frame, bench)
                settle(inspection, bench.station, gate=gate, ledger=ledger, evidence=evidence)
                listeners.committed()
                listeners.inspected(inspection)
            listeners.worked()


def inspect(frame: Frame, bench: Bench) -> Inspection:
    """Judges one frame. A picture or a detector in trouble becomes UNKNOWN; nothing else is caught."""
    began_s = time.perf_counter()
    detect_ms: float | None = None
    if frame.image is None:
        decision = unknown(frame.problem or "no picture")
    else:
        try:
            defects = bench.detector.detect(frame.image)
            detect_ms = (time.perf_counter() - began_s) * 1e3
            decision = decide(defects, bench.recipe)
        except DetectorError as error:
            decision = unknown(f"the detector could not judge it: {error}")
    return Inspection(
        frame=frame,
        decision=decision,
        model=bench.detector.model,
        recipe=bench.recipe.name,
        recipe_sha256=bench.recipe_sha256,
        detect_ms=detect_ms,
        total_ms=(time.perf_counter() - began_s) * 1e3,
        clock_synced=bench.clock_synced(),
    )


def settle(inspection: Inspection, station: str, *, gate: Gate | None, ledger: Ledger, evidence: Evidence) -> Entry:
    """
    Puts the verdict on disk, shows it at the gate, keeps the evidence, and lets the event go.

    What is visible outside is on disk first. Without a gate nothing is visible before the event, so one commit does.
    """

    def message(entry: Entry, aftermath: Aftermath) -> Message:
        return event_of(inspection, entry, aftermath, station=station)

    if gate is None:
        done = Aftermath(GATE_OFF, evidence.keep(inspection))
        return ledger.record(inspection, lambda entry: message(entry, done), owed=True)
    # What a crash from here on leaves is an event that says so.
    crashed = Aftermath(GATE_UNKNOWN, None)
    entry = ledger.record(inspection, lambda entry: message(entry, crashed), owed=False)
    shown = _show(gate, inspection)
    ledger.seal(entry, message(entry, Aftermath(shown, evidence.keep(inspection))))
    return entry


def _show(gate: Gate, inspection: Inspection) -> str:
    try:
        gate.show(inspection)
    except GateError as error:
        log.error("gate did not take the result", event_id=inspection.frame.id, error=str(error))
        return GATE_FAILED
    return GATE_SHOWN


def log_inspection(inspection: Inspection) -> None:
    """One line a board: a FAIL or UNKNOWN for everyone, a PASS only for who looks closely."""
    frame, decision = inspection.frame, inspection.decision
    say = log.debug if decision.verdict is Verdict.PASS else log.info
    say(
        "board inspected",
        verdict=decision.verdict.value,
        reason=decision.reason,
        file=frame.file,
        event_id=frame.id,
        total_ms=round(inspection.total_ms, 1),
    )
