"""Big boards: overlapping tiles at the network's own scale, and one list of what was found in them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from station.types import Box, Defect, Image

# A picture up to this much larger than the network is scaled to fit, and one beyond is cut up. Measured on DeepPCB with
# the bundled model: of the defects 94.2 % are found at full scale, 93.6 % at 1/1.1 of it, 93.3 % at 1/1.2, 91.7 % at
# 1/1.25, 86.9 % at 1/1.5 and 69.9 % at half; and the smallest plan of tiles is two to four times the work.
WORTH_TILING = 1.1
# Of a tile's side: 128 of 640 pixels. Of 6,873 defects of DeepPCB (48 px/mm) 99.5 % are smaller, so that some tile sees
# the whole of them. It is nearly free: 3000 x 2500 pixels take 30 tiles with any overlap from 52 to 166.
USUAL_OVERLAP = 0.2
MIN_OVERLAP_PX = 32  # the coarsest stride; with less in common, two tiles cannot tell that they see one defect
CUT_PX = 3.0  # a box that ends this close to its tile's border was cut by it: 98 % of those cut end within 0.3
# Share of a cut box that another box must cover to count as the same defect. Below 0.5: two may look like one when cut.
COVERED = 0.4
CROSSED = 0.2  # the same, of the smaller of two boxes that continue into each other's tile: halves of a slanting defect
WITNESSED = 0.75  # share of what other tiles saw that a tile's boxes must cover for it to have seen the whole defect


@dataclass(frozen=True, slots=True)
class Window:
    """One tile: a part of the picture, in whole pixels of it; (x, y) is its top left corner."""

    x: int
    y: int
    width: int
    height: int

    def of(self, image: Image) -> Image:
        """Its part of *image*: a view, no copy."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]

    def placed(self, defect: Defect) -> Defect:
        """A defect in pixels of the tile as one in pixels of the picture."""
        box = defect.box
        return replace(defect, box=Box(box.x + self.x, box.y + self.y, box.width, box.height))


def is_big(height_px: int, width_px: int, *, tile_px: tuple[int, int]) -> bool:
    """
    Whether a picture is better cut into tiles of *tile_px* (height, width: the network's input) than scaled to fit.

    Right for networks that were trained at the scale of their input. One that was trained on whole boards, scaled down
    as they came, wants them so again: for it tiles are to be switched off.
    """
    return height_px > tile_px[0] * WORTH_TILING or width_px > tile_px[1] * WORTH_TILING


def plan(height_px: int, width_px: int, *, tile_px: tuple[int, int], overlap_px: int) -> tuple[Window, ...]:
    """
    The fewest tiles of *tile_px* (height, width) that cover the picture and overlap by at least *overlap_px*.

    They come row by row and are spread evenly, the last flush with the edge: what is to spare becomes more overlap.
    Where the picture is smaller than a tile in one direction, so are the tiles.
    Raises ValueError for an overlap that is less than 32 pixels or more than half a tile.
    """
    if not MIN_OVERLAP_PX <= overlap_px <= min(tile_px) // 2:
        raise ValueError(
            f"tiles of {tile_px[1]} x {tile_px[0]} pixels can overlap by {MIN_OVERLAP_PX} to {min(tile_px) // 2} "
            f"pixels, not by {overlap_px}"
        )
    tile_height, tile_width = min(tile_px[0], height_px), min(tile_px[1], width_px)
    lefts = _starts(width_px, tile_width, overlap_px)
    tops = _starts(height_px, tile_height, overlap_px)
    return tuple(Window(left, top, tile_width, tile_height) for top in tops for left in lefts)


def merge(
    found: Sequence[Sequence[Defect]], windows: Sequence[Window], *, iou: float, fails: Callable[[Defect], bool]
) -> list[Defect]:
    """
    What was *found* in each of the *windows*, in pixels of the picture, as one list, best first.

    Of one label, what is one defect is told once (``_merged``). A part of a defect may also look like something else: a
    box that a tile's border cut is left out where a tile that sees all of its place knows it whole, under another
    label. That one has to be a defect that alone *fails* the board, and still to do so in the end: so nothing that
    fails it is ever left out for something that does not.
    """
    known = _known_better(found, windows, fails=fails)
    if known:
        numbers = count()
        rest = _merged([[one for one in part if next(numbers) not in known] for part in found], windows, iou=iou)
        left_out = [one for number, one in enumerate(one for part in found for one in part) if number in known]
        over = _over(_corners(left_out), _corners(rest))
        if all(any(fails(rest[other]) for other in np.flatnonzero(row).tolist()) for row in over):
            return rest
    return _merged(found, windows, iou=iou)


