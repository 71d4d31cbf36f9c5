"""Has the detector look at the boards that wait, two at a time, while the line is still at work on another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

from station.inspection import Bench, Seen, detected, unfit
from station.picture import keep_to_one_core
from station.turns import Turns
from station.types import Frame, Image

AHEAD = 3  # boards: two at the network, and one that is ready when either of them is done


@dataclass(frozen=True, slots=True, eq=False)
class _Begun:
    """A board that is looked at ahead: by which bench, and what comes of it."""

    image: Image
    bench: Bench
    seen: Future[Seen]


class Foresight:
    """
    How the line looks at a board: it was looked at ahead, or is looked at now, on all cores.

    What one bench found ahead is of no use to another: where the recipe has changed in between, the board is looked at
    again.
    """

    def __init__(self, *, choose: Callable[[Frame], Bench], turns: Turns) -> None:
        self._choose = choose
        self._turns = turns
        self._lock = threading.Lock()
        self._begun: list[_Begun] = []  # in the order in which the line will ask
        self._in_a_row = False  # whether several boards are on their way to the line
        self._closed = False
        self._workers = ThreadPoolExecutor(AHEAD, "look-ahead")

    def begin(self, frame: Frame) -> None:
        """Looks at *frame*, which the line will want soon, beside the caller. After ``close`` it is left alone."""
        if frame.image is None:
            return
        bench = self._choose(frame)
        with self._lock:
            if self._closed:
                return
            # Keep only the last AHEAD. Older entries are left from a line that failed; its boards come again as new
            # frames.
            for left in self._begun[:-AHEAD]:
                left.seen.cancel()
            waiting = self._begun[-AHEAD:]
            self._expect(in_a_row=bool(waiting))  # before it is submitted: it may be admitted at once, and must see it
            seen = self._workers.submit(_look, frame.image, bench, self._turns.ahead())
            self._begun = [*waiting, _Begun(frame.image, bench, seen)]

    def look(self, image: Image, bench: Bench) -> Seen:
        """For the line's thread. Raises DetectorError; CancelledError for a board that ``close`` came before."""
        begun = self._taken(image)
        if begun is not None and begun.bench is bench:
            return begun.seen.result()
        return _look(image, bench, self._turns.line())

    def forget(self) -> None:
        """For the line when it starts, also after a failure: it asks for none of the boards of an earlier run."""
        with self._lock:
            for left in self._begun:
                left.seen.cancel()
            self._begun = []
            self._expect(in_a_row=False)

    def close(self) -> None:
        """Nothing that waits is looked at any more, and it does not wait for what is: a run may hang."""
        with self._lock:
            self._closed = True
        self.forget()
        self._turns.end_ahead()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _taken(self, image: Image) -> _Begun | None:
        with self._lock:
            place = next((place for place, one in enumerate(self._begun) if one.image is image), None)
            if place is None:
                return None
            # The line asks in their order. What it passed over is left from a line that failed.
            *passed_over, begun = self._begun[: place + 1]
            for left in passed_over:
                left.seen.cancel()
            self._begun = self._begun[place + 1 :]
            self._expect(in_a_row=len(self._begun) > 1)
            return begun

    def _expect(self, *, in_a_row: bool) -> None:
        """Of boards in a row each is looked at on half the cores, and OpenCV keeps to the core of its caller."""
        if in_a_row != self._in_a_row:
            self._in_a_row = in_a_row
            self._turns.expect_more(yes=in_a_row)
            keep_to_one_core(yes=in_a_row)


def _look(image: Image, bench: Bench, turn: AbstractContextManager[bool]) -> Seen:
    """Looks at a board; the detector is run within *turn*, if it is needed. Raises DetectorError."""
    seen = unfit(image, bench)
    if seen is not None:
        return seen
    with turn as alone:
        return detected(image, bench, alone=alone)
