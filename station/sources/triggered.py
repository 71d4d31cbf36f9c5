"""A picture for each trigger: taken after it, never before, or the reason why there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Protocol

from station.errors import CameraError
from station.sources.free import frame_of
from station.triggers import Asked
from station.types import Frame, Stop, Trigger

_IDLE_S = 0.25


class Queue(Protocol):
    """The triggers that wait (``triggers.Triggers``)."""

    def next(self, *, within_s: float) -> Asked | None: ...

    def recorded(self, trigger: Trigger, /) -> None: ...


class TriggeredSource:
    """
    A Source that answers each trigger with its own picture; the trigger's id is the board's event id.

    A trigger that gets no picture in its *answer_s* is a Frame all the same, with the problem: every trigger becomes
    one board. It leaves the queue when the line asks for the next one: a line that fails in between finds it again.
    """

    def __init__(self, queue: Queue, *, answer_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._queue = queue
        self._answer_s = answer_s
        self._monotonic = monotonic

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
        asked.written.wait(max(0.0, self._left_s(trigger)))
        if asked.picture is None:
            return _without(trigger, asked.missed or "no picture was taken")
        if self._left_s(trigger) <= 0:
            asked.picture.cancel()
            return _without(trigger, f"late: no result within {self._answer_s * 1e3:g} ms ([trigger] answer_ms)")
        try:
            return frame_of(asked.picture.shot(), trigger)
        except CameraError as error:
            return _without(trigger, f"no picture: {error}")

    def _left_s(self, trigger: Trigger) -> float:
        return trigger.at_s + self._answer_s - self._monotonic()


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
