"""Who may run the one network, and when: the line first, then what it will want next, and guests in between."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager


class Turns:
    """
    Decides who may run the network: one job on all cores, or two side by side on half the cores each (never two when
    *threads* is 1).

    The line goes first and runs alone; while it waits, nobody else is admitted, so it waits only for what is already
    running. Otherwise look-ahead and guest jobs alternate, each first in, first out. A job with nobody to run beside
    gets all cores, except a look-ahead job while more boards are expected: others will join it. *guests_abreast*: admit
    two guests at once; only where there is no line to slow down.
    """

    def __init__(self, threads: int, *, guests_abreast: bool) -> None:
        self._lock = threading.Lock()
        self._abreast = 2 if threads > 1 else 1
        self._guests_abreast = guests_abreast
        self._guests_running = 0
        self._running = 0
        self._alone = False  # what runs has all cores
        self._more_expected = False
        self._ahead_ended = False
        self._line: deque[_Waiting] = deque()
        self._ahead: deque[_Waiting] = deque()
        self._guests: deque[_Waiting] = deque()
        self._last: deque[_Waiting] = self._guests  # of these two, the one that was admitted last

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        with self._lock:
            return len(self._line) + len(self._ahead) + len(self._guests)

    def expect_more(self, *, yes: bool) -> None:
        """Whether more boards are expected behind the one that is looked at ahead next."""
        with self._lock:
            self._more_expected = yes  # lets nobody in: it decides how many cores a job gets, and not when

    def end_ahead(self) -> None:
        """Nobody looks ahead any more: who waits for that, or comes for it, gets CancelledError. What runs, runs on."""
        with self._lock:
            self._ahead_ended = True
            for one in self._ahead:
                one.admitted.release()
            self._ahead.clear()

    def line(self) -> AbstractContextManager[bool]:
        """For the line's own thread. Yields True: it has all cores."""
        return self._turn(self._line)

    def ahead(self) -> AbstractContextManager[bool]:
        """For look-ahead jobs. Yields True for all cores, False for half. Raises CancelledError after ``end_ahead``."""
        return self._turn(self._ahead)

    def guest(self) -> AbstractContextManager[bool]:
        """For any other thread. Yields True for all cores, False for half."""
        return self._turn(self._guests)

    @contextmanager
    def _turn(self, queue: deque[_Waiting]) -> Iterator[bool]:
        mine = _Waiting()
        with self._lock:
            if queue is self._ahead and self._ahead_ended:
                raise CancelledError
            queue.append(mine)
            self._let_in()
        mine.admitted.acquire()  # until _begin or end_ahead releases it
        if not mine.begun:
            raise CancelledError
        try:
            yield mine.alone
        finally:
            with self._lock:
                self._running -= 1
                self._guests_running -= queue is self._guests
                self._let_in()

    def _let_in(self) -> None:
        """Admits whoever may begin now. Nobody is woken in vain."""
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
            others_will_join = self._last is self._ahead and self._more_expected
            alone = self._running == 0 and (self._abreast == 1 or (others == 1 and not others_will_join))
            self._begin(self._last, alone=alone)

    def _begin(self, queue: deque[_Waiting], *, alone: bool) -> None:
        one = queue.popleft()
        self._running += 1
        self._guests_running += queue is self._guests
        self._alone = one.alone = alone
        one.begun = True
        one.admitted.release()


class _Waiting:
    def __init__(self) -> None:
        self.admitted = threading.Lock()
        self.admitted.acquire()
        self.begun = False
        self.alone = False
