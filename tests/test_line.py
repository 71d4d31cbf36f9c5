"""The line: what is on disk before what, and that nothing that cannot be judged passes."""

from __future__ import annotations

import hashlib
import json
import threading
import weakref
from collections.abc import Callable, Generator
from datetime import datetime, timezone
from typing import Any

import pytest
import structlog

from station.errors import GateError, GateLateError, LedgerError
from station.inspection import inspect, look_now
from station.line import WELL_TURNS, Listeners, answer, keep_and_record, log_inspection, run_line, seal
from station.testing import FakeEvidence, FakeGate, FakeLedger, FakeSource
from station.types import Decision, Entry, Frame, Gate, Image, Inspection, Message, Stop, Trigger, Verdict
from tests.benches import bench, board_picture, frame


def settle(ledger: FakeLedger, gate: Gate, evidence: FakeEvidence) -> None:
    inspection = inspect(frame(), bench())
    inspection, entry, shown = answer(inspection, "aoi-1", gate=gate, ledger=ledger)
    nobody = Listeners(inspected=lambda _: None, worked=lambda: None, committed=lambda: None)
    seal(inspection, entry, shown, station="aoi-1", ledger=ledger, evidence=evidence, then=nobody)


class Run:
    """One line in a thread, with what it told its listeners."""

    def __init__(
        self, source: FakeSource, ledger: Any, *, gate: Gate | None = None, may_take: Callable[[], bool] = lambda: True
    ):
        self.stop = threading.Event()
        self.inspected: list[Inspection] = []
        self.told: list[str] = []
        self.beats = 0
        self.error: BaseException | None = None

        def target() -> None:
            try:
                run_line(
                    self.stop,
                    source=source,
                    choose=lambda _frame: bench(),
                    look=look_now,
                    gate=gate,
                    ledger=ledger,
                    evidence=FakeEvidence("2026-11-23/a.jpg"),
                    may_take=may_take,
                    beat=self.beat,
                    listeners=Listeners(
                        inspected=self._on_inspected, worked=lambda: self.told.append("worked"), committed=lambda: None
                    ),
                )
            except LedgerError as error:
                self.error = error

        self._thread = threading.Thread(target=target)
        self._thread.start()

    def _on_inspected(self, inspection: Inspection) -> None:
        self.told.append("inspected")
        self.inspected.append(inspection)

    def beat(self, _loop: str) -> None:
        self.beats += 1

    def end(self) -> None:
        self.stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


def until(condition: Callable[[], object]) -> None:
    from tests.waiting import until as wait

    wait(condition)


def test_each_board_is_recorded_once_and_the_idle_line_goes_on_beating() -> None:
    source, ledger = FakeSource([frame(1), None, frame(2)]), FakeLedger()
    run = Run(source, ledger)
    until(lambda: len(run.inspected) == 2)
    before = run.beats
    until(lambda: run.beats > before + 2)
    run.end()
    assert [(kind, seq) for kind, seq, _ in ledger.commits] == [("owed", 1), ("owed", 2)], "one commit a board"
    assert source.closed == 1


def test_with_a_gate_a_board_is_recorded_before_it_is_shown_and_sealed_once() -> None:
    source, ledger = FakeSource([frame(1), None, frame(2)]), FakeLedger()
    run = Run(source, ledger, gate=FakeGate())
    until(lambda: len(ledger.commits) == 4)
    run.end()
    assert [(kind, seq) for kind, seq, _ in ledger.commits] == [
        ("recorded", 1),
        ("sealed", 1),
        ("recorded", 2),
        ("sealed", 2),
    ]


def test_without_a_gate_the_evidence_is_kept_before_the_event_that_names_it_is_on_disk() -> None:
    kept_before: list[int] = []
    ledger = FakeLedger()

    class Watched(FakeEvidence):
        def keep(self, inspection: Inspection) -> str | None:
            kept_before.append(len(ledger.commits))
            return super().keep(inspection)

    keep_and_record(inspect(frame(), bench()), "aoi-1", ledger=ledger, evidence=Watched("x.jpg"))
    assert kept_before == [0]
    ((kind, _, message),) = ledger.commits
    event = json.loads(message.payload)
    assert (kind, event["gate"], event["image"]["evidence"]) == ("owed", "off", "x.jpg")


def test_whatever_becomes_of_the_evidence_the_board_is_recorded() -> None:
    """Else the line, which fails by it, would meet the same board again and again."""

    class Broken(FakeEvidence):
        def keep(self, inspection: Inspection) -> str | None:
            raise ValueError("a defect in drawing")

    ledger = FakeLedger()
    with pytest.raises(ValueError, match="a defect in drawing"):
        keep_and_record(inspect(frame(), bench()), "aoi-1", ledger=ledger, evidence=Broken())
    ((kind, _, message),) = ledger.commits
    assert (kind, json.loads(message.payload)["image"]["evidence"]) == ("owed", None)


def test_a_picture_that_came_without_a_hash_is_on_record_with_that_of_its_pixels() -> None:
    given = frame(sha256="")
    run = Run(FakeSource([given]), FakeLedger())
    until(lambda: run.inspected)
    run.end()
    assert given.image is not None
    assert run.inspected[0].frame.sha256 == hashlib.sha256(given.image.tobytes()).hexdigest()


