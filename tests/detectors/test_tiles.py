"""Tiles of big boards: every pixel is seen, and what is found is found once, wherever the seams lie."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from station.decide import fails
from station.detectors import tiles
from station.detectors.tiles import MIN_OVERLAP_PX, Window, is_big, plan
from station.types import Box, Defect, Recipe, Region

TILE = (640, 640)
IOU = 0.45
# Two tiles side by side that share x from 512 to 640, and a picture that ends at 1152.
LEFT, RIGHT = Window(0, 0, 640, 640), Window(512, 0, 640, 640)
PAIR = (LEFT, RIGHT)
RECIPE = Recipe("r", 0.5)


def defect(left: float, top: float, right: float, bottom: float, *, label: str = "spur", score: float = 0.8) -> Defect:
    return Defect(label, score, Box(left, top, right - left, bottom - top), "m")


def corners(one: Defect) -> tuple[float, float, float, float]:
    return one.box.x, one.box.y, one.box.x + one.box.width, one.box.y + one.box.height


def merge(
    found: Sequence[Sequence[Defect]], windows: Sequence[Window], *, iou: float, recipe: Recipe = RECIPE
) -> list[Defect]:
    return tiles.merge(found, windows, iou=iou, fails=partial(fails, recipe=recipe))


def both_ways(left: list[Defect], right: list[Defect], *, recipe: Recipe = RECIPE) -> list[Defect]:
    """What the pair gives, which must not depend on which tile came first."""
    merged = merge([left, right], PAIR, iou=IOU, recipe=recipe)
    turned = merge([right, left], PAIR[::-1], iou=IOU, recipe=recipe)
    assert sorted(map(corners, merged)) == sorted(map(corners, turned))
    return merged


@pytest.mark.parametrize("size", [(2500, 3000), (641, 641), (1280, 640), (5000, 641), (640, 640), (1, 9999), (3, 2)])
@pytest.mark.parametrize("tile", [(640, 640), (320, 960)])
@pytest.mark.parametrize("overlap_px", [32, 77, 160])
def test_tiles_cover_the_picture_and_overlap_by_what_is_wanted(
    size: tuple[int, int], tile: tuple[int, int], overlap_px: int
) -> None:
    windows = plan(*size, tile_px=tile, overlap_px=overlap_px)
    for axis, length, side in ((0, size[1], tile[1]), (1, size[0], tile[0])):
        starts = sorted({(one.x, one.y)[axis] for one in windows})
        sides = {(one.width, one.height)[axis] for one in windows}
        assert sides == {min(side, length)}, "nothing is scaled, and nothing lies outside"
        assert starts[0] == 0
        assert starts[-1] + min(side, length) == length, "the last is flush with the edge"
        steps = np.diff(starts)
        assert (steps <= side - overlap_px).all()
        assert steps.size == 0 or steps.max() - steps.min() <= 1, "spread evenly"
        assert steps.size == 0 or (steps.size - 1) * (side - overlap_px) + side < length, "no tile too many"
    assert len({(one.x, one.y) for one in windows}) == len(windows)


def test_a_picture_of_the_networks_size_is_one_tile() -> None:
    assert plan(640, 640, tile_px=TILE, overlap_px=128) == (Window(0, 0, 640, 640),)


@pytest.mark.parametrize("overlap_px", [-1, 0, MIN_OVERLAP_PX - 1, 321, 640, 10_000])
def test_an_overlap_that_no_plan_can_have_is_refused_and_the_limits_are_named(overlap_px: int) -> None:
    with pytest.raises(ValueError, match=f"640 x 640 pixels can overlap by 32 to 320 pixels, not by {overlap_px}"):
        plan(1000, 1000, tile_px=TILE, overlap_px=overlap_px)


def test_a_picture_is_tiled_when_it_is_clearly_larger_than_the_network_in_either_direction() -> None:
    assert not is_big(640, 640, tile_px=TILE)
    assert not is_big(700, 700, tile_px=TILE)
    assert is_big(640, 1600, tile_px=TILE)
    assert is_big(1600, 640, tile_px=TILE)
    assert is_big(2500, 3000, tile_px=TILE)


def test_a_window_shows_its_part_without_a_copy_and_brings_defects_back() -> None:
    image = np.zeros((700, 900, 3), np.uint8)
    image[60, 250] = 200
    window = Window(200, 50, 640, 640)
    part = window.of(image)
    assert np.shares_memory(part, image)
    assert part.shape == (640, 640, 3)
    assert part[10, 50, 0] == 200
    assert window.placed(defect(50, 10, 70, 30)) == defect(250, 60, 270, 80)


def test_a_defect_that_both_tiles_see_whole_is_found_once_with_the_better_box() -> None:
    (one,) = both_ways([defect(550, 100, 590, 140, score=0.6)], [defect(551, 99, 592, 141, score=0.9)])
    assert one == defect(551, 99, 592, 141, score=0.9)


@pytest.mark.parametrize("score", [0.5, 0.95])
def test_a_defect_on_a_seam_is_found_once_as_the_tile_saw_it_that_saw_it_whole(score: float) -> None:
    (one,) = both_ways([defect(600, 100, 640, 150, score=score)], [defect(601, 100, 680, 150, score=0.7)])
    assert corners(one) == (601, 100, 680, 150)
    assert one.confidence == max(score, 0.7), "it counts as much as it did for any tile"


def test_a_defect_larger_than_the_overlap_is_united() -> None:
    (one,) = both_ways([defect(450, 100, 639, 160, score=0.6)], [defect(513, 101, 700, 158, score=0.7)])
    assert corners(one) == (450, 100, 700, 160)
    assert one.confidence == 0.7


def test_a_fragment_that_a_tile_takes_for_the_whole_does_not_shrink_what_its_neighbour_saw_going_on() -> None:
    """It ends 4 px from its tile's border, as if nothing had been cut off; alone it would be below many a min_area."""
    (one,) = both_ways([defect(300, 300, 640, 360, score=0.95)], [defect(516, 302, 616, 358, score=0.3)])
    assert corners(one) == (300, 300, 640, 360)
    assert one.confidence == 0.95


