"""Boxes, and how much two of them share."""

from __future__ import annotations

import pytest

from station.types import Box


@pytest.mark.parametrize(
    ("other", "shared_px", "iou"),
    [
        (Box(0, 0, 10, 10), 100, 1.0),
        (Box(5, 0, 10, 10), 50, 1 / 3),
        (Box(2, 2, 5, 4), 20, 0.2),  # within it
        (Box(10, 0, 10, 10), 0, 0.0),  # beside it
        (Box(20, 20, 10, 10), 0, 0.0),  # off in both directions
        (Box(5, 5, 0, 0), 0, 0.0),
    ],
)
def test_two_boxes_share_an_area_and_a_part_of_what_both_cover(other: Box, shared_px: float, iou: float) -> None:
    box = Box(0, 0, 10, 10)
    assert (box.shared_px(other), other.shared_px(box)) == (shared_px, shared_px)
    assert box.iou(other) == other.iou(box) == pytest.approx(iou)
