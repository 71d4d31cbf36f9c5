"""A picture for each trigger: taken after it, or the reason why there is none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone

import numpy as np

from station.sources.triggered import TriggeredSource
from station.testing import FakeOrder
from station.triggers import Triggers
from station.types import Frame, Shot, Trigger

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
PICTURE = np.full((48, 64, 3), 7, np.uint8)


class Journal:
    """*hangs*: the disk takes nothing."""

    hangs = False

    def arrived(self, trigger: Trigger) -> threading.Event:
        written = threading.Event()
        if not self.hangs:
            written.set()
        return written

    def recorded(self, trigger_id: str) -> None: ...


class Line:
    """A source of triggered pictures, and the clock that it goes by; *orders* is what the camera was asked for."""

    def __init__(self, *, limit: int = 4, trouble: str | None = None) -> None:
        self.now_s = 100.0
        self.orders: list[FakeOrder] = []
        self.journal = Journal()
        self.trouble = trouble
        self.queue = Triggers(
            kind="serial",
            limit=limit,
            journal=self.journal,
            order=self._order,
            answer_s=0.5,
            expect=lambda *_: None,
            monotonic=lambda: self.now_s,
            now=lambda: NOW,
        )
        self.source = TriggeredSource(self.queue, answer_s=0.5, monotonic=lambda: self.now_s)

    def _order(self, at_s: float) -> FakeOrder:
        shot = Shot(PICTURE, len(self.orders) + 1, at_s, at_s + 0.03, NOW)
        self.orders.append(FakeOrder(shot) if self.trouble is None else FakeOrder(trouble=self.trouble))
        return self.orders[-1]

    @contextmanager
    def frames(self) -> Iterator[Iterator[Frame]]:
        stop = threading.Event()
        with closing(self.source.frames(stop)) as frames:
            yield (frame for frame in frames if frame is not None)


def test_a_board_is_its_own_trigger_with_its_own_picture() -> None:
    line = Line()
    trigger = line.queue.arrived(17, "SN1", 99.9)
    with line.frames() as frames:
        frame = next(frames)
    assert trigger is not None
    assert frame.image is PICTURE
    assert (frame.id, frame.board_serial, frame.trigger) == (trigger.id, "SN1", trigger)
    assert (frame.captured_at, frame.problem) == (NOW, None)


def test_a_camera_in_trouble_makes_a_board_that_cannot_be_judged() -> None:
    line = Line(trouble="the camera shows nothing new for 2 s")
    line.queue.arrived(1)
    with line.frames() as frames:
        frame = next(frames)
    assert (frame.image, frame.problem) == (None, "no picture: the camera shows nothing new for 2 s")


def test_a_trigger_whose_time_is_over_is_not_judged() -> None:
    line = Line()
    line.queue.arrived(1)
    line.now_s += 0.6
    with line.frames() as frames:
        frame = next(frames)
    assert frame.image is None
    assert "late" in (frame.problem or "")
    assert line.orders[0].cancelled


def test_a_trigger_that_the_disk_does_not_take_in_time_is_not_judged() -> None:
    line = Line()
    line.journal.hangs = True
    line.queue.arrived(1, at_s=99.4)
    with line.frames() as frames:
        frame = next(frames)
    assert "late" in (frame.problem or "")


def test_too_many_triggers_become_boards_in_their_order() -> None:
    line = Line(limit=1)
    for number in range(4):
        line.queue.arrived(number)
    with line.frames() as frames:
        found = [next(frames) for _ in range(4)]
    assert [frame.trigger and frame.trigger.number for frame in found] == [0, 1, 2, 3]
    assert [frame.problem is None for frame in found] == [True, True, False, False]


def test_a_line_that_failed_before_it_recorded_meets_the_trigger_again() -> None:
    line = Line()
    trigger = line.queue.arrived(1)
    with line.frames() as frames:
        first = next(frames)
    with line.frames() as frames:
        again = next(frames)
        line.queue.arrived(2)
        second = next(frames)
    assert trigger is not None
    assert first.id == again.id == trigger.id
    assert second.trigger is not None
    assert second.trigger.number == 2


def test_without_triggers_it_says_that_it_lives_and_takes_no_picture() -> None:
    line = Line()
    with closing(line.source.frames(threading.Event())) as frames:
        assert [next(frames), next(frames)] == [None, None]
    assert line.orders == []