def test_who_saw_clearly_less_than_his_neighbour_is_no_witness() -> None:
    (one,) = both_ways([defect(560, 300, 640, 360, score=0.9)], [defect(585, 305, 645, 355, score=0.6)])
    assert corners(one) == (560, 300, 645, 360)


def test_a_slanting_defect_larger_than_the_overlap_is_united() -> None:
    (one,) = both_ways([defect(340, 100, 640, 400)], [defect(512, 272, 800, 560)])
    assert corners(one) == (340, 100, 800, 560)


def test_a_defect_that_spans_three_tiles_is_one() -> None:
    windows = plan(640, 1664, tile_px=TILE, overlap_px=128)
    assert len(windows) == 3
    parts = [[defect(300, 200, 640, 260)], [defect(512, 200, 1152, 261)], [defect(1024, 199, 1400, 260)]]
    (one,) = merge(parts, windows, iou=IOU)
    assert corners(one) == (300, 199, 1400, 261)


def test_a_defect_at_the_corner_of_four_tiles_is_found_once() -> None:
    windows = plan(1152, 1152, tile_px=TILE, overlap_px=128)
    parts = [
        [defect(600, 600, 640, 640, score=0.9)],
        [defect(600, 600, 660, 640)],
        [defect(600, 600, 640, 670)],
        [defect(600, 600, 660, 670, score=0.6)],
    ]
    (one,) = merge(parts, windows, iou=IOU)
    assert one == defect(600, 600, 660, 670, score=0.9)


def test_a_part_is_kept_when_the_neighbour_saw_nothing() -> None:
    assert len(both_ways([defect(600, 100, 640, 150)], [])) == 1
    assert len(both_ways([], [defect(512, 100, 530, 150)])) == 1


