"""A camera that nobody triggers: each new picture is a board, or one every so often."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator

from station.errors import CameraError
from station.types import Camera, Frame, Shot, Stop, Trigger

_IDLE_S = 0.25


class FreeSource:
    """
    A Source of *camera*'s newest pictures, each once; with *interval_s* at most one in so many seconds.

    *on_skipped* hears how many pictures came and were not taken, because the line was busy with another one. While the
    camera is away there is no board: its own loop says so.
    """

    def __init__(
        self,
        camera: Camera,
        *,
        interval_s: float | None = None,
        on_skipped: Callable[[int], None] = lambda _pictures: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._camera = camera
        self._interval_s = interval_s
        self._on_skipped = on_skipped
        self._monotonic = monotonic

    def frames(self, stop: Stop) -> Generator[Frame | None, None, None]:
        due_s, last = self._monotonic(), None
        while not stop.is_set():
            wait_s = due_s - self._monotonic()
            if wait_s > 0:
                stop.wait(min(wait_s, _IDLE_S))
                if wait_s > _IDLE_S:
                    yield None
                continue
            try:
                shot = self._camera.shot(since_s=due_s, after=0 if last is None else last, within_s=_IDLE_S)
            except CameraError:
                stop.wait(0.05)  # it may have been told at once
                yield None
                continue
            if last is not None and self._interval_s is None and shot.number > last + 1:
                self._on_skipped(shot.number - last - 1)
            last = shot.number
            if self._interval_s is not None:
                due_s = max(due_s + self._interval_s, self._monotonic())
            yield frame_of(shot)


def frame_of(shot: Shot, trigger: Trigger | None = None) -> Frame:
    """The board of a picture: under the trigger's id, or a new one where nobody asked."""
    return Frame(
        id=str(uuid.uuid4()) if trigger is None else trigger.id,
        image=shot.image,
        captured_at=shot.taken_at,
        source="camera",
        board_serial=None if trigger is None else trigger.board_serial,
        trigger=trigger,
    )
