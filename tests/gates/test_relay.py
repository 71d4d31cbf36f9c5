"""The relay: a pulse for a PASS, and never a relay that stays closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from station.errors import GateError
from station.gates.relay import FAULT, LCUS, RelayGate
from station.health import Health
from station.types import Answer, Verdict
from tests.looping import running
from tests.ports import FakePort
from tests.waiting import until


class FailingPort(FakePort):
    """A port that is there and takes nothing while *broken*."""

    broken = False

    def write(self, data: bytes) -> None:
        if self.broken:
            raise GateError("took no bytes")
        super().write(data)


class Desk:
    """A relay on a port in memory, at a clock that the test moves."""

    def __init__(self) -> None:
        self.port = FailingPort()
        self.health = Health()
        self.now_s = 100.0
        self.trouble: str | None = None
        self.gate = RelayGate(
            self.port,
            LCUS,
            pulse_s=0.2,
            alive=lambda: self.trouble,
            beat=lambda _: None,
            health=self.health,
            monotonic=lambda: self.now_s,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        with running(self.gate.run):
            until(self.opened)
            yield

    def opened(self) -> bool:
        return bool(self.port.sent) and self.port.sent[-1] == LCUS.off and self.gate._safe is None

    def pulses(self) -> int:
        return self.port.sent.count(LCUS.on)


PASS = Answer("id", Verdict.PASS, "")


def test_a_pass_is_one_pulse_that_ends_by_itself() -> None:
    desk = Desk()
    with desk.running():
        desk.gate.show(PASS)
        assert desk.port.sent[-1] == LCUS.on
        desk.now_s += 0.2
        until(desk.opened)
    assert desk.pulses() == 1


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.UNKNOWN])
def test_any_other_answer_gives_no_pulse_and_ends_one(verdict: Verdict) -> None:
    desk = Desk()
    with desk.running():
        desk.gate.show(PASS)
        desk.gate.show(Answer("id", verdict, ""))
        assert desk.port.sent[-1] == LCUS.off
    assert desk.pulses() == 1


def test_there_is_no_second_pulse_before_the_first_has_ended() -> None:
    desk = Desk()
    with desk.running():
        desk.gate.show(PASS)
        with pytest.raises(GateError, match="not been opened since"):
            desk.gate.show(PASS)
    assert desk.pulses() == 1


def test_before_the_relay_is_known_to_be_open_and_in_trouble_there_is_no_pulse() -> None:
    desk = Desk()
    with pytest.raises(GateError, match="starting"):
        desk.gate.show(PASS)
    with desk.running():
        desk.trouble = "the camera is away"
        with pytest.raises(GateError, match="camera is away"):
            desk.gate.show(PASS)
    assert desk.pulses() == 0


def test_a_relay_that_cannot_be_opened_is_a_fault_and_is_tried_until_it_opens() -> None:
    desk = Desk()
    with desk.running():
        desk.gate.show(PASS)
        desk.port.broken = True
        desk.now_s += 0.2
        until(lambda: [fault.code for fault in desk.health.faults()] == [FAULT])
        with pytest.raises(GateError):
            desk.gate.show(PASS)
        with pytest.raises(GateError, match="could not be opened"):
            desk.gate.show(Answer("id", Verdict.FAIL, ""))
        desk.port.broken = False
        until(desk.opened)
        assert desk.health.faults() == []
        desk.gate.show(PASS)
    assert desk.pulses() == 2


def test_a_pulse_whose_write_failed_half_way_is_ended_like_any_other() -> None:
    desk = Desk()
    with desk.running():
        desk.port.broken = True
        with pytest.raises(GateError, match="took no bytes"):
            desk.gate.show(PASS)
        desk.port.broken = False
        desk.port.sent.clear()
        desk.now_s += 0.2
        until(lambda: LCUS.off in desk.port.sent)


def test_the_end_opens_the_relay_and_there_is_no_pulse_after_it() -> None:
    desk = Desk()
    with desk.running():
        desk.gate.show(PASS)
        desk.gate.safe("the station was stopped")
        assert desk.port.sent[-1] == LCUS.off
        with pytest.raises(GateError, match="stopped"):
            desk.gate.show(PASS)
    assert desk.port.sent[-1] == LCUS.off


def test_a_port_that_comes_back_is_opened_first_of_all() -> None:
    desk = Desk()
    with desk.running():
        desk.gate.show(PASS)
        desk.port.connected = False
        desk.port.sent.clear()
        desk.port.open()
        assert desk.port.sent[0] == LCUS.off