def _merged(found: Sequence[Sequence[Defect]], windows: Sequence[Window], *, iou: float) -> list[Defect]:
    """
    What was *found* in each of the *windows*, in pixels of the picture, as one list, best first.

    Where two tiles overlap, they saw the same pixels. So two of their defects with one label are the same defect if
    their boxes agree within the overlap: with an intersection over union above *iou* or, where a tile's border cut one
    of them, if the other covers 0.4 of it. That holds for a defect on a seam, which one tile sees whole and the other
    in part, and for one larger than the overlap, which no tile sees whole. What one tile saw as two stays two. A merged
    defect has the highest confidence of its parts, and the box of the most confident one that shows it whole, or else
    a box around all of them. A tile has not seen the whole defect if another tile saw it continue past the first tile's
    border, or saw it clearly larger.
    """
    defects = [defect for part in found for defect in part]
    if len(windows) < 2 or len(defects) < 2:
        return sorted(defects, key=_by_confidence)
    seen = _Seen.of(found, windows)
    group_of = list(range(len(defects)))  # the group of each defect, named by one of its members
    members = {number: [number] for number in group_of}
    tiles = {number: {int(tile)} for number, tile in enumerate(seen.tile)}
    for first, second in _pairs(defects, seen, windows, iou=iou):
        kept, other = group_of[first], group_of[second]
        if tiles[kept] & tiles[other]:  # the same group, or two that one tile told apart
            continue
        for member in members[other]:
            group_of[member] = kept
        members[kept] += members.pop(other)
        tiles[kept] |= tiles.pop(other)
    borders = _borders(windows)
    return sorted((_united(group, defects, seen, borders) for group in members.values()), key=_by_confidence)


@dataclass(frozen=True, slots=True)
class _Seen:
    """All n defects as arrays: the tile of each, its corners (n x 4), and which of its sides the tile's border cut."""

    tile: NDArray[np.int64]
    corners: NDArray[np.float64]
    cut: NDArray[np.bool_]

    @staticmethod
    def of(found: Sequence[Sequence[Defect]], windows: Sequence[Window]) -> _Seen:
        tile = np.repeat(np.arange(len(found)), [len(part) for part in found])
        corners = _corners([defect for part in found for defect in part])
        borders = _borders(windows)
        picture = np.concatenate([borders[:, :2].min(axis=0), borders[:, 2:].max(axis=0)])
        inner = borders != picture  # beyond the picture's own edge there is nothing to be cut off
        inward = np.array([1, 1, -1, -1])
        return _Seen(tile, corners, (((corners - borders[tile]) * inward) <= CUT_PX) & inner[tile])


