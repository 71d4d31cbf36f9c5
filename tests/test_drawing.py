"""Verdict and defects on a picture: seen on any board, of any size, and hiding none of it."""

from __future__ import annotations

import numpy as np
import pytest

from station.drawing import COUNTS, HIDDEN, drawn
from station.types import Box, Decision, Defect, Image, Judged, Suppressed, Verdict


def decision(*boxes: Box, hidden: Box | None = None) -> Decision:
    judged = tuple(Judged(Defect("mousebite", 0.91, box, "m"), counts=True) for box in boxes)
    suppressed = () if hidden is None else (Suppressed(Defect("spur", 0.5, hidden, "m"), "min_area_px"),)
    return Decision(Verdict.FAIL, "mousebite 0.91 >= 0.50", judged, suppressed)


def grey(height: int = 300, width: int = 640) -> Image:
    return np.full((height, width, 3), 128, np.uint8)


def edges(canvas: Image, box: Box, *, height: int, colour: tuple[int, int, int]) -> float:
    """How much of the left and of the upper side of *box*, up to 8 pixels outside, is a line of *colour*."""
    bar = canvas.shape[0] - height
    top, left = bar + int(box.y), int(box.x)
    around = canvas[top - 8 : top + int(box.height) + 9, left - 8 : left + int(box.width) + 9]
    is_line = np.all(np.abs(around.astype(int) - colour) < 40, axis=-1, keepdims=True)[..., 0]
    return float(min(is_line[:, :9].any(axis=1)[10:-10].mean(), is_line[:9].any(axis=0)[10:-10].mean()))


def test_the_bar_is_added_and_covers_nothing() -> None:
    image = np.random.default_rng(1).integers(0, 256, (300, 640, 3), np.uint8)
    canvas = drawn(image, Decision(Verdict.PASS, "no defect found"))
    assert canvas.shape[0] > 300
    assert np.array_equal(canvas[-300:], image)


@pytest.mark.parametrize("box", [Box(100, 100, 60, 40), Box(0, 0, 30, 20), Box(610, 280, 30, 20), Box(50, 50, 3, 3)])
def test_a_defect_is_not_hidden_by_its_own_box_and_label(box: Box) -> None:
    image = grey()
    canvas = drawn(image, decision(box))[-300:]
    inside = canvas[int(box.y) : int(box.y + box.height), int(box.x) : int(box.x + box.width)]
    assert (inside == 128).all()
    assert (image == 128).all(), "drawn on a copy"


@pytest.mark.parametrize("size", [(2500, 3000), (640, 640)])
def test_neighbours_are_not_hidden_by_each_others_labels(size: tuple[int, int]) -> None:
    """Four in a square, as close as defects come: each is seen, and so is its box."""
    boxes = [Box(x, y, 40, 30) for x in (200, 300) for y in (200, 245)]
    canvas = drawn(grey(*size), decision(*boxes))
    for box in boxes:
        inside = canvas[-size[0] :][int(box.y) : int(box.y) + 30, int(box.x) : int(box.x) + 40]
        assert (inside == 128).all()
        assert edges(canvas, box, height=size[0], colour=COUNTS) > 0.95


def test_boxes_are_seen_where_there_is_no_room_for_labels() -> None:
    boxes = [Box(20.0 + 30 * x, 20.0 + 30 * y, 14, 14) for x in range(20) for y in range(9)]
    canvas = drawn(grey(), decision(*boxes))
    assert min(edges(canvas, box, height=300, colour=COUNTS) for box in boxes) > 0.7


def test_labels_do_not_grow_with_the_board() -> None:
    """A label of a 3000 x 2500 board covers little more of it than one of a picture of 1000 pixels."""
    plates = []
    for width in (1000, 3000):
        canvas = drawn(grey(1000, width), decision(Box(400, 400, 40, 30)))[-1000:]
        plates.append(int((canvas == 0).all(axis=-1).sum()))
    assert plates[1] < plates[0] * 1.2


def test_what_is_suppressed_is_shown_in_its_own_colour() -> None:
    box = Box(300, 150, 60, 40)
    assert edges(drawn(grey(), decision(hidden=box)), box, height=300, colour=HIDDEN) > 0.95


def test_memory_is_used_again_where_it_fits() -> None:
    first = drawn(grey(), decision(Box(100, 100, 60, 40)))
    again = drawn(grey(), Decision(Verdict.PASS, "no defect found"), into=first)
    assert again is first
    assert (again[-300:] == 128).all()
    assert drawn(grey(200), Decision(Verdict.PASS, ""), into=first) is not first
