"""
The golden board: finds what differs from the defect-free template, without a network and without training.

Copper's edges wander by a pixel or two from board to board, and not all the same way, so a plain difference is full of
edges. Here small cells of the template are laid over the board each for itself, a difference counts only where no
template pixel next to it would explain it, and what is left is weighed by how thick it is: edges leave threads.

It looks at grey levels alone: what differs in colour only is not seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from station.detectors.colour import check_colour, grey
from station.detectors.reference import Reference, matched
from station.types import Box, Defect, Grey, Image, ModelInfo

NAME = "golden"
DARKER, BRIGHTER = "darker", "brighter"  # than the template: which of them copper is, a picture does not tell

# Found on every third pair of DeepPCB, by recall against false blobs; scripts/golden.py says what they give on all.
CELL_PX = 20  # a cell follows the board for itself; its neighbours have a say, so that a defect does not pull it along
COARSE_CELLS = 4  # cells that are first moved together, at half size
COARSE_REACH_PX = 3  # of the half-sized picture: 6 px
FINE_REACH_PX = 2
STILL = 0.1  # grey levels of mean difference that a cell must gain for each pixel by which it moves
STEP = 0.35  # of the template's contrast: a smaller difference is none
MIN_STEP = 24.0  # grey levels; cameras' noise stays below
THICK_PX = 2.15  # thickness, beyond the tolerated edge, that has the confidence 0.5
PART_PX = 16  # of a longer difference the thickest stretch counts: a thread beside it must not make a defect thinner
MIN_PIXELS = 4
PAD_PX = 9  # around what differs: the habit of DeepPCB's labels, and what a person needs to see it

_RING = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))  # a pixel and its four neighbours: the tolerated edge
_DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


class GoldenDetector:
    """
    Implements ``types.Detector`` by comparison with *reference*.

    Labels are ``darker`` and ``brighter``, than the template: it sees that something differs, where and how much, but
    not what it is. The confidence grows with the thickness of a difference, in the mean or where it is thickest: 0.5 at
    2.15 pixels beyond the tolerated edge, 0.75 at twice that; what is below *confidence* is not listed. Raises
    DetectorError for a board that does not fit the template.
    """

    labels = (DARKER, BRIGHTER)

    def __init__(self, reference: Reference, *, confidence: float) -> None:
        self.model = ModelInfo(NAME, reference.sha256)
        self._reference = reference
        self._confidence = confidence
        dark, bright = np.percentile(reference.template, (0.5, 99.5)).tolist()
        self._step = max(MIN_STEP, STEP * (bright - dark))

    @property
    def description(self) -> str:
        """One line for ``station check``."""
        return f"{NAME} board {self._reference.description}"

    def half(self) -> GoldenDetector:
        """Itself: it keeps nothing from one board to the next, and may look at two at a time."""
        return self

    def detect(self, image: Image) -> list[Defect]:
        """*image*: H x W x 3 uint8 BGR, as large as the template. Raises DetectorError when it cannot be judged."""
        check_colour(image)
        board = grey(image)
        template = self._reference.register_grey(board).template
        board = matched(board, template)
        template = follow(board, template)
        name, step = self.model.name, self._step
        found = [
            *_darker(board, template, step=step, label=DARKER, found_by=name),
            *_darker(~board, ~template, step=step, label=BRIGHTER, found_by=name),
        ]
        kept = [one for one in found if one.confidence >= self._confidence]
        return sorted(kept, key=lambda one: -one.confidence)


def follow(board: Grey, template: Grey) -> Grey:
    """
    The template with each small cell moved to where the board has it, by up to 8 pixels.

    First cells of 80 pixels, at half size, then of 20; each by the shift at which it and its neighbours differ least
    in the mean. *board* and *template* (H x W uint8) already lie within a few pixels of each other.
    """
    height, width = board.shape
    coarse_px = CELL_PX * COARSE_CELLS
    board = _widened(board, right=-width % coarse_px, bottom=-height % coarse_px)
    template = _widened(template, right=-width % coarse_px, bottom=-height % coarse_px)
    coarse = 2 * _cell_shifts(_half(board), _half(template), cell_px=coarse_px // 2, reach_px=COARSE_REACH_PX)
    shifts = np.repeat(np.repeat(coarse, COARSE_CELLS, axis=0), COARSE_CELLS, axis=1)
    moved = _composed(template, shifts)
    shifts = shifts + _cell_shifts(board, moved, cell_px=CELL_PX, reach_px=FINE_REACH_PX)
    return _composed(template, shifts)[:height, :width]


def _half(picture: Grey) -> Grey:
    size = (picture.shape[1] // 2, picture.shape[0] // 2)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _widened(picture: Grey, *, right: int = 0, bottom: int = 0, around: int = 0) -> Grey:
    """*picture* with its outermost pixels repeated."""
    edges = (around, around + bottom, around, around + right)
    return np.asarray(cv2.copyMakeBorder(picture, *edges, cv2.BORDER_REPLICATE), np.uint8)


def _cell_shifts(board: Grey, template: Grey, *, cell_px: int, reach_px: int) -> NDArray[np.int64]:
    """For each cell (rows x columns x 2): how much further right and down in the template the board's content is."""
    height, width = board.shape
    cells = (width // cell_px, height // cell_px)
    spread = _widened(template, around=reach_px)
    steps = range(-reach_px, reach_px + 1)
    shifts = sorted(((x, y) for y in steps for x in steps), key=lambda one: abs(one[0]) + abs(one[1]))
    costs = np.empty((len(shifts), cells[1], cells[0]), np.float32)
    difference = np.empty_like(board)
    for number, (x, y) in enumerate(shifts):
        there = spread[reach_px + y : reach_px + y + height, reach_px + x : reach_px + x + width]
        cv2.absdiff(board, there, difference)
        mean = cv2.resize(difference, cells, interpolation=cv2.INTER_AREA).astype(np.float32)
        costs[number] = cv2.blur(mean, (3, 3)) + STILL * (abs(x) + abs(y))
    best: NDArray[np.int64] = np.take(np.asarray(shifts, np.int64), costs.argmin(axis=0), axis=0)
    return best


def _composed(template: Grey, shifts: NDArray[np.int64]) -> Grey:
    """The template put together from its cells, each from where its shift (rows x columns x 2) points."""
    reach_px = int(np.abs(shifts).max())
    spread = _widened(template, around=reach_px)
    out = np.empty_like(template)
    for row, line in enumerate(shifts.tolist()):
        top = row * CELL_PX
        for column, (across, down) in enumerate(line):
            left = column * CELL_PX
            x, y = left + across + reach_px, top + down + reach_px
            out[top : top + CELL_PX, left : left + CELL_PX] = spread[y : y + CELL_PX, x : x + CELL_PX]
    return out


def _darker(board: Grey, template: Grey, *, step: float, label: str, found_by: str) -> Iterator[Defect]:
    """Where *board* is darker than *template* by *step*, and than all of the template's pixels next to it."""
    seeds = _above(np.asarray(cv2.erode(template, _RING), np.uint8), board, step=step)
    if not seeds.any():
        return
    # A seed is what no edge explains; its extent is all that differs plainly next to it, the tolerated edge included.
    extent = cv2.bitwise_and(cv2.dilate(seeds, _DISC), _above(template, board, step=step))
    joined = cv2.morphologyEx(cv2.bitwise_or(extent, seeds), cv2.MORPH_CLOSE, _RING)
    # Labelling every pixel (connectedComponentsWithStats) costs 2 ms, and nearly all of them are nothing.
    outlines, _ = cv2.findContours(joined, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    height, width = board.shape
    for outline in outlines:
        x, y, wide, high = cv2.boundingRect(outline)
        inside = np.zeros((high, wide), np.uint8)
        cv2.drawContours(inside, [outline], -1, 255, cv2.FILLED, offset=(-x, -y))
        differing = np.asarray(cv2.bitwise_and(inside, seeds[y : y + high, x : x + wide]), np.uint8)
        pixels = cv2.countNonZero(differing)
        if pixels < MIN_PIXELS:
            continue
        left, top = max(0, x - PAD_PX), max(0, y - PAD_PX)
        right, bottom = min(width, x + wide + PAD_PX), min(height, y + high + PAD_PX)
        thickness_px = max(pixels / max(wide, high), _densest(differing) / PART_PX)
        box = Box(float(left), float(top), float(right - left), float(bottom - top))
        yield Defect(label, 1 - 0.5 ** (thickness_px / THICK_PX), box, found_by)


def _densest(differing: Grey) -> float:
    """How many pixels of *differing* (0 or 255) a square of PART_PX holds at most; 0 where nothing is longer."""
    if max(differing.shape) <= PART_PX:
        return 0.0
    counts = cv2.boxFilter(differing, cv2.CV_32F, (PART_PX, PART_PX), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return float(counts.max()) / 255


def _above(one: Grey, other: Grey, *, step: float) -> Grey:
    """255 where *one* is more than *step* above *other*, else 0."""
    return np.asarray(cv2.threshold(cv2.subtract(one, other), step, 255, cv2.THRESH_BINARY)[1], np.uint8)
