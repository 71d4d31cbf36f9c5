"""One network, two who want it: the line always goes first, and loses at most the inference that runs already."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from station.types import Defect, Detector, Image, ModelInfo


class Turns:
    """
    Who may use the network now. Guests wait while the line does, or wants to, and come in their own order.

    Whoever ends its turn hands it to one other: nobody is woken in vain.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._line: deque[threading.Lock] = deque()
        self._guests: deque[threading.Lock] = deque()

    @property
    def line_waits(self) -> bool:
        return bool(self._line)

    @contextmanager
    def line(self) -> Iterator[None]:
        """For one thread at a time."""
        self._take(self._line)
        try:
            yield
        finally:
            self._hand_over()

    @contextmanager
    def guest(self) -> Iterator[None]:
        """For any thread."""
        self._take(self._guests)
        try:
            yield
        finally:
            self._hand_over()

    def _take(self, queue: deque[threading.Lock]) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            queue.append(mine)
        mine.acquire()  # until it is released by who hands over

    def _hand_over(self) -> None:
        with self._lock:
            queue = self._line or self._guests
            if queue:
                queue.popleft().release()
            else:
                self._taken = False


class LineDetector:
    """*detector* as the line uses it: in its turn."""

    def __init__(self, detector: Detector, turns: Turns) -> None:
        self._detector = detector
        self._turns = turns

    @property
    def model(self) -> ModelInfo:
        return self._detector.model

    def detect(self, image: Image) -> list[Defect]:
        with self._turns.line():
            return self._detector.detect(image)


class GuestDetector:
    """*detector* as the inspection API uses it: when the line does not."""

    def __init__(self, detector: Detector, turns: Turns) -> None:
        self._detector = detector
        self._turns = turns

    @property
    def model(self) -> ModelInfo:
        return self._detector.model

    def detect(self, image: Image) -> list[Defect]:
        with self._turns.guest():
            return self._detector.detect(image)
