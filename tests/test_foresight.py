"""Boards that wait are looked at ahead, two at a time; what is found so is what the line would have found."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest

from station.errors import DetectorError
from station.foresight import AHEAD, Foresight
from station.inspection import Bench, inspect
from station.line import Listeners, run_line
from station.testing import FakeEvidence, FakeLedger, FakeSource
from station.turns import Turns
from station.types import Defect, Frame, Image, ModelInfo, Verdict
from tests.benches import SHORT, bench, board_picture, frame
from tests.waiting import until


class Slow:
    """A detector that finds *found* as soon as it may; ``asked`` are the boards that it was shown, by their number."""

    model = ModelInfo("slow", "0" * 64)

    def __init__(self, found: list[Defect] | None = None, *, refuses: str | None = None) -> None:
        self.asked: list[int] = []
        self.may = threading.Event()
        self._found = found or []
        self._refuses = refuses

    def detect(self, image: Image) -> list[Defect]:
        self.asked.append(int(image[0, 0, 0]))
        assert self.may.wait(30)
        if self._refuses is not None:
            raise DetectorError(self._refuses)
        return self._found


class Station:
    """What stands around a Foresight: a recipe in force, and a network that is shared."""

    def __init__(self) -> None:
        self.whole, self.half = Slow([SHORT]), Slow([SHORT])
        self.bench = replace(bench(), detector=self.whole, half=self.half)
        self.turns = Turns(threads=2, guests_abreast=False)
        self.foresight = Foresight(choose=lambda _frame: self.bench, turns=self.turns)

    def free(self) -> None:
        self.whole.may.set()
        self.half.may.set()


@pytest.fixture
def station() -> Iterator[Station]:
    station = Station()
    yield station
    station.free()
    station.foresight.close()


def board(number: int) -> Frame:
    image = board_picture()
    image[0, 0, 0] = number
    return frame(number, image=image)


def judged(station: Station, given: Frame, by: Bench | None = None) -> Verdict:
    return inspect(given, by or station.bench, station.foresight.look).decision.verdict


def test_boards_that_wait_are_looked_at_two_at_a_time_and_each_once(station: Station) -> None:
    boards = [board(number) for number in range(1, AHEAD + 2)]
    line = threading.Thread(target=judged, args=(station, boards[0]))
    line.start()
    until(lambda: station.whole.asked == [1])
    for one in boards[1:]:
        station.foresight.begin(one)
    until(lambda: station.turns.waiting == AHEAD)
    assert station.half.asked == [], "the line has the network alone"
    station.whole.may.set()
    until(lambda: len(station.half.asked) == 2)
    assert station.turns.waiting == AHEAD - 2, "and no more than two at a time"
    station.half.may.set()
    line.join(30)
    assert [judged(station, one) for one in boards[1:]] == [Verdict.FAIL] * AHEAD
    assert sorted(station.whole.asked + station.half.asked) == [1, 2, 3, 4]


def test_a_board_with_none_behind_it_is_looked_at_on_all_cores(station: Station) -> None:
    station.free()
    station.foresight.begin(board(1))
    until(lambda: station.whole.asked == [1])
    assert station.half.asked == []


def test_boards_in_a_row_are_looked_at_on_half_of_the_cores_each_and_the_last_on_all(station: Station) -> None:
    boards = [board(number) for number in range(1, 4)]
    with station.turns.line():
        for one in boards:
            station.foresight.begin(one)
        until(lambda: station.turns.waiting == AHEAD)
    until(lambda: len(station.half.asked) == 2)
    station.half.may.set()
    until(lambda: sorted(station.half.asked) == [1, 2, 3])
    assert [judged(station, one) for one in boards] == [Verdict.FAIL] * AHEAD
    with station.turns.line():
        station.foresight.begin(board(4))
        until(lambda: station.turns.waiting == 1)
    until(lambda: station.whole.asked == [4])


def test_boards_that_the_line_passed_over_are_forgotten_and_slow_nobody_down(station: Station) -> None:
    station.free()
    boards = [board(number) for number in range(1, 4)]
    for one in boards:
        station.foresight.begin(one)
    assert judged(station, boards[1]) is Verdict.FAIL  # the line failed at the first
    assert [int(one.image[0, 0, 0]) for one in station.foresight._begun] == [3]
    assert not station.turns._more_expected


def test_a_picture_that_shows_no_board_is_seen_ahead_and_nobody_is_asked_of_it(station: Station) -> None:
    dark = frame(1, image=np.zeros((64, 64, 3), np.uint8))
    behind = board(2)
    for one in (dark, behind):
        station.foresight.begin(one)
    decision = inspect(dark, station.bench, station.foresight.look).decision
    assert (decision.verdict, decision.reason[:29]) == (Verdict.UNKNOWN, "there is no board to be seen:")
    assert [one.image is behind.image for one in station.foresight._begun] == [True]
    assert not station.turns._more_expected
    station.free()
    assert judged(station, behind) is Verdict.FAIL
    assert station.whole.asked + station.half.asked == [2]


def test_a_board_looked_at_by_another_recipe_is_judged_anew(station: Station) -> None:
    station.free()
    given = board(1)
    station.foresight.begin(given)
    until(lambda: station.whole.asked == [1])
    other = replace(station.bench, detector=Slow())
    assert isinstance(other.detector, Slow)
    other.detector.may.set()
    assert judged(station, given, other) is Verdict.PASS
    assert other.detector.asked == [1]


def test_the_time_that_the_detector_took_ahead_is_the_boards(station: Station) -> None:
    given = board(1)
    station.foresight.begin(given)
    until(lambda: station.whole.asked == [1])
    station.free()
    until(lambda: station.turns.waiting == 0)
    inspection = inspect(given, station.bench, station.foresight.look)
    assert inspection.detect_ms is not None
    assert inspection.total_ms >= inspection.detect_ms > 0


def test_a_board_that_could_not_be_judged_ahead_is_unknown_when_its_turn_comes(station: Station) -> None:
    station.bench = replace(station.bench, detector=(refusing := Slow(refuses="it is upside down")))
    refusing.may.set()
    given = board(1)
    station.foresight.begin(given)
    decision = inspect(given, station.bench, station.foresight.look).decision
    assert (decision.verdict, decision.reason) == (
        Verdict.UNKNOWN,
        "the detector could not judge it: it is upside down",
    )


def test_what_a_line_that_failed_left_behind_is_forgotten(station: Station) -> None:
    left = [board(number) for number in range(1, AHEAD + 2)]
    with station.turns.line():
        for one in left:
            station.foresight.begin(one)
        until(lambda: station.turns.waiting == AHEAD)
    until(lambda: len(station.half.asked) == 2)
    waiting = station.foresight._begun[-1].seen
    again = [board(number) for number in range(11, AHEAD + 12)]
    for one in again:
        station.foresight.begin(one)
    assert len(station.foresight._begun) == AHEAD + 1, "however often it fails, no more pictures stay in memory"
    assert waiting.cancelled(), "and it is not looked at in vain"
    station.free()
    assert [judged(station, one) for one in again] == [Verdict.FAIL] * (AHEAD + 1)


def test_a_file_that_is_no_picture_is_not_looked_at(station: Station) -> None:
    station.foresight.begin(frame(1, image=None, problem="the decoder refused it"))
    assert station.foresight._begun == []


def test_a_line_that_starts_anew_forgets_what_it_left_behind(station: Station) -> None:
    cores = cv2.getNumThreads()
    left = [board(number) for number in range(1, AHEAD + 2)]
    pictures = [weakref.ref(one.image) for one in left if one.image is not None]
    for one in left:
        station.foresight.begin(one)
    assert cv2.getNumThreads() == 1
    station.foresight.forget()
    assert cv2.getNumThreads() == cores
    assert not station.turns._more_expected
    station.free()
    del left, one
    until(lambda: not any(picture() is not None for picture in pictures), what="the end of its pictures")
    given = board(11)
    station.foresight.begin(given)
    assert judged(station, given) is Verdict.FAIL


def test_the_end_does_not_wait_for_what_runs_and_nothing_that_waits_is_begun(station: Station) -> None:
    """With boards of three seconds it took six, and the gate was safe only then; with a run that hung, never."""
    station.foresight.begin(board(1))
    until(lambda: station.whole.asked == [1])
    for number in range(2, AHEAD + 2):
        station.foresight.begin(board(number))
    until(lambda: station.turns.waiting == AHEAD - 1)
    begun = station.foresight._begun
    ending = threading.Thread(target=station.foresight.close)
    ending.start()
    ending.join(30)
    assert not ending.is_alive(), "it waits for what runs"
    until(lambda: sum(one.seen.done() for one in begun) == AHEAD, what="an end of those that wait")
    assert station.turns.waiting == 0
    station.free()
    station.foresight._workers.shutdown()
    station.foresight.begin(board(11))  # a source that is slow to stop may still come with one
    assert station.whole.asked + station.half.asked == [1]


@pytest.mark.parametrize("place", ["the network's queue", "the workers' queue"])
def test_a_line_that_waits_for_a_board_looked_at_ahead_is_let_go_at_the_end(station: Station, place: str) -> None:
    boards = [board(number) for number in range(1, AHEAD + 2)]
    wanted = boards[0] if place == "the network's queue" else boards[-1]
    with station.turns.guest():  # which hangs
        for one in boards:
            station.foresight.begin(one)
        until(lambda: station.turns.waiting == AHEAD)
        stop, ledger, ended = threading.Event(), FakeLedger(), threading.Event()

        def line() -> None:
            run_line(
                stop,
                source=FakeSource([wanted]),
                choose=lambda _frame: station.bench,
                look=station.foresight.look,
                gate=None,
                ledger=ledger,
                evidence=FakeEvidence(),
                may_take=lambda: True,
                beat=lambda _loop: None,
                listeners=Listeners(inspected=lambda _: None, worked=lambda: None, committed=lambda: None),
            )
            ended.set()

        thread = threading.Thread(target=line)
        thread.start()
        until(lambda: all(one.image is not wanted.image for one in station.foresight._begun), what="the line's look")
        stop.set()
        station.foresight.close()
        thread.join(30)
        assert ended.is_set(), "it ends as at any stop, and not by an error"
        assert ledger.commits == [], "the next start meets this board again"