def _starts(length_px: int, tile_px: int, overlap_px: int) -> list[int]:
    room_px = length_px - tile_px
    steps = -(-room_px // max(1, tile_px - overlap_px)) if room_px > 0 else 0
    # Rounded down, two neighbours are still no further apart than the step, which is a whole number of pixels.
    return [room_px * number // steps for number in range(steps + 1)] if steps else [0]


def _borders(windows: Sequence[Window]) -> NDArray[np.float64]:
    """Left, top, right and bottom of each."""
    return np.array([(one.x, one.y, one.x + one.width, one.y + one.height) for one in windows], np.float64)


def _corners(defects: Sequence[Defect]) -> NDArray[np.float64]:
    boxes = [one.box for one in defects]
    corners = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in boxes]
    return np.array(corners, np.float64).reshape(-1, 4)


def _known_better(
    found: Sequence[Sequence[Defect]], windows: Sequence[Window], *, fails: Callable[[Defect], bool]
) -> set[int]:
    """
    Those (by number) that their tile's border cut, and that another tile knows whole, under another label.

    It sees all of their place, and something that *fails* over 0.4 of them, which its own border has not cut. Of 431
    defects of DeepPCB, strewn over boards of 3000 x 2500 pixels, 16 were told twice without this, and 3 with it.
    """
    defects = [defect for part in found for defect in part]
    if len(windows) < 2 or len(defects) < 2:
        return set()
    seen, borders = _Seen.of(found, windows), _borders(windows)
    cut = seen.cut.any(axis=1)
    parts = np.flatnonzero(cut).tolist()
    whole = np.array([one for one in np.flatnonzero(~cut).tolist() if parts and fails(defects[one])], np.int64)
    return {
        part
        for part in parts
        for other in whole[_over(seen.corners[[part]], seen.corners[whole])[0]].tolist()
        if seen.tile[other] != seen.tile[part]
        and defects[other].label != defects[part].label
        and _within(seen.corners[[part]], borders[seen.tile[other]]).all()
    }


def _over(parts: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of *others* cover 0.4 of which of *parts* (corners, p x 4 and n x 4): p x n."""
    shared = _common(parts[:, None], others[None])
    over: NDArray[np.bool_] = (
        _area(shared[..., :2], shared[..., 2:]) >= COVERED * _area(parts[:, :2], parts[:, 2:])[:, None]
    )
    return over


def _pairs(
    defects: Sequence[Defect], seen: _Seen, windows: Sequence[Window], *, iou: float
) -> Iterator[tuple[int, int]]:
    """Pairs of defects (by number) of different tiles that are the same one; those that agree best come first."""
    numbers = {label: number for number, label in enumerate({one.label for one in defects})}
    label = np.array([numbers[one.label] for one in defects])
    of_tile = {int(tile): np.flatnonzero(seen.tile == tile) for tile in np.unique(seen.tile)}
    borders = _borders(windows)[list(of_tile)]
    tiles = list(of_tile.values())
    common = _common(borders[:, None], borders[None])
    overlap = np.triu((common[..., 2:] > common[..., :2]).all(axis=-1), k=1)
    agreeing: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    for one, other in np.argwhere(overlap).tolist():
        both = common[one, other]
        first, second = _inside(tiles[one], seen.corners, both), _inside(tiles[other], seen.corners, both)
        if first.size and second.size:
            same, agreement = _agreement(first, second, seen, both=both, iou=iou)
            rows, columns = np.nonzero(same & (label[first][:, None] == label[second]))
            agreeing.append((first[rows], second[columns], agreement[rows, columns]))
    if not agreeing:
        return
    firsts, seconds, agreements = (np.concatenate(parts) for parts in zip(*agreeing, strict=True))
    order = np.argsort(-agreements, kind="stable")
    yield from zip(firsts[order].tolist(), seconds[order].tolist(), strict=True)


def _common(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """The corners of what two rectangles share."""
    return np.concatenate([np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])], axis=-1)


def _inside(which: NDArray[np.int64], corners: NDArray[np.float64], part: NDArray[np.float64]) -> NDArray[np.int64]:
    """Those of *which* that reach into *part*."""
    clipped = _common(corners[which], part)
    return which[(clipped[:, 2:] > clipped[:, :2]).all(axis=1)]


def _agreement(
    first: NDArray[np.int64], second: NDArray[np.int64], seen: _Seen, *, both: NDArray[np.float64], iou: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """For each of *first* with each of *second*: are they the same, and how well do they agree within *both* tiles?"""
    ones, others = _common(seen.corners[first], both)[:, None], _common(seen.corners[second], both)[None]
    shared = _area(np.maximum(ones[..., :2], others[..., :2]), np.minimum(ones[..., 2:], others[..., 2:]))
    area, other_area = _area(ones[..., :2], ones[..., 2:]), _area(others[..., :2], others[..., 2:])
    over_union = shared / (area + other_area - shared)
    cut, other_cut = seen.cut[first][:, None], seen.cut[second][None]
    covered = (cut.any(axis=-1) & (shared > COVERED * area)) | (
        other_cut.any(axis=-1) & (shared > COVERED * other_area)
    )
    # Cut on opposite sides: left and right, or top and bottom.
    crossing = (cut & np.roll(other_cut, 2, axis=-1)).any(axis=-1) & (shared > CROSSED * np.minimum(area, other_area))
    same = (over_union > iou) | covered | crossing
    return same, over_union


def _area(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    product: NDArray[np.float64] = np.maximum(high - low, 0.0).prod(axis=-1)
    return product


def _united(group: Sequence[int], defects: Sequence[Defect], seen: _Seen, borders: NDArray[np.float64]) -> Defect:
    """What the defects (by number) of one group make together."""
    if len(group) == 1:
        return defects[group[0]]
    best = min((defects[one] for one in group), key=_by_confidence)
    cut = [one for one in group if seen.cut[one].any()]
    witnesses = [
        defects[one]
        for one in group
        if one not in cut and (not cut or _saw_all(one, seen.corners[cut], defects, seen, borders))
    ]
    if witnesses:
        return replace(best, box=min(witnesses, key=_by_confidence).box)
    boxes = [defects[one].box for one in group]
    left, top = min(box.x for box in boxes), min(box.y for box in boxes)
    right, bottom = max(box.x + box.width for box in boxes), max(box.y + box.height for box in boxes)
    return replace(best, box=Box(left, top, right - left, bottom - top))


def _saw_all(
    witness: int,
    parts: NDArray[np.float64],
    defects: Sequence[Defect],
    seen: _Seen,
    borders: NDArray[np.float64],
) -> bool:
    """Whether *witness*, or its tile, which may have seen two defects here, saw all of *parts*, cut in other tiles."""
    wider = np.array([-CUT_PX, -CUT_PX, CUT_PX, CUT_PX])
    tile, label = seen.tile[witness], defects[witness].label
    told = [one for one in np.flatnonzero(seen.tile == tile).tolist() if defects[one].label == label]
    shared = _common(seen.corners[told][:, None], parts[None])
    covered = _area(shared[..., :2], shared[..., 2:]).sum(axis=0) >= WITNESSED * _area(parts[:, :2], parts[:, 2:])
    near = _within(parts, seen.corners[witness] + wider)
    return bool((_within(parts, borders[tile] + wider) & (covered | near)).all())


def _within(parts: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.all((parts[:, :2] >= box[:2]) & (parts[:, 2:] <= box[2:]), axis=1)
    return inside


def _by_confidence(defect: Defect) -> float:
    return -defect.confidence
