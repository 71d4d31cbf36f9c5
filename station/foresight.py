"""Has the detector look at boards that wait while the line is still at work on another: two at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from station.line import Bench, Seen, look_now
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
            begun = _Begun(frame.image, bench, self._workers.submit(self._ahead, frame.image, bench))
            self._now_begun([*self._begun[-AHEAD:], begun])

    def look(self, image: Image, bench: Bench) -> Seen:
        """For the line's thread. Raises DetectorError."""
        begun = self._taken(image)
        if begun is not None and begun.bench is bench:
            return begun.seen.result()
        with self._turns.line():
            return look_now(image, bench)

    def close(self) -> None:
        """Nothing that waits is looked at any more."""
        self._workers.shutdown(cancel_futures=True)

    def _taken(self, image: Image) -> _Begun | None:
        with self._lock:
            place = next((place for place, one in enumerate(self._begun) if one.image is image), None)
            if place is None:
                return None
            *passed_over, begun = self._begun[: place + 1]  # the line will not ask for those any more
            for left in passed_over:
                left.seen.cancel()
            self._now_begun(self._begun[place + 1 :])
            return begun

    def _now_begun(self, begun: list[_Begun]) -> None:
        self._begun = begun
        in_a_row = len(begun) > 1
        if in_a_row != self._turns.more_to_come:
            self._turns.more_to_come = in_a_row
            keep_to_one_core(yes=in_a_row)

    def _ahead(self, image: Image, bench: Bench) -> Seen:
        with self._turns.ahead() as alone:
            return look_now(image, bench, alone=alone)
