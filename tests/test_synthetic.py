"""Drawn defects are what their labels say: that is looked up on the board, and not believed."""

from __future__ import annotations

import cv2
import deeppcb
import numpy as np
import pytest
import synthetic

COPPER, GAP = 0, 255
ADDED, TAKEN = {"copper", "spur", "short"}, {"pin-hole", "mousebite", "open"}


def board() -> synthetic.Mask:
    """Four conductors with pads, as grey levels: copper is dark."""
    picture = np.full((320, 320), GAP, np.uint8)
    for number in range(4):
        left = 30 + 70 * number
        picture[20:300, left : left + 24] = COPPER
        picture[140:190, left - 12 : left + 36] = COPPER
    return picture


def conductors(picture: synthetic.Mask) -> int:
    """Crumbs at the edge of a stroke are none."""
    _, _, stats, _ = cv2.connectedComponentsWithStats((picture == COPPER).astype(np.uint8), connectivity=8)
    return int((stats[1:, cv2.CC_STAT_AREA] >= synthetic.PIECE_PX).sum())


def drawn(seed: int, *, defects: int = 1) -> tuple[synthetic.Mask, list[deeppcb.Truth]]:
    return synthetic.defective(board(), np.random.default_rng(seed), defects=defects)


def test_what_is_told_lies_in_its_box_and_nothing_else_has_changed() -> None:
    for seed in range(20):
        picture, truths = drawn(seed, defects=6)
        outside = picture != board()
        for truth in truths:
            rows, columns = slice(int(truth.y1), int(truth.y2) + 1), slice(int(truth.x1), int(truth.x2) + 1)
            changed = picture[rows, columns][outside[rows, columns]]
            assert changed.size >= 25
            assert set(changed.tolist()) == {COPPER if deeppcb.CLASSES[truth.class_id] in ADDED else GAP}
            outside[rows, columns] = False
        assert not outside.any()


@pytest.mark.parametrize("name", deeppcb.CLASSES)
def test_every_class_is_drawn_and_does_to_the_conductors_what_it_is_called_for(name: str) -> None:
    seen = 0
    for seed in range(120):
        picture, truths = drawn(seed)
        if [deeppcb.CLASSES[one.class_id] for one in truths] != [name]:
            continue
        seen += 1
        before, after = conductors(board()), conductors(picture)
        if name == "short":
            assert after < before
        elif name == "copper":
            assert after == before + 1
        elif name in {"spur", "pin-hole", "mousebite"}:
            assert after == before, "nothing is joined and nothing cut off"
    assert seen >= 5


def test_a_piece_that_is_cut_off_is_told_from_a_bite() -> None:
    solid = np.full((60, 60), 255, np.uint8)  # gap around a pad of copper
    solid[10:50, 10:50] = 0
    corner, bite = np.zeros_like(solid), np.zeros_like(solid)
    cv2.line(corner, (8, 30), (30, 8), 255, 3)
    cv2.line(bite, (8, 30), (25, 30), 255, 3)
    assert synthetic._cuts(corner, solid)
    assert not synthetic._cuts(bite, solid)


def test_what_is_drilled_is_round_all_of_a_size_and_joins_and_cuts_nothing() -> None:
    drilled = 0
    for seed in range(40):
        picture = synthetic.drilled(board(), np.random.default_rng(seed))
        holes = ((picture == GAP) & (board() == COPPER)).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(holes, connectivity=8)
        for _, _, width, height, area in stats[1:]:
            assert area == pytest.approx(np.pi / 4 * width * height, rel=0.3), "a circle, ragged as etching leaves it"
        if len(stats) > 1:
            drilled += 1
            assert np.ptp(stats[1:, 2]) <= 4
        assert conductors(picture) == conductors(board())
    assert 10 <= drilled <= 30, "half of the boards"


def test_no_pin_hole_and_no_copper_is_as_round_as_what_is_drilled() -> None:
    for seed in range(120):
        picture, truths = drawn(seed)
        if truths and deeppcb.CLASSES[truths[0].class_id] in {"pin-hole", "copper"}:
            (outline, *_), _ = cv2.findContours(
                (picture != board()).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            _, radius = cv2.minEnclosingCircle(outline)
            filled = cv2.countNonZero((picture != board()).astype(np.uint8)) / (np.pi * radius**2)
            assert filled < 0.85 or radius <= synthetic.ROUND_FROM_PX, "a speck has no shape"
