"""A light tower: green for PASS, red for FAIL, amber for UNKNOWN or a fault, flashing while much is owed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from station.errors import GateError
from station.types import Beat, Port, Stop, Verdict

log = structlog.get_logger(__name__)

OFF, ON, FLASH = 0, 1, 2
HEAD = bytes.fromhex("585853000006")  # Patlite's PNS command: then red, amber, green, blue, white, buzzer
TURN_S = 0.5
REPEAT_TURNS = 10  # said again every five seconds: a tower that was off the mains is dark


@dataclass(frozen=True, slots=True)
class Lamps:
    """OFF, ON or FLASH each."""

    red: int = OFF
    amber: int = OFF
    green: int = OFF

    def to_bytes(self) -> bytes:
        return HEAD + bytes((self.red, self.amber, self.green, OFF, OFF, OFF))


STOPPED = Lamps(amber=ON)


def lamps_of(last: Verdict | None, *, trouble: bool, piled_up: bool) -> Lamps:
    """
    What the tower shows: the *last* board's verdict, amber also for *trouble* (a fault, not ready), which is never
    green. What is lit flashes while events pile up, amber if nothing is lit.
    """
    lit = FLASH if piled_up else ON
    if trouble or last is Verdict.UNKNOWN:
        red = lit if last is Verdict.FAIL else OFF
        return Lamps(red=red, amber=lit)
    if last is Verdict.FAIL:
        return Lamps(red=lit)
    if last is Verdict.PASS:
        return Lamps(green=lit)
    return Lamps(amber=FLASH) if piled_up else Lamps()


class Tower:
    """Shows *look* on a tower at *port*, in the loop ``run``. Its own trouble is never the line's."""

    def __init__(self, port: Port, *, look: Callable[[], Lamps], beat: Beat) -> None:
        self._port = port
        self._look = look
        self._beat = beat
        self._shown: Lamps | None = None
        port.listen(lambda _line, _at_s: True, self._forget)

    def run(self, stop: Stop) -> None:
        """Says what changed at once and all of it now and then, until *stop*; then amber: nobody inspects."""
        turn = 0
        while not stop.is_set():
            self._beat("tower")
            now = self._look()
            if now != self._shown or turn % REPEAT_TURNS == 0:
                self._say(now)
            turn += 1
            stop.wait(TURN_S)
        self._say(STOPPED)

    def _forget(self) -> None:
        self._shown = None

    def _say(self, lamps: Lamps) -> None:
        try:
            self._port.write(lamps.to_bytes())
        except GateError as error:
            log.debug("tower not reached", reason=str(error))  # its port's loop makes the fault
        else:
            self._shown = lamps
