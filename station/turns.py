"""One network, two who want it: the line always goes first, and loses at most the inference that runs already."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from station.types import Defect, Detector, Image, ModelInfo


class Turns:
    """Who may use the network now. Guests wait while the line does, or wants to."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = False
        self._line_waits = False

    @contextmanager
    def line(self) -> Iterator[None]:
        """For one thread at a time."""
        with self._changed:
            self._line_waits = True
            self._changed.wait_for(lambda: not self._taken)
            self._line_waits, self._taken = False, True
        yield from self._turn()

    @contextmanager
    def guest(self) -> Iterator[None]:
        """For any thread."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._taken or self._line_waits))
            self._taken = True
        yield from self._turn()

    def _turn(self) -> Iterator[None]:
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()


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