def test_neighbours_are_not_melted() -> None:
    """Two whole ones beside each other at the seam, each known to one tile or to both."""
    one, other = defect(560, 100, 600, 140), defect(604, 100, 650, 140)
    cut = defect(604, 100, 640, 140)
    assert len(both_ways([one, cut], [one, other])) == 2
    assert len(both_ways([one], [other])) == 2
    assert len(both_ways([one, cut], [other])) == 2
    assert len(both_ways([cut], [one])) == 2


def test_neighbours_whose_boxes_overlap_a_little_are_not_melted() -> None:
    assert len(both_ways([defect(590, 100, 640, 140)], [defect(630, 100, 680, 140)])) == 2
    assert len(both_ways([defect(450, 100, 640, 160)], [defect(512, 155, 700, 220)])) == 2, "both reach over the seam"


def test_a_part_goes_to_the_defect_that_it_fits_best() -> None:
    part, other, right = defect(600, 100, 640, 150, score=0.95), defect(590, 95, 636, 300), defect(600, 100, 680, 150)
    merged = {corners(one): one.confidence for one in both_ways([part], [other, right])}
    assert merged == {corners(right): 0.95, corners(other): other.confidence}


def test_what_one_tile_told_apart_stays_apart() -> None:
    """To the right tile, which sees little of them, two defects look like one."""
    merged = both_ways([defect(400, 100, 540, 140), defect(400, 150, 540, 190)], [defect(512, 100, 540, 190)])
    assert sorted(map(corners, merged)) == [(400, 100, 540, 140), (400, 150, 540, 190)]


def test_defects_of_two_labels_are_two_where_both_were_seen_whole() -> None:
    assert len(both_ways([defect(550, 100, 590, 140)], [defect(550, 100, 590, 140, label="short")])) == 2


OPEN, BITE = defect(600, 100, 640, 150, label="open"), defect(601, 100, 680, 150, label="mousebite")


def test_a_part_that_looks_like_something_else_is_told_as_the_tile_knows_it_that_saw_it_whole() -> None:
    assert both_ways([OPEN], [BITE]) == [BITE]
    weak = defect(600, 100, 680, 150, label="open", score=0.3)
    assert both_ways([OPEN], [BITE, weak]) == [BITE, weak], "which it does not make surer of what it is not"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(defect(601, 100, 680, 150, label="mousebite", score=0.49), id="does not count"),
        pytest.param(defect(630, 100, 680, 150, label="mousebite"), id="over too little of it"),
        pytest.param(defect(512, 100, 680, 150, label="mousebite"), id="cut itself"),
    ],
)
def test_a_part_stays_where_nobody_knows_better(other: Defect) -> None:
    merged = both_ways([OPEN], [other])
    assert len(merged) == 2
    assert OPEN in merged


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("r", 0.5, {"mousebite": 0.9}),
        Recipe("r", 0.5, min_area_px=4000),
        Recipe("r", 0.5, ignore=(Region("logo", Box(635, 90, 20, 80)),)),
    ],
    ids=["threshold", "area", "region"],
)
def test_a_part_stays_where_the_recipe_hides_what_is_known_better(recipe: Recipe) -> None:
    assert sorted(both_ways([OPEN], [BITE], recipe=recipe), key=corners) == [OPEN, BITE]


def test_a_part_stays_where_what_is_known_better_is_hidden_once_it_is_united() -> None:
    """Both tiles saw the bite, and what they saw of it together has its centre in the region."""
    region = Recipe("r", 0.5, ignore=(Region("logo", Box(610, 90, 20, 80)),))
    bite = defect(560, 100, 640, 150, label="mousebite", score=0.6)
    merged = both_ways([OPEN, bite], [BITE], recipe=region)
    assert sorted(map(corners, merged)) == [(560, 100, 680, 150), corners(OPEN)]


def test_a_part_stays_where_its_own_tile_has_told_it_apart_or_the_other_sees_less_of_its_place() -> None:
    assert len(both_ways([OPEN, defect(600, 100, 630, 150, label="mousebite")], [])) == 2
    long = defect(480, 100, 640, 150, label="open")
    assert len(both_ways([long], [defect(516, 100, 680, 150, label="mousebite")])) == 2


