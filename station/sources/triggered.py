"""A picture for each trigger: taken after it, never before, or the reason why there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Protocol

from station.errors import CameraError
from station.sources.free import frame_of
from station.triggers import Asked
from station.types import Camera, Frame, Stop, Trigger

_IDLE_S = 0.25


class Queue(Protocol):
    """The triggers that wait (``triggers.Triggers``)."""

    def next(self, *, within_s: float) -> Asked | None: ...

    def recorded(self, trigger: Trigger, /) -> None: ...


class TriggeredSource:
    """
    A Source that answers each trigger with a picture of *camera* of its own; the trigger's id is the board's event id.

    A trigger that gets no picture in its *answer_s* is a Frame all the same, with the problem: every trigger becomes
    one board. It leaves the queue when the line asks for the next one: a line that fails in between finds it again.
    """

    def __init__(
        self, queue: Queue, camera: Camera, *, answer_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._queue = queue
        self._camera = camera
        self._answer_s = answer_s
        self._monotonic = monotonic
        self._last = 0  # the last picture that was taken for a board: it is no other's

    def frames(self, stop: Stop) -> Generator[Frame | None, None, None]:
        while not stop.is_set():
            asked = self._queue.next(within_s=_IDLE_S)
            if asked is None:
                yield None
                continue
            yield self._frame(asked)
            self._queue.recorded(asked.trigger)

    def _frame(self, asked: Asked) -> Frame:
        trigger = asked.trigger
        left_s = trigger.at_s + self._answer_s - self._monotonic()
        problem = asked.missed
        if problem is None and left_s <= 0:
            problem = f"late: no result within {self._answer_s * 1e3:g} ms ([trigger] answer_ms)"
        if problem is not None:
            return _without(trigger, problem)
        try:
            shot = self._camera.shot(since_s=trigger.at_s, after=self._last, within_s=left_s)
        except CameraError as error:
            return _without(trigger, f"no picture: {error}")
        self._last = shot.number
        return frame_of(shot, trigger)


def _without(trigger: Trigger, problem: str) -> Frame:
    return Frame(
        id=trigger.id,
        image=None,
        captured_at=trigger.at,
        source="camera",
        board_serial=trigger.board_serial,
        problem=problem,
        trigger=trigger,
    )
