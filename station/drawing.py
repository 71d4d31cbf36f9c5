"""Draws a verdict and what was found onto a picture, so that it shows on any board and hides no defect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from station.lettering import Colour, Size, width_px, write
from station.types import Decision, Defect, Image, Verdict, cut

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
BAR = {
    Verdict.PASS: (60, 130, 30),
    Verdict.FAIL: (40, 30, 190),
    Verdict.UNKNOWN: (0, 110, 190),
}  # BGR; white reads on all
COUNTS, BELOW, HIDDEN = (60, 60, 255), (0, 200, 255), (190, 190, 190)

# Defects do not grow with the board: on a big one, labels that did would cover their neighbours.
MOST_LABEL_PX = 36
CAPITAL = 0.47  # of what is given to a line of text
CELL_PX = 8  # what is taken is noted in squares of this size


@dataclass(frozen=True, slots=True)
class _Mark:
    """A defect on the canvas, by its corners in whole pixels."""

    left: int
    top: int
    right: int
    bottom: int
    text: str
    colour: Colour


def drawn(image: Image, decision: Decision, *, into: Image | None = None) -> Image:
    """
    *image* (height x width x 3, BGR) below a bar with the verdict, its defects marked: (bar + height) x width x 3.

    Written to *into* if that has just this shape, else to new memory; *image* stays as it is. Lines have a dark rim and
    labels a dark plate. They lie beside the defects, and where a label finds no free place, boxes are drawn over it.
    """
    bar = _bar_px(image.shape[1])
    shape = (bar + image.shape[0], image.shape[1], 3)
    canvas = into if into is not None and into.shape == shape else np.empty(shape, np.uint8)
    np.copyto(canvas[bar:], image)
    marks = list(_marks(decision, canvas, bar))
    label_px = min(bar, MOST_LABEL_PX)
    thin = max(1, label_px // 12)
    beside = 2 * thin + 1  # with its rim the line is three times as wide, and a pixel more
    taken = np.zeros((shape[0] // CELL_PX + 1, shape[1] // CELL_PX + 1), np.bool_)
    _cells(taken, 0, 0, shape[1], bar)[:] = True
    for mark in marks:
        _cells(taken, mark.left, mark.top, mark.right, mark.bottom)[:] = True
    for mark in marks:
        _label(canvas, mark, taken, bar=bar, label_px=label_px)
    for mark in reversed(marks):  # the worst last, on top
        corner, opposite = (mark.left - beside, mark.top - beside), (mark.right + beside, mark.bottom + beside)
        cv2.rectangle(canvas, corner, opposite, BLACK, thin * 3)
        cv2.rectangle(canvas, corner, opposite, mark.colour, thin)
    canvas[0] = BAR[decision.verdict]
    canvas[1:bar] = canvas[0]  # a tuple is spread pixel by pixel: 45 us of a bar, and 3
    _text(canvas, f"{decision.verdict.name}  {decision.reason}", (bar // 4, bar - bar // 3), bar, BAR[decision.verdict])
    return canvas


def _marks(decision: Decision, canvas: Image, bar: int) -> Iterator[_Mark]:
    """The worst first."""
    for judged in decision.defects:
        yield _mark(judged.defect, canvas, bar, COUNTS if judged.counts else BELOW)
    for hidden in decision.suppressed:
        yield _mark(hidden.defect, canvas, bar, HIDDEN)


def _mark(defect: Defect, canvas: Image, bar: int, colour: Colour) -> _Mark:
    most_x, most_y, box = canvas.shape[1] - 1, canvas.shape[0] - bar - 1, defect.box
    left, right = _px(box.x, most_x), _px(box.x + box.width, most_x)
    top, bottom = bar + _px(box.y, most_y), bar + _px(box.y + box.height, most_y)
    return _Mark(left, top, right, bottom, f"{defect.label} {cut(defect.confidence, 2):.2f}", colour)


def _label(canvas: Image, mark: _Mark, taken: NDArray[np.bool_], *, bar: int, label_px: int) -> None:
    """Above the box, below it, right or left of it, wherever nothing is yet; else above, or below where the bar is."""
    size, gap = _letters(label_px), label_px // 4
    width, height = width_px(mark.text, size), size.above_px + size.below_px
    inside = max(0, min(mark.left, canvas.shape[1] - width))
    places = [
        (inside, mark.top - gap - height),
        (inside, mark.bottom + gap),
        (mark.right + gap, mark.top),
        (mark.left - gap - width, mark.top),
    ]
    left, top = places[0] if mark.top - gap - height >= bar else places[1]
    for x, y in places:
        fits = x >= 0 and y >= bar and x + width <= canvas.shape[1] and y + height <= canvas.shape[0]
        if fits and not _cells(taken, x, y, x + width, y + height).any():
            left, top = x, y
            break
    top = min(top, canvas.shape[0] - height)
    _cells(taken, left, top, left + width, top + height)[:] = True
    write(canvas, mark.text, (left, top + size.above_px), size, mark.colour, on=BLACK)


def _cells(taken: NDArray[np.bool_], left: int, top: int, right: int, bottom: int) -> NDArray[np.bool_]:
    rows = slice(max(0, top) // CELL_PX, max(0, bottom) // CELL_PX + 1)
    return taken[rows, max(0, left) // CELL_PX : max(0, right) // CELL_PX + 1]


def _text(canvas: Image, text: str, at: tuple[int, int], bar: int, ground: Colour) -> None:
    """Writes *text* with its baseline from *at*, moved so that it lies in the picture."""
    size = _letters(bar)
    left = max(0, min(at[0], canvas.shape[1] - width_px(text, size)))
    write(canvas, text, (left, min(at[1], canvas.shape[0] - size.below_px)), size, WHITE, on=ground)


def _letters(line_px: int) -> Size:
    return Size(round(CAPITAL * line_px), max(1, line_px // 18))


def _bar_px(width: int) -> int:
    """The height of the verdict bar, by which its text is scaled."""
    return max(16, width // 27)


def _px(value: float, most: int) -> int:
    return int(min(max(0.0, value), most))  # in this order a NaN becomes 0