@pytest.mark.parametrize(("turns", "well"), [(WELL_TURNS - 1, False), (WELL_TURNS, True)])
def test_a_line_that_only_waited_a_moment_before_it_failed_was_not_well(turns: int, well: bool) -> None:
    run = Run(FakeSource([None] * turns + [frame(1)]), FakeLedger())
    until(lambda: "worked" in run.told[1:])
    run.end()
    assert run.told[:2] == (["worked", "inspected"] if well else ["inspected", "worked"])


def test_the_gate_is_busy_while_a_board_is_inspected() -> None:
    gate = FakeGate()
    run = Run(FakeSource([frame(1), frame(2)]), FakeLedger(), gate=gate)
    until(lambda: len(run.inspected) == 2)
    run.end()
    assert gate.told == ["busy", "ready"] * 2


def test_the_verdict_is_on_disk_before_the_gate_shows_it_and_the_event_waits_for_both() -> None:
    ledger = FakeLedger()
    commits_when_shown: list[list[str]] = []
    gate = FakeGate(before=lambda _: commits_when_shown.append([kind for kind, _, _ in ledger.commits]))
    settle(ledger, gate, FakeEvidence("x.jpg"))
    assert commits_when_shown == [["recorded"]]
    assert [kind for kind, _, _ in ledger.commits] == ["recorded", "sealed"]
    crashed, sealed = (json.loads(message.payload) for _, _, message in ledger.commits)
    assert (crashed["gate"], crashed["image"]["evidence"]) == ("unknown", None)
    assert (sealed["gate"], sealed["image"]["evidence"]) == ("shown", "x.jpg")


def test_a_gate_in_trouble_is_an_outcome_and_not_the_end_of_the_line() -> None:
    ledger = FakeLedger()
    settle(ledger, FakeGate(broken=GateError("no answer from the gate")), FakeEvidence())
    assert json.loads(ledger.commits[-1][2].payload)["gate"] == "failed"


def test_a_board_whose_result_came_too_late_is_on_record_as_the_line_was_answered() -> None:
    ledger = FakeLedger()
    late = GateLateError("no result within 200 ms ([trigger] answer_ms)")
    settle(ledger, FakeGate(broken=late), FakeEvidence())
    assert ledger.amended is not None
    assert ledger.amended.verdict is Verdict.UNKNOWN
    event = json.loads(ledger.commits[-1][2].payload)
    assert (event["gate"], event["verdict"], ledger.commits[-1][2].topic) == ("late", "unknown", "inspection/unknown")
    assert event["reason"].startswith("late: no result within 200 ms")
    assert "it would have been fail: short 0.91" in event["reason"]
    assert event["defects"], "what was found is told all the same"


@pytest.mark.parametrize("gate", [None, FakeGate()])
def test_a_line_that_is_idle_keeps_no_picture_in_memory(gate: FakeGate | None) -> None:
    pictures: list[weakref.ref[Image]] = []

    class Forgetful(FakeSource):
        def frames(self, stop: Stop) -> Generator[Frame | None, None, None]:
            image = board_picture()
            pictures.append(weakref.ref(image))
            yield frame(image=image)
            del image
            yield from super().frames(stop)

    run = Run(Forgetful([]), FakeLedger(), gate=gate)
    until(lambda: run.inspected)
    run.inspected.clear()
    until(lambda: pictures[0]() is None)
    run.end()


def test_a_board_that_cannot_be_recorded_is_not_shown_and_the_next_is_not_taken() -> None:
    class FullLedger(FakeLedger):
        def record(self, inspection: Inspection, make: Callable[[Entry], Message], *, owed: bool) -> Entry:
            raise LedgerError("disk full")

    gate, source = FakeGate(), FakeSource([frame(1), frame(2)])
    run = Run(source, FullLedger(), gate=gate)
    until(lambda: run.error is not None)
    run.end()
    assert gate.shown == []
    assert source.asked == 1, "asking for the next frame would mean that this one is safe"
    assert source.closed == 1


def test_a_seal_that_fails_ends_the_line_before_another_board_is_answered() -> None:
    class Unsealable(FakeLedger):
        def seal(self, entry: Entry, message: Message, *, amended: Decision | None = None) -> None:
            raise LedgerError("disk full")

    gate, ledger = FakeGate(), Unsealable()
    run = Run(FakeSource([frame(1), frame(2)]), ledger, gate=gate)
    until(lambda: run.error is not None)
    run.end()
    assert len(gate.shown) == 1
    assert [kind for kind, _, _ in ledger.commits] == ["recorded"], "the next start owes what was recorded"


def test_while_the_disk_is_full_no_board_is_taken_and_the_line_still_beats() -> None:
    room = threading.Event()
    source, ledger = FakeSource([frame(1)]), FakeLedger()
    run = Run(source, ledger, may_take=room.is_set)
    until(lambda: run.beats >= 2)
    assert source.asked == 0
    room.set()
    until(lambda: len(run.inspected) == 1)
    run.end()


@pytest.mark.parametrize(
    ("number", "serial", "named"),
    [
        (17, "SN-0815", {"trigger": 17, "board_serial": "SN-0815"}),
        (0, None, {"trigger": 0}),
        (None, None, {}),
    ],
)
def test_the_log_names_a_board_that_was_triggered(number: int | None, serial: str | None, named: object) -> None:
    trigger = Trigger("id", "serial", datetime(2026, 11, 23, 10, tzinfo=timezone.utc), 0.0, number, serial)
    with structlog.testing.capture_logs() as lines:
        log_inspection(inspect(frame(file=None, trigger=trigger, board_serial=serial), bench()))
    (line,) = lines
    assert {key: line[key] for key in line if key in {"trigger", "board_serial"}} == named
