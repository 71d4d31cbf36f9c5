"""The light tower: what is seen from two metres away."""

from __future__ import annotations

import threading

import pytest

from station.gates.tower import FLASH, OFF, ON, STOPPED, Lamps, Tower, lamps_of
from station.types import Verdict
from tests.ports import FakePort
from tests.waiting import until


@pytest.mark.parametrize(
    ("last", "trouble", "piled_up", "shown"),
    [
        (None, False, False, Lamps()),
        (Verdict.PASS, False, False, Lamps(green=ON)),
        (Verdict.FAIL, False, False, Lamps(red=ON)),
        (Verdict.UNKNOWN, False, False, Lamps(amber=ON)),
        (Verdict.PASS, True, False, Lamps(amber=ON)),
        (Verdict.FAIL, True, False, Lamps(red=ON, amber=ON)),
        (None, True, False, Lamps(amber=ON)),
        (Verdict.PASS, False, True, Lamps(green=FLASH)),
        (Verdict.FAIL, False, True, Lamps(red=FLASH)),
        (None, False, True, Lamps(amber=FLASH)),
        (Verdict.PASS, True, True, Lamps(amber=FLASH)),
    ],
)
def test_each_state_has_its_light(last: Verdict | None, trouble: bool, piled_up: bool, shown: Lamps) -> None:
    assert lamps_of(last, trouble=trouble, piled_up=piled_up) == shown


def test_the_bytes_are_those_of_the_towers_manual() -> None:
    assert Lamps(green=ON).to_bytes() == bytes.fromhex("585853000006 000001000000")
    assert Lamps(red=FLASH, amber=OFF).to_bytes() == bytes.fromhex("585853000006 020000000000")


def test_a_change_is_shown_a_port_that_comes_back_is_told_again_and_the_end_is_amber() -> None:
    port, stop = FakePort(), threading.Event()
    now = [Lamps(green=ON)]
    tower = Tower(port, look=lambda: now[0], beat=lambda _: None)
    loop = threading.Thread(target=tower.run, args=(stop,))
    loop.start()
    until(lambda: port.sent == [Lamps(green=ON).to_bytes()])
    now[0] = Lamps(red=ON)
    until(lambda: port.sent[-1] == Lamps(red=ON).to_bytes())
    port.connected = False
    now[0] = Lamps(amber=ON)
    port.sent.clear()
    port.open()
    until(lambda: port.sent == [Lamps(amber=ON).to_bytes()])
    stop.set()
    loop.join(30)
    assert port.sent[-1] == STOPPED.to_bytes()
