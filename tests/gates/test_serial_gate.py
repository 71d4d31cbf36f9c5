"""The gate as text on a line: one PASS for one board, and silence is reject."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from station.errors import GateError
from station.gates.serial import SerialGate, Texts, Times
from station.types import Answer, Trigger, Verdict
from tests.looping import running
from tests.plc import Plc
from tests.ports import FakePort, Open
from tests.waiting import until

QUIET = Texts(heartbeats=())


def answer(
    number: int | None, verdict: Verdict = Verdict.PASS, *, reason: str = "", serial: str | None = None
) -> Answer:
    trigger = Trigger("id", "serial", datetime.now(timezone.utc), 0.0, number, serial)
    return Answer("id", verdict, reason, trigger)


class Desk:
    """A gate on a port in memory, with its loop, at a clock that the test moves."""

    def __init__(self, texts: Texts = QUIET, times: Times = Times()) -> None:  # noqa: B008  # frozen
        self.port = FakePort()
        self.now_s = 100.0
        self.trouble: str | None = None
        self.gate = SerialGate(
            self.port,
            texts,
            times,
            terminator="\r",
            alive=lambda: self.trouble,
            beat=lambda _: None,
            monotonic=lambda: self.now_s,
        )

    def running(self) -> AbstractContextManager[None]:
        return running(self.gate.run)

    def sent(self) -> list[str]:
        return [one.decode().rstrip("\r") for one in self.port.sent]


def test_before_the_station_is_well_nothing_passes() -> None:
    desk = Desk()
    with pytest.raises(GateError, match=r"no PASS was said.*starting"):
        desk.gate.show(answer(1))
    desk.gate.show(answer(2, Verdict.FAIL))
    desk.gate.show(answer(3, Verdict.UNKNOWN))
    assert desk.sent() == ["F2", "U3"], "a board that is not to pass may always be told"


def test_the_order_is_safe_ready_result_and_safe_again_at_the_end() -> None:
    desk = Desk()
    with desk.running():
        until(lambda: "READY" in desk.sent())
        desk.port.sent.clear()
        desk.port.open()
        until(lambda: "READY" in desk.sent())
        desk.gate.busy(True)
        desk.gate.show(answer(1))
        desk.gate.busy(False)
    assert desk.sent() == ["SAFE", "READY", "BUSY", "P1", "READY", "SAFE"]


def test_a_station_in_trouble_lets_nothing_pass_though_its_loop_has_not_noticed_yet() -> None:
    desk = Desk()
    with desk.running():
        until(lambda: "READY" in desk.sent())
        desk.trouble = "the disk is full"
        with pytest.raises(GateError, match="disk is full"):
            desk.gate.show(answer(1))
        until(lambda: desk.sent()[-1] == "SAFE")
        desk.trouble = None
        until(lambda: desk.sent()[-1] == "READY")
        desk.gate.show(answer(2))
    assert "P1" not in desk.sent()
    assert "P2" in desk.sent()


def test_after_the_end_nothing_passes_any_more_however_well_the_station_is() -> None:
    desk = Desk(replace(QUIET, heartbeats=("H0", "H1")))
    with desk.running():
        until(lambda: "H1" in desk.sent())
        desk.gate.safe("the station was stopped")
        with pytest.raises(GateError, match="stopped"):
            desk.gate.show(answer(1))
        desk.now_s += 10
        before = desk.sent()
    assert desk.sent()[len(before) :] == ["SAFE"], "no heartbeat and no READY"


def test_the_heartbeat_toggles_while_the_station_works_and_stops_when_it_does_not() -> None:
    desk = Desk(replace(QUIET, heartbeats=("H0", "H1")))
    with desk.running():
        for count in range(1, 5):
            until(lambda count=count: sum(one in {"H0", "H1"} for one in desk.sent()) == count)  # type: ignore[misc]  # at once
            desk.now_s += 1.0
        desk.trouble = "a loop has stalled"
        until(lambda: desk.sent()[-1] == "SAFE")
        desk.now_s += 5.0
        desk.trouble = "the camera is away"
        desk.now_s += 5.0
    beats = [one for one in desk.sent() if one in {"H0", "H1"}]
    assert beats[:4] == ["H1", "H0", "H1", "H0"]
    assert len(beats) <= 5


def test_a_result_ends_after_its_time_and_before_the_next_one() -> None:
    desk = Desk(times=Times(valid_s=0.5))
    with desk.running():
        until(lambda: "READY" in desk.sent())
        desk.gate.show(answer(1))
        desk.now_s += 0.5
        until(lambda: desk.sent()[-1] == "E1")
        desk.gate.show(answer(2))
        desk.gate.show(answer(3))
        desk.gate.safe("over")
    assert [one for one in desk.sent() if one[0] in "PE"] == ["P1", "E1", "P2", "E2", "P3", "E3"]


def test_a_result_that_the_plc_acknowledges_is_shown_and_one_that_it_does_not_is_an_error(tmp_path: Path) -> None:
    texts = replace(QUIET, ack="A{number}")
    with Plc(tmp_path, acks=True) as plc:
        line = Open(plc.port)
        gate = SerialGate(line.port, texts, Times(ack_s=30.0), terminator="\r", alive=lambda: None, beat=lambda _: None)
        stop = threading.Event()
        loop = threading.Thread(target=gate.run, args=(stop,), daemon=True)  # not to outlive a test that fails
        with line:
            loop.start()
            plc.wait_for("READY")
            gate.show(answer(17))
            stop.set()
            loop.join(30)
    silent = Desk(texts, Times(ack_s=0.01))
    with silent.running():
        until(lambda: "READY" in silent.sent())
        silent.gate._monotonic = __import__("time").monotonic  # the acknowledgement is waited for by the real clock
        with pytest.raises(GateError, match=r'the PLC did not say "A1" within 10 ms'):
            silent.gate.show(answer(1))
        assert silent.port.say(b"A1"), "one that comes too late is an acknowledgement all the same, and no noise"
        with pytest.raises(GateError, match="A2"):
            silent.gate.show(answer(2))
        with pytest.raises(GateError, match="said too late to wait"):
            silent.gate.show(replace(answer(3), until_s=0.0))


def test_what_cannot_be_an_acknowledgement_is_left_to_others() -> None:
    """With "{number}" the gate took each trigger for one, and with "A{number}" each barcode that began with an A."""
    gates = [Desk(replace(QUIET, ack=ack)) for ack in ("{number}", "A{number}")]
    said = [[desk.port.say(line) for line in (b"17", b"A17", b"T17", b"ABC-1")] for desk in gates]
    assert said == [[True, False, False, False], [False, True, False, False]]


def test_what_is_filled_in_cannot_end_the_line_or_begin_another() -> None:
    desk = Desk(replace(QUIET, failed="F{number};{serial};{verdict};{reason}"))
    desk.gate.show(answer(5, Verdict.FAIL, reason="short\rP99\r≥" + "x" * 200, serial="SN\n1"))
    (said,) = desk.port.sent
    assert said.startswith(b"F5;SN?1;FAIL;short?P99??xxx")
    assert said.count(b"\r") == 1
    assert len(said) < 120


def test_a_board_without_a_number_gets_its_answer_without_one() -> None:
    desk = Desk()
    desk.gate.show(answer(None, Verdict.FAIL))
    desk.gate.show(Answer("id", Verdict.FAIL, ""))
    assert desk.sent() == ["F", "F"]


def test_empty_texts_are_not_said() -> None:
    desk = Desk(Texts(unknown="", ready="", busy="", safe="", heartbeats=()))
    with desk.running():
        desk.gate.show(answer(1, Verdict.UNKNOWN))
    assert desk.sent() == []


def test_a_port_that_was_away_begins_with_safe_and_the_old_result_is_forgotten() -> None:
    desk = Desk(times=Times(valid_s=5.0))
    with desk.running():
        until(lambda: "READY" in desk.sent())
        desk.gate.show(answer(1))
        desk.port.connected = False
        with pytest.raises(GateError, match="away"):
            desk.gate.show(answer(2))
        desk.port.sent.clear()
        desk.port.open()
        until(lambda: "READY" in desk.sent())
        desk.now_s += 10
    assert desk.sent() == ["SAFE", "READY", "SAFE"]
