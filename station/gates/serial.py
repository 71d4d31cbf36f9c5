"""The gate as lines of text on a serial port. No message means reject: a PASS is said once, for one board."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from station.errors import GateError
from station.line_texts import pattern_of
from station.types import Answer, Beat, Port, Stop, Verdict

log = structlog.get_logger(__name__)

MAX_FIELD = 64  # characters of a value that is filled in
TURN_S = 0.25


@dataclass(frozen=True, slots=True)
class Texts:
    """
    What is said, without the terminator. Empty: it is not said.

    ``{number}``, ``{serial}``, ``{verdict}`` and ``{reason}`` are filled in. *safe* tells that nothing is to be
    believed from here on, *end* that the last result is valid no longer. *ack* is what the PLC says to a result.
    """

    passed: str = "P{number}"
    failed: str = "F{number}"
    unknown: str = "U{number}"
    ready: str = "READY"
    busy: str = "BUSY"
    safe: str = "SAFE"
    end: str = "E{number}"
    heartbeats: tuple[str, ...] = ("H0", "H1")
    ack: str = ""

    def of(self, verdict: Verdict) -> str:
        return {Verdict.PASS: self.passed, Verdict.FAIL: self.failed, Verdict.UNKNOWN: self.unknown}[verdict]


@dataclass(frozen=True, slots=True)
class Times:
    """*valid_s*: how long a result stands (0: until the next); *ack_s*: how long the PLC may take to acknowledge it."""

    heartbeat_s: float = 1.0
    ack_s: float = 0.2
    valid_s: float = 0.0


class SerialGate:
    """
    Implements ``types.Gate`` on *port*; ``run`` is the loop that a Worker supervises.

    The heartbeat toggles only while *alive* says that the station really works (None), else why it does not. While it
    does not, and from each opening of the port until it does, the gate is safe: no PASS is said.
    """

    def __init__(
        self,
        port: Port,
        texts: Texts,
        times: Times,
        *,
        terminator: str,
        alive: Callable[[], str | None],
        beat: Beat,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._port = port
        self._texts = texts
        self._times = times
        self._terminator = terminator
        self._alive = alive
        self._beat = beat
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._safe: str | None = "the station is starting"  # why no PASS may be said; None: one may
        self._busy = False
        self._valid: tuple[Answer, float] | None = None  # the result that stands, and until when
        self._acked: set[str] = set()
        self._ack = pattern_of(texts.ack) if texts.ack else None
        self._toggle = 0
        self._ended: str | None = None  # why no PASS will be said any more
        port.listen(self._on_line, self._on_open)

    def show(self, answer: Answer) -> None:
        why = self._alive() if answer.verdict is Verdict.PASS else None  # as fresh as can be
        with self._changed:
            if why is not None and self._safe is None:
                self._go_safe(why)
            if answer.verdict is Verdict.PASS and self._safe is not None:
                raise GateError(f"no PASS was said: the gate is in its safe state ({self._safe})")
            self._end_result()
            expected = _filled(self._texts.ack, answer) if self._ack else None
            self._acked.clear()
            self._say(_filled(self._texts.of(answer.verdict), answer))
            if self._times.valid_s:
                self._valid = (answer, self._monotonic() + self._times.valid_s)
                self._changed.notify_all()
            if expected is None:
                return
            said_s = self._monotonic()
            deadline_s = min(said_s + self._times.ack_s, answer.until_s)
            while expected not in self._acked:
                left_s = deadline_s - self._monotonic()
                if left_s <= 0:
                    within_ms = (deadline_s - said_s) * 1e3
                    if within_ms <= 0:
                        raise GateError("it was said too late to wait for the PLC's acknowledgement")
                    raise GateError(f'the PLC did not say "{expected}" within {within_ms:.0f} ms')
                self._changed.wait(left_s)

    def busy(self, busy: bool) -> None:
        with self._changed:
            self._busy = busy
            if self._safe is None:
                with suppress(GateError):  # the port's own loop finds out, and says so
                    self._say(self._texts.busy if busy else self._texts.ready)

    def safe(self, why: str) -> None:
        with self._changed:
            self._ended = why
            self._go_safe(why)

    def run(self, stop: Stop) -> None:
        """Toggles the heartbeat, ends results in time and follows how the station is, until *stop*; then it is safe."""
        next_s = self._monotonic()
        while not stop.is_set():
            self._beat("gate")
            why = self._alive()  # before the lock: what is asked may take a moment
            with self._changed:
                why = self._ended or why
                now_s = self._monotonic()
                if self._valid is not None and now_s >= self._valid[1]:
                    self._end_result()
                if why is not None:
                    if self._safe is None:
                        self._go_safe(why)
                elif self._port.connected:
                    if self._safe is not None:
                        self._safe = None
                        with suppress(GateError):
                            self._say(self._texts.busy if self._busy else self._texts.ready)
                    if now_s >= next_s and self._texts.heartbeats:
                        next_s = now_s + self._times.heartbeat_s
                        self._toggle = (self._toggle + 1) % len(self._texts.heartbeats)
                        with suppress(GateError):
                            self._say(self._texts.heartbeats[self._toggle])
                ends_s = self._valid[1] if self._valid is not None else now_s + TURN_S
                self._changed.wait(max(0.0, min(TURN_S, ends_s - now_s, max(next_s - now_s, 0.01))))
        with self._changed:
            self._go_safe("the station was stopped")

    def _on_line(self, line: bytes, _at_s: float) -> bool:
        text = line.decode("ascii", "replace")
        if self._ack is None or self._ack.fullmatch(text) is None:
            return False
        with self._changed:
            self._acked.add(text)
            self._changed.notify_all()
        return True

    def _on_open(self) -> None:
        """Whoever is at the other end has missed what was said meanwhile: first of all nothing is to be believed."""
        with self._changed:
            self._valid = None
            self._go_safe("the serial port was opened")

    def _go_safe(self, why: str) -> None:
        self._end_result()
        if self._safe is None:
            log.warning("gate is safe", reason=why)
        self._safe = why
        with suppress(GateError):
            self._say(self._texts.safe)

    def _end_result(self) -> None:
        if self._valid is not None:
            answer, self._valid = self._valid[0], None
            with suppress(GateError):
                self._say(_filled(self._texts.end, answer))

    def _say(self, text: str) -> None:
        if text:
            self._port.write((text + self._terminator).encode("ascii", "replace"))


def _filled(text: str, answer: Answer) -> str:
    trigger = answer.trigger
    number = "" if trigger is None or trigger.number is None else str(trigger.number)
    serial = "" if trigger is None or trigger.board_serial is None else trigger.board_serial
    return text.format(
        number=number, serial=_plain(serial), verdict=answer.verdict.value.upper(), reason=_plain(answer.reason)
    )


def _plain(value: str) -> str:
    """Printable ASCII and short: a value must not be able to end the line, or to begin another one."""
    return "".join(one if " " <= one <= "~" else "?" for one in value)[:MAX_FIELD]
