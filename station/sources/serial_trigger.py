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
from station.types import Beat, Order, Port, Stop

log = structlog.get_logger(__name__)

TURN_S = 0.5
WAITING = 1000  # triggers that were heard and not yet taken: more can only be noise


@dataclass(frozen=True, slots=True)
class Dialect:
    """
    What a trigger looks like, and what is said to it: *taken* and *refused* are empty where the custom is to be silent.

    *pattern* must match the whole line; its groups ``number`` and ``serial``, if it has them, are the board's.
    ``{line}`` in what is said is the line itself.
    """

    pattern: re.Pattern[str]
    taken: str = ""
    refused: str = ""


DIALECTS = {
    "plain": Dialect(re.compile(r"T(?P<number>[0-9]{1,18})?")),
    "keyence": Dialect(re.compile(r"T[1-4A]"), taken="{line}", refused="ER,{line},03"),  # echo, or error 03: not now
    "cognex": Dialect(re.compile(r"S[EW]8"), taken="1", refused="-2"),  # native mode: done, or could not be executed
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

    When a trigger came, with which code and of which board its picture is, is settled as soon as it is heard: *order*
    asks the camera. Taking it waits for the disk, and meanwhile the next board and its code come.
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
        if match is None:
            return False
        found = match.groupdict()
        number = found.get("number")
        if number is not None and not (number.isascii() and number.isdigit() and len(number) <= 18):
            return False  # a pattern of the user's own may let more through
        code = self._code_for(at_s)  # asked in any case: a code belongs to this board, or to none
        picture = self._order(at_s)
        heard = _Heard(text, int(number) if number else None, found.get("serial") or code, at_s, picture)
        try:
            self._heard.put_nowait(heard)
        except Full:
            picture.cancel()
            return False  # noise, which the port counts
        return True

    def _take(self, heard: _Heard) -> None:
        taken = self._arrived(heard.number, heard.board_serial, heard.at_s, picture=heard.picture) is not None
        answer = self._dialect.taken if taken else self._dialect.refused
        if answer:
            try:
                self._port.write((answer.format(line=heard.text) + self._terminator).encode())
            except GateError as error:  # the port's own loop finds out too
                log.warning("trigger not acknowledged", reason=str(error))


def dialect_of(preset: str, pattern: str) -> Dialect:
    """The dialect *preset*, with *pattern* in the place of its own if that is given."""
    known = DIALECTS[preset]
    return Dialect(re.compile(pattern), known.taken, known.refused) if pattern else known
