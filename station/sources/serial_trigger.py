"""Triggers as lines of text on a serial port, in the dialects that lines speak."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Protocol

import structlog

from station.errors import GateError
from station.line_texts import TRIGGERS
from station.log import is_said
from station.types import Beat, Order, Port, Stop

log = structlog.get_logger(__name__)

TURN_S = 0.5
MAX_DIGITS = 18  # of a number: it fits into 64 bits
WAITING = 1000  # triggers that were heard and not yet taken: more can only be noise


@dataclass(frozen=True, slots=True)
class Dialect:
    """
    What a trigger looks like, and what is said to it: *taken* and *refused* are empty where the custom is to be silent.

    *pattern* must match the whole line; its groups ``number`` and ``serial``, if it has them, are the board's. A number
    may be padded with spaces. ``{line}`` in what is said is the line itself.
    """

    pattern: re.Pattern[str]
    taken: str = ""
    refused: str = ""


DIALECTS = {
    "plain": Dialect(re.compile(TRIGGERS["plain"])),
    "keyence": Dialect(re.compile(TRIGGERS["keyence"]), "{line}", "ER,{line},03"),  # echo, or error 03: not now
    "cognex": Dialect(re.compile(TRIGGERS["cognex"]), "1", "-2"),  # native mode: done, or could not be executed
}


class Arrived(Protocol):
    """Takes a trigger (``triggers.Triggers.arrived``); None: it was not taken."""

    def __call__(
        self, number: int | None, board_serial: str | None, at_s: float, /, *, picture: Order
    ) -> object | None: ...


@dataclass(frozen=True, slots=True)
class _Heard:
    text: str
    number: int | None
    board_serial: str | None
    at_s: float
    picture: Order


class SerialTriggers:
    """
    Hears triggers on *port* and takes them in the loop ``run``. *code_for* gives the barcode that belongs to a trigger
    of that moment, if there is one; a serial in the trigger's own line comes before it.

    A trigger's time, its code and its picture are settled as soon as it is heard: *order* asks the camera. Taking it
    waits for the disk, and meanwhile the next board and its code come.

    A line that starts like a numbered trigger but is not a valid one counts as noise; on a line shared with a scanner
    it would otherwise be taken for the next board's barcode.
    """

    def __init__(
        self,
        port: Port,
        dialect: Dialect,
        *,
        terminator: str,
        arrived: Arrived,
        order: Callable[[float], Order],
        beat: Beat,
        code_for: Callable[[float], str | None] = lambda _at_s: None,
    ) -> None:
        self._port = port
        self._dialect = dialect
        self._terminator = terminator
        self._arrived = arrived
        self._order = order
        self._beat = beat
        self._code_for = code_for
        self._heard: Queue[_Heard] = Queue(WAITING)
        self.noise = 0  # damaged triggers, and those that came while WAITING were there
        port.listen(self._on_line)

    def run(self, stop: Stop) -> None:
        """Takes what was heard, until *stop*; then what is still there, so that it is answered."""
        while not stop.is_set() or not self._heard.empty():
            self._beat("trigger")
            with suppress(Empty):
                self._take(self._heard.get(timeout=TURN_S))

    def _on_line(self, line: bytes, at_s: float) -> bool:
        text = line.decode("ascii", "replace")
        match = self._dialect.pattern.fullmatch(text)
        if match is None and not self._begins_as_one(text):
            return False
        code = self._code_for(at_s)  # asked in any case: a code belongs to this board, or to none
        heard = None if match is None else _understood(match, code, at_s, self._order)
        if heard is None or not self._queued(heard):
            self.noise += 1
            say = log.warning if is_said(self.noise) else log.debug
            say("trigger not understood", line=text[:80], lines=self.noise)
        return True

    def _queued(self, heard: _Heard) -> bool:
        try:
            self._heard.put_nowait(heard)
        except Full:
            heard.picture.cancel()
            return False
        return True

    def _begins_as_one(self, text: str) -> bool:
        """A pattern without numbers tells triggers by all of it."""
        match = self._dialect.pattern.match(text)
        return match is not None and bool(match.groupdict(default="").get("number", match.group()))

    def _take(self, heard: _Heard) -> None:
        taken = self._arrived(heard.number, heard.board_serial, heard.at_s, picture=heard.picture) is not None
        answer = self._dialect.taken if taken else self._dialect.refused
        if answer:
            try:
                self._port.write((answer.format(line=heard.text) + self._terminator).encode())
            except GateError as error:  # the port's own loop finds out too
                log.warning("trigger not acknowledged", reason=str(error))


def _understood(match: re.Match[str], code: str | None, at_s: float, order: Callable[[float], Order]) -> _Heard | None:
    """None: a pattern of the user's own let through what is no number, or what nobody could read as a serial."""
    found = match.groupdict(default="")
    number, board_serial = found.get("number", "").strip(" "), found.get("serial", "")
    if number and not (number.isascii() and number.isdigit() and len(number) <= MAX_DIGITS):
        return None
    if not all(" " <= one <= "~" for one in board_serial):
        return None
    return _Heard(match.string, int(number) if number else None, board_serial or code, at_s, order(at_s))


def dialect_of(preset: str, pattern: str) -> Dialect:
    """The dialect *preset*, with *pattern* in the place of its own if that is given."""
    known = DIALECTS[preset]
    return Dialect(re.compile(pattern), known.taken, known.refused) if pattern else known
