"""
The line: frame, detect, decide, record, gate, evidence, seal; one board after the other.

Where there is no gate nobody waits for the record: evidence comes before it, and both are one commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import structlog

from station.decide import decide, unknown
from station.digest import pixels_sha256
from station.errors import DetectorError, GateError, GateLateError
from station.events import GATE_FAILED, GATE_LATE, GATE_OFF, GATE_SHOWN, GATE_UNKNOWN, Aftermath, event_of, late
from station.trust import problem_of
from station.types import (
    Answer,
    Beat,
    Decision,
    Defect,
    Detector,
    Entry,
    Evidence,
    Frame,
    Gate,
    Image,
    Inspection,
    Ledger,
    Recipe,
    Recorded,
    Source,
    Stop,
    Trigger,
    Verdict,
)

log = structlog.get_logger(__name__)

# Turns without a board, of a quarter of a second, after which a line that failed is well again: one that fails at the
# same file each time was not well in between.
WELL_TURNS = 8


@dataclass(frozen=True, slots=True)
class Bench:
    """
    What judges a board, and under which names it is on record.

    *half* is the same detector on half of the cores, for two boards at a time; None: *detector* serves both.
    *withhold* has the last word on a decision: a challenge that is due lets nothing pass.
    """

    detector: Detector
    recipe: Recipe
    recipe_sha256: str
    station: str
    clock_synced: Callable[[], bool]
    withhold: Callable[[Frame, Decision], Decision] | None = None
    half: Detector | None = None

    def detector_for(self, *, alone: bool) -> Detector:
        """What judges a board *alone*, on all cores, or beside another one."""
        return self.detector if alone or self.half is None else self.half


@dataclass(frozen=True, slots=True)
class Seen:
    """What is to be seen on a board: the *problem* that keeps it from being judged, or what a detector found on it."""

    problem: str | None
    defects: list[Defect]
    detect_ms: float | None


Look = Callable[[Image, Bench], Seen]
"""Looks at a picture as the bench would have it. Raises DetectorError."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """
    Who hears of the line's progress, each quick.

    *inspected*: a board is recorded. *worked*: all is well, with a board or without. *committed*: something new is
    owed to the broker (also from the thread that seals; the others from the line's alone).
    """

    inspected: Callable[[Inspection], None]
    worked: Callable[[], None]
    committed: Callable[[], None]


class LeftOpen(Protocol):
    """The triggers of an earlier run (``trigger_journal.TriggerJournal``). Raises LedgerError."""

    def left_open(self) -> list[tuple[Trigger, str | None]]: ...

    def unanswered(self, trigger_id: str, /) -> None: ...

    def recorded(self, trigger_id: str, /) -> None: ...


class Known(Ledger, Protocol):
    """A ledger that can say what it knows of a board."""

    def recorded(self, event_id: str, /) -> Recorded | None: ...

    def amend_late(self, event_id: str, why: str, /) -> None: ...


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
    # With a gate, evidence and the seal of a board are done beside the inspection of the next: they wait for the disk,
    # which costs the line nothing then. Leaving the block waits for the last of them.
    with (
        ThreadPoolExecutor(1, "seal") as beside,
        ThreadPoolExecutor(1, "hash") as hashing,
        closing(source.frames(stop)) as frames,
    ):
        sealing: Future[None] | None = None
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
            if frame is not None and gate is not None:
                gate.busy(True)
            bench = None if frame is None else choose(frame)  # once a board: a recipe never changes within one
            inspection = None if frame is None or bench is None else _inspected(frame, bench, look, hashing)
            if sealing is not None:
                sealing.result()  # a LedgerError of its own ends the line here, before another board is answered
                sealing = None
            if inspection is not None and bench is not None:
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
            idle_turns = 0 if frame is not None else idle_turns + 1
            if inspection is not None or idle_turns >= WELL_TURNS:
                listeners.worked()


def _inspected(frame: Frame, bench: Bench, look: Look, hashing: Executor) -> Inspection:
    """A camera's picture comes without a hash: it is made beside the inspection, since a gate waits (0.7 ms)."""
    if frame.image is None or frame.sha256:
        return inspect(frame, bench, look)
    sha256 = hashing.submit(pixels_sha256, frame.image)
    inspection = inspect(frame, bench, look)
    return replace(inspection, frame=replace(frame, sha256=sha256.result()))


def look_now(image: Image, bench: Bench) -> Seen:
    """Raises DetectorError."""
    return unfit(image, bench) or detected(image, bench, alone=True)


def unfit(image: Image, bench: Bench) -> Seen | None:
    """Why nobody can judge *image*; None: it is fit, and the detector's."""
    recipe = bench.recipe
    problem = problem_of(image, min_contrast=recipe.min_contrast, limits=recipe.trust)
    return None if problem is None else Seen(problem, [], None)


def detected(image: Image, bench: Bench, *, alone: bool) -> Seen:
    """What the detector finds, *alone* or beside another board. Raises DetectorError."""
    began_s = time.perf_counter()
    defects = bench.detector_for(alone=alone).detect(image)
    return Seen(None, defects, (time.perf_counter() - began_s) * 1e3)


def inspect(frame: Frame, bench: Bench, look: Look = look_now) -> Inspection:
    """Judges one frame. A picture or a detector in trouble becomes UNKNOWN; nothing else is caught."""
    began_s = time.perf_counter()
    detect_ms: float | None = None
    if frame.image is None:
        decision = unknown(frame.problem or "no picture")
    else:
        try:
            seen = look(frame.image, bench)
            decision = decide(seen.defects, bench.recipe) if seen.problem is None else unknown(seen.problem)
            detect_ms = seen.detect_ms
        except DetectorError as error:
            decision = unknown(f"the detector could not judge it: {error}")
    if bench.withhold is not None:
        decision = bench.withhold(frame, decision)
    return Inspection(
        frame=frame,
        decision=decision,
        model=bench.detector.model,
        recipe=bench.recipe.name,
        recipe_sha256=bench.recipe_sha256,
        detect_ms=detect_ms,
        # A board that was looked at ahead of its turn took that time too.
        total_ms=max((time.perf_counter() - began_s) * 1e3, detect_ms or 0.0),
        clock_synced=bench.clock_synced(),
    )


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

    Returns the inspection as the line was answered, its entry, and how the gate took it (one of ``GATE_*``): when the
    line had its answer already, because this one came too late, the board is what it was told, UNKNOWN.

    What is visible outside is on disk first. A crash from here on leaves an event that says so: without evidence, and
    with what the gate showed unknown.
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


def settle_left_open(journal: LeftOpen, ledger: Known, choose: Callable[[Frame], Bench]) -> int:
    """
    Ends what a crash left of earlier triggers, before new ones come; returns how many got no answer.

    A board that is not on record was told nothing, and so rejected, or UNKNOWN when its time was over: it becomes
    UNKNOWN; so does one that is on record, but for whose trigger the line was answered UNKNOWN. Raises LedgerError.
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


def log_inspection(inspection: Inspection) -> None:
    """
    One line a board: a FAIL or UNKNOWN for everyone, a PASS only for who looks closely.

    *trigger*, the number that the line gave the board, and *board_serial* are there where the board has them.
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
