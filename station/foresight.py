"""Has the detector look at boards that wait while the line is still at work on another: two at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from station.inspection import Bench, Seen, detected, unfit
from station.picture import keep_to_one_core
from station.turns import Turns
from station.types import Frame, Image

AHEAD = 3  # boards: two at the network, and one that is ready when either of them is done


@dataclass(frozen=True, slots=True, eq=False)
class _Begun:
    """A board that is being looked at, or has been: by which bench, and what came of it."""

    image: Image
    bench: Bench
    seen: Future[Seen]


class Foresight:
    """
    How the line looks at a board: it was done ahead, or is done now, with all cores.

    What was found ahead by one bench is of no use to another: a recipe that was changed in between judges anew.
    """

    def __init__(self, *, choose: Callable[[Frame], Bench], turns: Turns) -> None:
        self._choose = choose
        self._turns = turns
        self._lock = threading.Lock()
        self._begun: list[_Begun] = []  # in the order in which the line will ask
        self._workers = ThreadPoolExecutor(AHEAD, "look-ahead")

    def begin(self, frame: Frame) -> None:
        """Looks at *frame*, which the line will want soon, beside the caller. Not after ``close``."""
        if frame.image is None:
            return
        bench = self._choose(frame)
        with self._lock:
            # More never wait: what a line that failed was going to ask for it gets once more, as other frames.
            for left in self._begun[:-AHEAD]:
                left.seen.cancel()
            waiting = self._begun[-AHEAD:]
            self._in_a_row(len(waiting) > 0)  # first: who is looked at by then is let in by it
            begun = _Begun(frame.image, bench, self._workers.submit(self._ahead, frame.image, bench))
            self._begun = [*waiting, begun]

    def look(self, image: Image, bench: Bench) -> Seen:
        """For the line's thread. Raises DetectorError."""
        begun = self._taken(image)
        if begun is not None and begun.bench is bench:
            return begun.seen.result()
        return unfit(image, bench) or self._detected(image, bench)

    def close(self) -> None:
        """Nothing that waits is looked at any more."""
        self._workers.shutdown(cancel_futures=True)

    def _taken(self, image: Image) -> _Begun | None:
        with self._lock:
            place = next((place for place, one in enumerate(self._begun) if one.image is image), None)
            if place is None:
                return None
            *passed_over, begun = self._begun[: place + 1]  # by a line that failed: it asks in their order
            for left in passed_over:
                left.seen.cancel()
            self._begun = self._begun[place + 1 :]
            self._in_a_row(len(self._begun) > 1)
            return begun

    def _in_a_row(self, more_to_come: bool) -> None:
        if more_to_come != self._turns.more_to_come:
            self._turns.more_to_come = more_to_come
            keep_to_one_core(yes=more_to_come)

    def _ahead(self, image: Image, bench: Bench) -> Seen:
        return unfit(image, bench) or self._detected_ahead(image, bench)

    def _detected(self, image: Image, bench: Bench) -> Seen:
        with self._turns.line():
            return detected(image, bench, alone=True)

    def _detected_ahead(self, image: Image, bench: Bench) -> Seen:
        with self._turns.ahead() as alone:
            return detected(image, bench, alone=alone)
