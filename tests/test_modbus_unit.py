"""The handshake over Modbus: a PASS is for one board, and goes at the first doubt."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone

import pytest

from station.errors import GateError
from station.health import Health
from station.modbus_map import MIRROR, Control, Faults, Refused, Status, Table
from station.modbus_unit import FAULT, SILENT_S, ModbusUnit, Times
from station.types import Answer, Trigger, Verdict
from tests.looping import running
from tests.modbus_plc import Block
from tests.waiting import until

NOW = datetime(2026, 11, 23, tzinfo=timezone.utc)


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Line:
    """A unit with everything around it. *why*: what ``alive`` says."""

    times: Times = field(default_factory=Times)
    clock: Callable[[], float] = field(default_factory=Clock)
    why: str | None = None
    takes: bool = True
    asked: list[tuple[int | None, str | None, float]] = field(default_factory=list)
    beats: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.health = Health()
        self.unit = ModbusUnit(
            self.times,
            alive=lambda: self.why,
            arrived=self._arrived,
            beat=self.beats.append,
            health=self.health,
            monotonic=self.clock,
        )

    def _arrived(self, number: int | None, board_serial: str | None, at_s: float) -> object:
        self.asked.append((number, board_serial, at_s))
        return object() if self.takes else None

    @contextmanager
    def running(self) -> Iterator[Line]:
        with running(self.unit.run):
            until(lambda: self.beats, what="the loop's first turn")
            if self.why is None:
                until(lambda: Faults.NOT_WORKING not in self.block().faults)
            yield self

    def block(self) -> Block:
        words = self.unit.read(Table.INPUT_REGISTERS, 0, 9)
        assert isinstance(words, list)
        return Block.of(words)

    def write(self, address: int, *words: int) -> Refused | None:
        return self.unit.write(Table.HOLDING_REGISTERS, address, words, at_s=self.clock())

    def trigger(self, number: int = 7) -> None:
        self.write(0, Control.TRIGGER, number >> 16, number & 0xFFFF)
        self.write(0, 0)

    def show(self, verdict: Verdict = Verdict.PASS, number: int | None = 7, at_s: float = 1000.0) -> None:
        self.unit.show(Answer("id", verdict, "", Trigger("id", "modbus", NOW, at_s, number)))


PASS = Status.RESULT_VALID | Status.PASS
REJECT = Status.RESULT_VALID | Status.REJECT


def test_a_pass_is_shown_for_its_board_and_ends_with_the_acknowledgement() -> None:
    with Line().running() as line:
        line.trigger(70_000)
        assert Status.BUSY in line.block().status
        line.show(number=70_000)
        assert line.block().passes(70_000)
        line.write(0, Control.RESULT_ACK)
        block = line.block()
        assert (block.status, block.code, block.number) == (Status.READY, 0, 0)
        assert (block.results, block.triggers) == (1, 1)


@pytest.mark.parametrize(
    ("verdict", "status", "code"),
    [(Verdict.PASS, PASS, 1), (Verdict.FAIL, REJECT, 2), (Verdict.UNKNOWN, REJECT, 3)],
)
def test_pass_and_reject_are_never_on_together(verdict: Verdict, status: Status, code: int) -> None:
    with Line().running() as line:
        line.show(verdict)
        block = line.block()
        assert block.status & ~Status.READY == status
        assert block.code == code


@pytest.mark.parametrize("how", ["window", "trigger", "safe", "not working", "next result", "stop"])
def test_a_pass_goes_by(how: str) -> None:
    clock = Clock()
    line = Line(clock=clock)
    with line.running():
        line.show()
        assert line.block().passes(7)
        match how:
            case "window":
                clock.now_s += 2.0
            case "trigger":
                line.trigger(8)
            case "safe":
                line.unit.safe("the station stops")
            case "not working":
                line.why = "camera away"
                until(lambda: not line.block().passes(7))
            case "next result":
                line.show(Verdict.FAIL, 8)
            case _:
                pass
        if how != "stop":
            assert not line.block().passes(7)
            assert Status.PASS not in line.block().status
    assert Status.PASS not in line.block().status
    assert Faults.NOT_WORKING in line.block().faults


def test_a_pass_stands_as_long_as_its_window_and_without_one_until_the_next_board() -> None:
    clock = Clock()
    with Line(clock=clock).running() as line:
        line.show()
        clock.now_s += 1.99
        assert line.block().passes(7)
    clock = Clock()
    with Line(Times(valid_s=0), clock).running() as line:
        line.show()
        clock.now_s += 3600
        assert line.block().passes(7)


def test_there_is_no_pass_before_the_loop_runs_nor_after_it() -> None:
    line = Line()
    with pytest.raises(GateError, match="safe state"):
        line.show()
    assert line.block().status == REJECT
    assert line.block().code == 3
    with line.running():
        pass
    with pytest.raises(GateError, match="safe state"):
        line.show()


def test_nothing_passes_after_safe_and_a_trigger_is_not_taken() -> None:
    with Line().running() as line:
        line.unit.safe("the station stops")
        with pytest.raises(GateError, match="the station stops"):
            line.show()
        line.trigger()
        block = line.block()
        assert line.asked == []
        assert Status.TRIGGER_ACK not in block.status
        assert block.faults == Faults.NOT_WORKING | Faults.STOPPED | Faults.MISSED | Faults.OVERRUN


def test_the_last_look_at_the_station_is_at_the_pass_itself() -> None:
    with Line().running() as line:
        line.why = "camera away"
        with pytest.raises(GateError, match="camera away"):
            line.show()
        assert Status.PASS not in line.block().status


def test_a_reject_stands_also_while_the_station_does_not_work() -> None:
    line = Line(why="camera away")
    with line.running():
        line.show(Verdict.UNKNOWN)
        line.beats.clear()
        until(lambda: len(line.beats) > 2)
        assert line.block().status == REJECT


def test_the_heartbeat_counts_only_while_the_station_works() -> None:
    line = Line(Times(heartbeat_s=0.001), clock := Clock())
    with line.running():

        def beaten() -> bool:
            clock.now_s += 0.01
            return line.block().heartbeat > 3

        until(beaten)
        line.why = "the line does not move"
        until(lambda: Faults.NOT_WORKING in line.block().faults)
        at = line.block().heartbeat
        line.beats.clear()
        clock.now_s += 100
        until(lambda: len(line.beats) > 2)
        assert line.block().heartbeat == at
        assert Status.READY not in line.block().status


def test_the_heartbeat_never_comes_back_to_zero() -> None:
    line = Line(Times(heartbeat_s=0.001), clock := Clock())
    line.unit._heartbeat = 65534
    with line.running():
        seen: set[int] = set()

        def again() -> bool:
            clock.now_s += 0.01
            seen.add(line.block().heartbeat)
            return 3 in seen

        until(again)
    assert 0 not in seen


def test_each_rising_edge_is_one_trigger_however_often_it_is_written() -> None:
    with Line().running() as line:
        for _ in range(3):
            line.write(0, Control.TRIGGER, 0, 7)
        assert line.asked == [(7, None, 1000.0)]
        assert Status.TRIGGER_ACK in line.block().status
        line.write(0, 0)
        assert Status.TRIGGER_ACK not in line.block().status
        line.write(0, Control.TRIGGER)
        assert line.asked[1:] == [(None, None, 1000.0)], "the number of a repeated write is nobody's"


def test_the_coils_are_the_same_bits() -> None:
    with Line().running() as line:
        line.write(1, 1, 2)
        assert line.unit.write(Table.COILS, 0, [1], at_s=5.0) is None
        assert line.asked == [(65538, None, 5.0)]
        assert line.unit.read(Table.COILS, 0, 3) == [1, 0, 0]
        assert line.unit.read(Table.HOLDING_REGISTERS, 0, 3) == [1, 0, 0], "number and serial are used up"
        line.show(number=65538)
        assert line.unit.read(Table.DISCRETE_INPUTS, 0, 8) == [0, 1, 0, 1, 1, 0, 0, 0]
        line.unit.write(Table.COILS, 1, [1, 1], at_s=5.0)
        assert line.unit.read(Table.COILS, 0, 3) == [1, 1, 1]
        assert Status.RESULT_VALID not in line.block().status
        assert line.asked == [(65538, None, 5.0)]


def test_the_board_serial_is_ascii_and_never_reused() -> None:
    words = [int.from_bytes(b"SN-0042\0"[at : at + 2], "big") for at in (0, 2, 4, 6)]
    with Line().running() as line:
        line.write(3, *words)
        line.trigger()
        line.trigger()
        line.write(3, 0x5301, 0x4E00)
        line.trigger()
    assert [serial for _, serial, _ in line.asked] == ["SN-0042", None, None]


def test_a_trigger_that_is_refused_is_not_acknowledged_and_said_until_cleared() -> None:
    line = Line(takes=False)
    with line.running():
        line.write(0, Control.TRIGGER, 0, 7)
        block = line.block()
        assert (block.faults, block.triggers, Status.TRIGGER_ACK in block.status) == (Faults.MISSED, 0, False)
        line.write(0, Control.CLEAR)
        assert line.block().faults == Faults(0)
        assert Status.READY in line.block().status


def test_it_is_not_ready_until_every_board_has_its_answer() -> None:
    with Line().running() as line:
        assert Status.READY in line.block().status
        line.trigger(1)
        line.trigger(2)
        line.show(number=1)
        assert Status.READY not in line.block().status
        line.show(number=2)
        assert Status.READY in line.block().status
        line.unit.busy(True)
        assert line.block().status & (Status.READY | Status.BUSY) == Status.BUSY
        line.unit.busy(False)
        assert Status.READY in line.block().status


def test_a_pass_without_a_number_is_withheld_when_the_next_board_is_there_already() -> None:
    clock = Clock()
    with Line(clock=clock).running() as line:
        line.trigger(0)
        clock.now_s += 1
        line.trigger(0)
        with pytest.raises(GateError, match="no number tells them apart"):
            line.show(number=None, at_s=1000.0)
        assert line.block().status & (PASS | REJECT) == REJECT
        line.show(number=None, at_s=1001.0)
        assert line.block().passes(0)


def test_a_pass_is_withheld_when_a_board_of_the_same_number_is_there_already() -> None:
    """Board 1 was slow, the PLC gave it up and triggered with its number again: board 1's PASS was board 2's."""
    with Line().running() as line:
        line.trigger(7)
        line.trigger(8)
        line.trigger(7)
        with pytest.raises(GateError, match="no number tells them apart"):
            line.show(number=7)
        assert line.block().status & (PASS | REJECT) == REJECT
        line.show(number=8)
        assert line.block().passes(8)
        line.show(number=7)
        assert line.block().passes(7)


def test_a_pass_is_withheld_when_the_same_number_was_refused_since() -> None:
    with Line().running() as line:
        line.trigger(7)
        line.takes = False
        line.trigger(7)
        with pytest.raises(GateError, match="no number tells them apart"):
            line.show(number=7)
        line.takes = True
        line.trigger(7)
        line.show(number=7)
        assert line.block().passes(7)


@pytest.mark.parametrize("number", [None, -1, 1 << 32])
def test_a_number_that_does_not_fit_is_no_number(number: int | None) -> None:
    with Line().running() as line:
        line.show(number=number)
        assert line.block().number == 0


def test_a_result_that_nobody_acknowledges_is_taken_back_and_told() -> None:
    with Line(Times(ack_s=0.05, valid_s=0), time.monotonic).running() as line:
        with pytest.raises(GateError, match=r"did not acknowledge.*50 ms"):
            line.show(at_s=time.monotonic())
        block = line.block()
        assert Status.RESULT_VALID not in block.status
        assert block.faults == Faults.OVERRUN
        line.write(0, Control.CLEAR)
        assert line.block().faults == Faults(0)


@pytest.mark.parametrize(
    ("how", "told"),
    [("ack", None), ("trigger", "next board"), ("safe", "went safe"), ("window", "valid_ms")],
)
def test_show_waits_for_the_acknowledgement_or_what_takes_its_place(how: str, told: str | None) -> None:
    times = Times(ack_s=60, valid_s=0.05 if how == "window" else 0)
    raised: list[str] = []
    with Line(times, time.monotonic).running() as line:

        def show() -> None:
            try:
                line.show(at_s=time.monotonic())
            except GateError as error:
                raised.append(str(error))

        thread = threading.Thread(target=show)
        thread.start()
        if how != "window":
            until(lambda: Status.RESULT_VALID in line.block().status)
        match how:
            case "ack":
                line.write(0, Control.RESULT_ACK)
            case "trigger":
                line.trigger(8)
            case "safe":
                line.unit.safe("stop")
            case _:
                pass
        thread.join(30)
        assert not thread.is_alive()
        assert len(raised) == (told is not None)
        assert told is None or told in raised[0]
        assert Status.PASS not in line.block().status


def test_a_result_replaced_before_its_acknowledgement_is_an_overrun() -> None:
    with Line().running() as line:
        line.show()
        line.show(Verdict.FAIL, 8)
        assert line.block().faults == Faults.OVERRUN
        assert line.block().number == 8


@pytest.mark.parametrize(
    ("table", "address", "count"),
    [
        (Table.INPUT_REGISTERS, 0, 10),
        (Table.INPUT_REGISTERS, 9, 1),
        (Table.HOLDING_REGISTERS, 18, 2),
        (Table.HOLDING_REGISTERS, 99, 1),
        (Table.HOLDING_REGISTERS, MIRROR, 10),
        (Table.COILS, 0, 4),
        (Table.DISCRETE_INPUTS, 32, 1),
    ],
)
def test_what_is_not_in_the_map_cannot_be_read(table: Table, address: int, count: int) -> None:
    assert Line().unit.read(table, address, count) is Refused.ADDRESS


@pytest.mark.parametrize(
    ("table", "address", "values", "refused"),
    [
        (Table.HOLDING_REGISTERS, MIRROR, [1], Refused.ADDRESS),
        (Table.HOLDING_REGISTERS, 18, [1, 1], Refused.ADDRESS),
        (Table.HOLDING_REGISTERS, 0, [8], Refused.VALUE),
        (Table.HOLDING_REGISTERS, 0, [9, 0, 7], Refused.VALUE),
        (Table.COILS, 3, [0], Refused.ADDRESS),
        (Table.INPUT_REGISTERS, 0, [1], Refused.ADDRESS),
        (Table.DISCRETE_INPUTS, 0, [1], Refused.ADDRESS),
    ],
)
def test_a_write_outside_the_map_changes_nothing(
    table: Table, address: int, values: list[int], refused: Refused
) -> None:
    with Line().running() as line:
        assert line.unit.write(table, address, values, at_s=0.0) is refused
        assert line.unit.read(Table.HOLDING_REGISTERS, 0, 19) == [0] * 19
        assert line.asked == []


def test_the_mirror_holds_what_the_input_registers_hold() -> None:
    with Line().running() as line:
        line.show()
        assert line.unit.read(Table.HOLDING_REGISTERS, MIRROR, 9) == line.unit.read(Table.INPUT_REGISTERS, 0, 9)


def test_a_plc_that_is_silent_is_a_fault_and_a_result_that_nobody_reads_is_told() -> None:
    clock = Clock()
    line = Line(clock=clock)
    with line.running():
        clock.now_s += SILENT_S + 1
        until(lambda: FAULT in {one.code for one in line.health.faults()})
        with pytest.raises(GateError, match="no PLC has spoken"):
            line.show()
        line.block()
        until(lambda: not line.health.faults())
