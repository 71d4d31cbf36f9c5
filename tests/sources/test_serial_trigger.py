"""Triggers in the dialects of lines, and the barcode that belongs to each."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
import structlog

from station.health import Health
from station.sources.scanner import FAULT, Scanner
from station.sources.serial_trigger import WAITING, SerialTriggers, dialect_of
from station.testing import FakeOrder
from station.types import Order
from tests.ports import FakePort


class Desk:
    """Hears triggers on a port in memory."""

    def __init__(self, preset: str = "plain", pattern: str = "", *, codes: Any = None) -> None:
        self.port = FakePort()
        self.taken: list[tuple[int | None, str | None, float]] = []
        self.ordered: list[tuple[float, FakeOrder]] = []
        self.flooded = False
        extra = {} if codes is None else {"code_for": codes}
        self.triggers = SerialTriggers(
            self.port,
            dialect_of(preset, pattern),
            terminator="\r",
            arrived=self._arrived,
            order=self._order,
            beat=lambda _loop: None,
            **extra,
        )

    def hears(self, line: bytes, at_s: float = 0.0) -> bool:
        """Whether it was a trigger; it is taken."""
        heard = self.port.say(line, at_s)
        self.take()
        return heard

    def take(self) -> None:
        over = threading.Event()
        over.set()
        self.triggers.run(over)

    def _order(self, at_s: float) -> FakeOrder:
        self.ordered.append((at_s, FakeOrder()))
        return self.ordered[-1][1]

    def _arrived(self, number: int | None, board_serial: str | None, at_s: float, *, picture: Order) -> object | None:
        assert (at_s, picture) in self.ordered
        if self.flooded:
            return None
        self.taken.append((number, board_serial, at_s))
        return object()


@pytest.mark.parametrize(
    ("preset", "pattern", "line", "number", "serial", "said"),
    [
        ("plain", "", b"T", None, None, []),
        ("plain", "", b"T17", 17, None, []),
        ("plain", "", b"T000042", 42, None, []),
        ("plain", "", b"T    3", 3, None, []),
        ("keyence", "", b"T1", None, None, [b"T1\r"]),
        ("keyence", "", b"TA", None, None, [b"TA\r"]),
        ("cognex", "", b"SE8", None, None, [b"1\r"]),
        ("cognex", "", b"SW8", None, None, [b"1\r"]),
        ("plain", r"GO (?P<number>\d+)(,(?P<serial>\w+))?", b"GO 5,SN77", 5, "SN77", []),
        ("plain", r"GO (?P<number>\d+)(,(?P<serial>\w+))?", b"GO 5", 5, None, []),
        ("plain", r"T(?P<number>[0-9 ]{5}),(?P<serial>.+)", b"T    3,A-3", 3, "A-3", []),
        ("plain", r"T(?P<number>[0-9 ]{5}),(?P<serial>.+)", b"T3    ,A-3", 3, "A-3", []),
        ("cognex", r"TRIG", b"TRIG", None, None, [b"1\r"]),
    ],
)
def test_a_trigger_is_understood_and_acknowledged_by_the_custom_of_its_dialect(
    preset: str, pattern: str, line: bytes, number: int | None, serial: str | None, said: list[bytes]
) -> None:
    desk = Desk(preset, pattern)
    assert desk.hears(line, 7.5)
    assert desk.taken == [(number, serial, 7.5)]
    assert desk.port.sent == said


@pytest.mark.parametrize(
    ("preset", "line"),
    [
        *(("plain", line) for line in (b"t1", b"TX-1", b"T-1", b" T1", b"T ", b"T\xff", b"", b"A17")),
        *(("keyence", line) for line in (b"T", b"T5", b"R0")),
        *(("cognex", line) for line in (b"SE1", b"se8", b"GO")),
    ],
)
def test_what_is_no_trigger_is_left_to_others(preset: str, line: bytes) -> None:
    desk = Desk(preset)
    assert not desk.hears(line)
    assert desk.taken == []


@pytest.mark.parametrize(
    ("preset", "pattern", "line"),
    [
        ("plain", "", b"T1234567890123456789"),
        ("plain", "", b"T1T6"),
        ("plain", "", b"T1x7"),
        ("keyence", "", b"T1T2"),
        ("cognex", "", b"SE88"),
        ("plain", r"N(?P<number>.*)", b"Nabc"),
        ("plain", r"N(?P<number>.*)", b"N" + b"9" * 30),
        ("plain", r"T(?P<number>[0-9 ]{5}),(?P<serial>.+)", b"T1 2 3,A-3"),
        ("plain", r"T(?P<number>[0-9 ]{5}),(?P<serial>.+)", b"T00002,B-\xff\xfe\x00\x1b[2J"),
        ("plain", r"GO (?P<number>\d+)(,(?P<serial>\w+))?", b"GO 5GO 6"),
    ],
)
def test_a_damaged_trigger_is_noise_and_no_barcode(preset: str, pattern: str, line: bytes) -> None:
    reading = Reading()
    desk = Desk(preset, pattern, codes=reading.scanner.code_for)
    reading.scanner.listen(desk.port)
    desk.port.say(b"SN-before", 10.0)
    assert desk.hears(line, 10.1)
    assert (desk.taken, desk.triggers.noise) == ([], 1)
    assert reading.scanner.code_for(10.2) is None, "neither the line, nor what was read for the board that it was of"


def test_a_plc_that_speaks_another_dialect_is_told_of_in_the_log_and_does_not_fill_it() -> None:
    desk = Desk()
    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            desk.hears(b"T1 please", 1.0)
    assert [line["lines"] for line in lines if line["log_level"] == "warning"] == [1, 2, 4]


def test_codes_that_begin_like_triggers_are_codes_if_the_pattern_says_where_a_trigger_ends() -> None:
    reading = Reading()
    desk = Desk("plain", r"(?P<number>[0-9]{1,6})$", codes=reading.scanner.code_for)
    reading.scanner.listen(desk.port)
    desk.hears(b"4006381333931", 10.0)
    desk.hears(b"17", 10.1)
    assert desk.taken == [(17, "4006381333931", 10.1)]


@pytest.mark.parametrize(("preset", "line", "said"), [("cognex", b"SE8", b"-2\r"), ("keyence", b"T1", b"ER,T1,03\r")])
def test_a_trigger_that_is_not_taken_is_refused_by_the_custom(preset: str, line: bytes, said: bytes) -> None:
    desk = Desk(preset)
    desk.flooded = True
    assert desk.hears(line)
    assert desk.port.sent == [said]


def test_an_acknowledgement_that_cannot_be_sent_loses_no_trigger() -> None:
    desk = Desk("cognex")
    desk.port.connected = False
    assert desk.hears(b"SE8")
    assert len(desk.taken) == 1


class Reading:
    """A scanner on a port in memory, with a window of two seconds."""

    def __init__(self, *, required: bool = False, pattern: str = ".+") -> None:
        self.health = Health()
        self.port = FakePort()
        self.scanner = Scanner(
            pattern=re.compile(pattern),
            no_read=("ERROR", "NOREAD"),
            window_s=2.0,
            required=required,
            health=self.health,
        )
        self.scanner.listen(self.port)

    def faults(self) -> list[str]:
        return [fault.code for fault in self.health.faults()]


def test_a_code_belongs_to_the_next_trigger_and_is_never_used_again() -> None:
    reading = Reading()
    reading.port.say(b"SN1", 10.0)
    assert reading.scanner.code_for(11.0) == "SN1"
    assert reading.scanner.code_for(11.1) is None


@pytest.mark.parametrize("trigger_s", [12.01, 9.99])
def test_a_code_outside_the_window_belongs_to_nobody(trigger_s: float) -> None:
    reading = Reading()
    reading.port.say(b"SN1", 10.0)
    assert reading.scanner.code_for(trigger_s) is None
    assert reading.scanner.code_for(10.5) is None, "it is gone"
    assert reading.scanner.unused == 1


def test_of_two_codes_the_later_belongs_to_the_trigger() -> None:
    reading = Reading()
    reading.port.say(b"SN1", 10.0)
    reading.port.say(b"SN2", 10.5)
    assert reading.scanner.code_for(11.0) == "SN2"
    assert reading.scanner.unused == 1


def test_a_scanner_that_read_nothing_takes_the_code_before_away() -> None:
    reading = Reading()
    reading.port.say(b"SN1", 10.0)
    assert reading.port.say(b"NOREAD", 10.5)
    assert reading.scanner.code_for(11.0) is None


def test_control_characters_are_no_part_of_a_code_and_a_long_or_broken_one_is_none() -> None:
    reading = Reading()
    assert reading.port.say(b"\x02SN\x001\x03", 10.0)
    assert reading.scanner.code_for(10.0) == "SN1"
    for line in (b"x" * 129, b"\x02\x03", b"SN\xff1"):
        assert not reading.port.say(line, 10.0)
    assert reading.scanner.code_for(10.0) is None


def test_on_the_triggers_own_line_a_pattern_tells_codes_from_triggers() -> None:
    reading = Reading(pattern="B:(?P<serial>[A-Z0-9]+)")
    assert not reading.port.say(b"T1", 10.0)
    assert reading.port.say(b"B:SN1", 10.0)
    assert reading.scanner.code_for(10.0) == "SN1"


def test_a_serial_that_the_recipe_demands_is_a_fault_until_there_is_one_again() -> None:
    reading = Reading(required=True)
    assert reading.scanner.code_for(1.0) is None
    assert reading.faults() == [FAULT]
    reading.port.say(b"SN1", 2.0)
    assert reading.scanner.code_for(2.0) == "SN1"
    assert reading.faults() == []


def test_the_triggers_own_serial_comes_first_and_still_uses_up_the_code() -> None:
    reading = Reading()
    desk = Desk("plain", r"T(?P<serial>\w*)", codes=reading.scanner.code_for)
    reading.port.say(b"SN-scanned", 10.0)
    desk.hears(b"TSNown", 10.1)
    desk.hears(b"T", 10.2)
    assert [serial for _, serial, _ in desk.taken] == ["SNown", None]


def test_a_board_that_comes_while_the_disk_is_slow_gets_its_own_code_and_its_own_time() -> None:
    reading = Reading()
    desk = Desk(codes=reading.scanner.code_for)
    reading.port.say(b"SN1", 10.0)
    desk.port.say(b"T1", 10.1)  # from here on the disk writes T1, for long
    reading.port.say(b"SN2", 10.2)
    desk.port.say(b"T2", 10.3)
    reading.port.say(b"SN3", 10.4)
    desk.port.say(b"T3", 10.5)
    desk.take()
    assert desk.taken == [(1, "SN1", 10.1), (2, "SN2", 10.3), (3, "SN3", 10.5)]


def test_a_flood_of_triggers_is_noise_and_ends_when_it_ends() -> None:
    desk = Desk()
    heard = [desk.port.say(b"T1", 1.0) for _ in range(WAITING + 5)]
    assert heard == [True] * (WAITING + 5), "no barcodes"
    assert desk.triggers.noise == 5
    desk.take()
    assert len(desk.taken) == WAITING
    assert desk.hears(b"T2")
