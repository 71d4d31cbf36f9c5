"""One network, and who may use it when: the line first, then what it will want next, and guests in between."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from station.inspection import Bench
from station.types import Defect, Image, ModelInfo


class Turns:
    """
    Who may use the network now: one on all cores, or two beside each other, each on half of them.

    *threads*: of the network; with a single one there are no halves, and nobody is beside anybody. The line has it
    alone, and nobody is let in while it waits: it loses at most what runs already. Who looks ahead for it and guests
    come by turns, each in its own order. One that nobody may begin beside has all cores; but who looks ahead while
    there is ``more_to_come`` has half of them, for the others are at work on the boards around it. *guests_abreast*:
    two guests at a time, where there is no line; each takes longer then, and a line would lose that.
    """

    def __init__(self, threads: int, *, guests_abreast: bool) -> None:
        self._lock = threading.Lock()
        self._abreast = 2 if threads > 1 else 1
        self._guests_abreast = guests_abreast
        self._guests_running = 0
        self._running = 0
        self._alone = False  # what runs has all cores
        self.more_to_come = False  # whether several boards are on their way to the line
        self._line: deque[_Waiting] = deque()
        self._ahead: deque[_Waiting] = deque()
        self._guests: deque[_Waiting] = deque()
        self._last: deque[_Waiting] = self._guests  # who of the two came last

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        with self._lock:
            return len(self._line) + len(self._ahead) + len(self._guests)

    @contextmanager
    def line(self) -> Iterator[None]:
        """For the line's own thread."""
        with self._turn(self._line):
            yield

    @contextmanager
    def ahead(self) -> Iterator[bool]:
        """For who judges what the line will want next: whether it has all cores, and not half of them."""
        with self._turn(self._ahead) as alone:
            yield alone

    @contextmanager
    def guest(self) -> Iterator[bool]:
        """For any thread: whether it has all cores, and not half of them."""
        with self._turn(self._guests) as alone:
            yield alone

    @contextmanager
    def _turn(self, queue: deque[_Waiting]) -> Iterator[bool]:
        mine = _Waiting()
        with self._lock:
            queue.append(mine)
            self._let_in()
        mine.admitted.acquire()  # until it is released by who lets in
        try:
            yield mine.alone
        finally:
            with self._lock:
                self._running -= 1
                self._guests_running -= queue is self._guests
                self._let_in()

    def _let_in(self) -> None:
        """Whoever may begin now. Nobody is woken in vain."""
        while not (self._running and self._alone) and self._running < self._abreast:
            if self._line:
                if self._running == 0:
                    self._begin(self._line, alone=True)
                return
            guests = len(self._guests) if self._guests_abreast else min(len(self._guests), 1 - self._guests_running)
            others = len(self._ahead) + guests
            if others == 0:
                return
            last_was_ahead = self._last is self._ahead
            self._last = self._guests if guests and (last_was_ahead or not self._ahead) else self._ahead
            in_a_row = self._last is self._ahead and self.more_to_come
            alone = self._running == 0 and (self._abreast == 1 or (others == 1 and not in_a_row))
            self._begin(self._last, alone=alone)

    def _begin(self, queue: deque[_Waiting], *, alone: bool) -> None:
        one = queue.popleft()
        self._running += 1
        self._guests_running += queue is self._guests
        self._alone = one.alone = alone
        one.admitted.release()


class _Waiting:
    def __init__(self) -> None:
        self.admitted = threading.Lock()
        self.admitted.acquire()
        self.alone = False


class GuestDetector:
    """The detector of *bench* as the inspection API uses it: when the line does not."""

    def __init__(self, bench: Bench, turns: Turns) -> None:
        self._bench = bench
        self._turns = turns

    @property
    def model(self) -> ModelInfo:
        return self._bench.detector.model

    def detect(self, image: Image) -> list[Defect]:
        with self._turns.guest() as alone:
            return self._bench.detector_for(alone=alone).detect(image)