def test_a_defect_at_the_pictures_own_edge_is_whole() -> None:
    """So that another, larger one in the neighbour is not its better half."""
    inner = defect(560, 0, 600, 10)
    assert len(both_ways([inner], [defect(550, 0, 640, 60)])) == 2


def test_the_best_comes_first() -> None:
    merged = both_ways(
        [defect(10, 10, 30, 30, score=0.3), defect(50, 10, 70, 30, score=0.9)], [defect(900, 9, 950, 60)]
    )
    assert [one.confidence for one in merged] == [0.9, 0.8, 0.3]


@pytest.mark.parametrize("found", [[], [[defect(10, 10, 30, 30), defect(500, 10, 640, 30)]]])
def test_one_tile_or_none_is_left_as_it_was(found: list[list[Defect]]) -> None:
    assert merge(found, PAIR[: len(found)], iou=IOU) == [one for part in found for one in part]


# --- any boards


class Board:
    """
    Random defects on a random board, and what each tile sees of them.

    Within *jitter_px*; and of a part up to the share *vague* less on the sides where it was not cut.
    """

    def __init__(self, seed: int, *, sizes_px: tuple[int, int], jitter_px: int, gap_px: int, vague: float = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.jitter_px, self.vague = jitter_px, vague
        self.height, self.width = self.random.integers(300, 2600, 2).tolist()
        overlap_px = int(self.random.integers(64, 200))
        self.windows = plan(self.height, self.width, tile_px=TILE, overlap_px=overlap_px)
        self.truth: list[Defect] = []
        for _ in range(120):
            width, height = self.random.integers(*sizes_px, 2).tolist()
            width, height = min(width, self.width), min(height, self.height)
            left = int(self.random.integers(0, self.width - width + 1))
            top = int(self.random.integers(0, self.height - height + 1))
            new = defect(left, top, left + width, top + height, label=str(self.random.choice(["spur", "short"])))
            if all(apart(new, old) >= gap_px for old in self.truth if old.label == new.label):
                self.truth.append(new)

    def seen(self, *, blind: float) -> list[list[Defect]]:
        """What each tile reports: what it sees of each defect, inexactly; of what another sees whole, not all."""
        return [[part for one in self.truth if (part := self._part(one, window, blind))] for window in self.windows]

    def _part(self, one: Defect, window: Window, blind: float) -> Defect | None:
        view = (window.x, window.y, window.x + window.width, window.y + window.height)
        left, top, right, bottom = corners(one)
        part = (max(left, view[0]), max(top, view[1]), min(right, view[2]), min(bottom, view[3]))
        if part[2] - part[0] < 10 or part[3] - part[1] < 10:
            return None
        if part != corners(one) and blind and self._whole_somewhere(one) and self.random.random() < blind:
            return None
        if self.vague:
            less = (self.random.random(4) * self.vague * (np.array(part) == corners(one))).tolist()
            width, height = part[2] - part[0], part[3] - part[1]
            left, top, right, bottom = part
            if part != corners(one):
                part = (
                    left + less[0] * width,
                    top + less[1] * height,
                    right - less[2] * width,
                    bottom - less[3] * height,
                )
        moved = [at + int(self.random.integers(-self.jitter_px, self.jitter_px + 1)) for at in part]
        inside = [min(max(at, low), high) for at, low, high in zip(moved, view[:2] * 2, view[2:] * 2, strict=True)]
        return defect(*inside, label=one.label, score=float(self.random.uniform(0.3, 1)))

    def _whole_somewhere(self, one: Defect) -> bool:
        left, top, right, bottom = corners(one)
        return any(
            w.x <= left and w.y <= top and right <= w.x + w.width and bottom <= w.y + w.height for w in self.windows
        )


def apart(one: Defect, other: Defect) -> float:
    a, b = corners(one), corners(other)
    return max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])


