"""The gate as a relay on a serial port: PASS is a pulse, and everything else is no pulse."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from station.errors import GateError
from station.health import Health
from station.types import Answer, Beat, Port, Stop, Verdict

log = structlog.get_logger(__name__)

FAULT = "relay_stuck"
TURN_S = 0.25


@dataclass(frozen=True, slots=True)
class Relay:
    """The bytes that close and open it."""

    on: bytes
    off: bytes


LCUS = Relay(bytes.fromhex("A00101A2"), bytes.fromhex("A00100A1"))  # channel 1 of the LCUS boards (CH340)


class RelayGate:
    """
    Implements ``types.Gate`` on *port*; ``run`` is the loop that a Worker supervises, and that ends each pulse.

    The relay is opened at each opening of the port, after each pulse, in every answer but PASS, and whenever *alive*
    says why the station does not work. While it may still be closed, because that write failed, there is no other PASS.
    """

    def __init__(
        self,
        port: Port,
        relay: Relay,
        *,
        pulse_s: float,
        alive: Callable[[], str | None],
        beat: Beat,
        health: Health,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._port = port
        self._relay = relay
        self._pulse_s = pulse_s
        self._alive = alive
        self._beat = beat
        self._health = health
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._safe: str | None = "the station is starting"
        self._closed = True  # it may be: nobody knows how the last run ended
        self._until_s = float("-inf")
        self._ended: str | None = None  # why there will be no pulse any more
        port.listen(lambda _line, _at_s: False, self._on_open)

    def show(self, answer: Answer) -> None:
        with self._changed:
            if answer.verdict is not Verdict.PASS:
                self._open()
                if self._closed:
                    raise GateError("the relay could not be opened: is its port there?")
                return
            self._safe = self._alive() or self._safe
            if self._safe is not None:
                raise GateError(f"no pulse was given: the gate is in its safe state ({self._safe})")
            if self._closed:
                raise GateError("no pulse was given: the relay has not been opened since the last one")
            self._closed = True  # also when the write fails: half of it may have arrived
            self._until_s = self._monotonic() + self._pulse_s
            self._changed.notify_all()
            self._port.write(self._relay.on)

    def busy(self, busy: bool) -> None:
        """A relay has one thing to say."""

    def safe(self, why: str) -> None:
        with self._changed:
            self._ended = self._safe = why
            self._open()

    def run(self, stop: Stop) -> None:
        """Ends each pulse in its time, until *stop*; then the relay is open."""
        while not stop.is_set():
            self._beat("gate")
            why = self._alive()
            with self._changed:
                why = self._ended or why
                now_s = self._monotonic()
                if why != self._safe and why is not None:
                    log.warning("gate is safe", reason=why)
                if why is not None or (self._closed and now_s >= self._until_s):
                    self._open()
                self._safe = why if why is not None or self._port.connected else "the port is away"
                wait_s = self._until_s - now_s if self._closed and self._until_s > now_s else TURN_S
                self._changed.wait(min(TURN_S, wait_s))
        with self._changed:
            self._safe = "the station was stopped"
            self._open()

    def _on_open(self) -> None:
        with self._changed:
            self._closed = True
            self._open()

    def _open(self) -> None:
        """Opens the relay. Where that fails it is tried again at each turn, and said."""
        try:
            self._port.write(self._relay.off)
        except GateError as error:
            if self._closed and self._port.connected:
                self._health.begin(FAULT, f"the relay may be closed and could not be opened: {error}")
            return
        self._closed = False
        self._until_s = float("-inf")
        self._health.end(FAULT)