def iou_of(one: Defect, other: Defect) -> float:
    a, b = corners(one), corners(other)
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / (one.box.area_px + other.box.area_px - shared)


def test_parts_that_the_network_saw_vaguely_are_still_known() -> None:
    """Their boxes agree too little by intersection over union; a part is known by lying in the whole."""
    for seed in range(40):
        board = Board(seed, sizes_px=(14, 60), jitter_px=0, gap_px=8, vague=0.35)
        merged = merge(board.seen(blind=0), board.windows, iou=IOU)
        assert sorted(map(corners, merged)) == sorted(map(corners, board.truth))


SIZES = {"usual": (14, 110), "larger than the overlap": (150, 500), "larger than a tile": (30, 1500)}


@pytest.mark.parametrize("blind", [0.0, 0.5])
@pytest.mark.parametrize("jitter_px", [0, 2])
@pytest.mark.parametrize("sizes_px", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("seed", range(12))
def test_every_defect_that_a_tile_saw_is_found_exactly_once(
    seed: int, sizes_px: tuple[int, int], jitter_px: int, blind: float
) -> None:
    board = Board(seed, sizes_px=sizes_px, jitter_px=jitter_px, gap_px=3 * jitter_px)
    found = board.seen(blind=blind)
    merged = merge(found, board.windows, iou=IOU)
    for one in board.truth:
        known = [other for other in merged if other.label == one.label and iou_of(one, other) > 0.5]
        assert len(known) == 1, f"{one} was found {len(known)} times on {board.width} x {board.height}"
    assert len(merged) == len(board.truth)


def test_nothing_is_lost_whatever_the_tiles_say() -> None:
    """Boxes at random, tile by tile, as no network would give them: each lies in one of its label that is left."""
    random = np.random.default_rng(5)
    windows = plan(1500, 1500, tile_px=TILE, overlap_px=128)
    found = []
    for window in windows:
        low = random.uniform(0, 600, (60, 2))
        high = np.minimum(low + random.uniform(1, 300, (60, 2)), 640)
        found.append(
            [window.placed(defect(*a, *b, score=float(random.random()))) for a, b in zip(low, high, strict=True)]
        )
    merged = merge(found, windows, iou=IOU)
    strongest = max(one.confidence for part in found for one in part)
    assert merged[0].confidence == strongest
    for part in found:
        assert len(merged) >= len(part), "what one tile told apart stays apart"
        for one in part:
            assert any(touch(one, other) and other.confidence >= one.confidence for other in merged)


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        Recipe("r", 0.8, {"open": 0.1}),
        Recipe("r", 0.5, min_area_px=1500.0),
        Recipe("r", 0.5, ignore=(Region("logo", Box(600, 300, 20, 100)),)),
    ],
)
def test_what_fails_the_board_is_left_out_only_for_something_there_that_fails_it_too(recipe: Recipe) -> None:
    random = np.random.default_rng(3)
    left_out = 0
    for _ in range(400):
        found: list[list[Defect]] = []
        for window in PAIR:
            low = random.uniform(0, 40, (3, 2)) + np.array((560 - window.x, 300))
            high = np.minimum(low + random.uniform(10, 90, (3, 2)), 640)
            labels, scores = random.choice(["open", "spur"], 3).tolist(), random.uniform(0, 1, 3).tolist()
            boxes = zip(low.tolist(), high.tolist(), labels, scores, strict=True)
            found.append([window.placed(defect(*a, *b, label=name, score=score)) for a, b, name, score in boxes])
        merged, plain = merge(found, PAIR, iou=IOU, recipe=recipe), tiles.merge(found, PAIR, iou=IOU, fails=never)
        failing = [one for one in merged if fails(one, recipe)]
        for one in plain:
            assert one in merged or not fails(one, recipe) or any(touch(one, other) for other in failing)
        left_out += len(merged) < len(plain)
    assert left_out > 10


def never(_: Defect) -> bool:
    return False


def touch(one: Defect, other: Defect) -> bool:
    return apart(one, other) < 0
