"""Turns a YOLO network's output into detections. Pure; what the output looks like is decided once, at load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from station.detectors.network import Floats
from station.errors import DetectorError, ModelError

MAX_DETECTIONS = 300  # the weakest of more are dropped: what ultralytics and end-to-end heads keep
STRIDES_PX = (8, 16, 32, 64)  # of YOLO's grids; small nets have the first three
BLOCK = 64  # candidates that are compared with all weaker ones at once: 32 is slower for few, 128 for many
TOLERANCE = 1e-3  # of a score beyond 0..1: rounding of float16 and int8 networks
QUERIES = 300  # rows of an RT-DETR, whatever its input
NOT_WHOLE = 0.05  # so far from a whole number no class is: what stands there is something else
RELATIVE = 1.5  # all boxes that end this near to the corner are no boxes in pixels
FAR_OUT = 4.0  # a relative coordinate beyond it is none: what stands there are pixels


class Layout(Enum):
    """What the numbers of an output mean; N candidates, C classes."""

    ROWS = "YOLOv8/9/11/12: 1 x (4 + C) x N: centre, size, class scores"
    COLUMNS = "YOLOv5: 1 x N x (5 + C): centre, size, objectness, class scores"
    FINAL = "YOLOv10/26 and exports with NMS: 1 x N x 6: corners, score, class"
    DETR = "RT-DETR: 1 x 300 x (4 + C): centre and size relative to the input, class scores"
    DETR_FINAL = "RT-DETR of ultralytics 8.4: 1 x 300 x 6: centre and size relative to the input, score, class"


@dataclass(frozen=True, slots=True)
class Found:
    """One detection: index of its class, score 0..1, and corners in pixels of the network's input."""

    class_id: int
    score: float
    x1: float
    y1: float
    x2: float
    y2: float


def layout_of(
    shape: Sequence[int], classes: int, *, input_size: tuple[int, int], detr: bool = False, whole: bool = False
) -> Layout:
    """
    The layout of an output of *shape* for so many classes; *input_size* is the network's, (height, width) in pixels.

    *detr*: the file says that it is an RT-DETR; *whole*: the numbers in its last column are whole, which tells its two
    layouts apart where there are two classes. Raises ModelError where none fits: no output may be read in a way that
    was only guessed.
    """
    if len(shape) == 3 and shape[0] == 1:
        _, middle, last = shape
        # Six columns are also those of a one-class YOLOv5, whose rows are its grids: their number tells.
        grids = _grid_rows(input_size) if classes == 1 else frozenset[int]()
        if detr:
            if last == 6 and (classes != 2 or whole):
                return Layout.DETR_FINAL
            if last == 4 + classes:
                return Layout.DETR
        elif last == 6 and middle not in grids:
            return Layout.FINAL
        elif middle == 4 + classes and last != 5 + classes:
            return Layout.ROWS
        elif last == 5 + classes and middle != 4 + classes:
            return Layout.COLUMNS
        elif last == 4 + classes and middle == QUERIES:
            return Layout.DETR
    raise ModelError(
        f"its output is {' x '.join(map(str, shape))}, but with {classes} class names a detection model gives "
        f"1 x {4 + classes} x N (YOLOv8/11), 1 x N x {5 + classes} (YOLOv5), 1 x N x 6 (end-to-end) or "
        f"1 x {QUERIES} x {4 + classes} (RT-DETR)"
    )


def decode(
    output: Floats, layout: Layout, *, confidence: float, iou: float, input_size: tuple[int, int]
) -> list[Found]:
    """
    What *output* (of one picture, in *layout*) finds at or above *confidence*, best first, at most 300.

    A box that reaches it in two classes is found twice: which of them counts is the recipe's to say. Of boxes of one
    class that overlap by more than *iou* the best stays, except for end-to-end networks and RT-DETR, which have done
    that themselves. *input_size*: the network's, (height, width) in pixels. Raises DetectorError for numbers that are
    no scores or no boxes: to find nothing is a pass.
    """
    if output.size == 0:
        return []
    match layout:
        case Layout.ROWS:
            scores_by_class = output[0, 4:]
            _check(scores_by_class, output[0, :4])
            best = scores_by_class.max(axis=0)
            kept = _at_least(confidence, best)
            boxes = output[0, :4, kept]  # kept x 4: numpy puts the index array first
            return _suppressed(*_labelled(boxes, scores_by_class[:, kept].T, confidence), iou=iou)
        case Layout.COLUMNS:
            _check(output[0, :, 4:], output[0, :, :4])
            rows = output[0, _at_least(confidence, output[0, :, 4])]  # a score cannot be above its objectness
            scores_by_class = rows[:, 5:] * rows[:, 4:5]
            best = scores_by_class.max(axis=1, initial=0.0)
            kept = _at_least(confidence, best)
            return _suppressed(*_labelled(rows[kept, :4], scores_by_class[kept], confidence), iou=iou)
        case Layout.FINAL:
            _check(output[0, :, 4], output[0, :, [0, 1, 2, 3, 5]])
            rows = _best_rows(output[0], confidence)
            if len(rows) and float(np.abs(rows[:, :4]).max()) <= RELATIVE:
                raise DetectorError("the network's boxes are not in pixels: is it an RT-DETR whose metadata is lost?")
            return _listed(rows[:, :4], rows[:, 4], np.rint(rows[:, 5]).astype(np.int64))
        case Layout.DETR:
            scores_by_class = output[0, :, 4:]
            _check(scores_by_class, output[0, :, :4])
            best = scores_by_class.max(axis=1)
            kept = _at_least(confidence, best)
            boxes, scores, classes = _labelled(output[0, kept, :4], scores_by_class[kept], confidence)
            order = np.argsort(-scores, kind="stable")[:MAX_DETECTIONS]
            return _listed(_corners(_in_pixels(boxes[order], input_size)), scores[order], classes[order])
        case Layout.DETR_FINAL:
            _check(output[0, :, 4], output[0, :, [0, 1, 2, 3, 5]])
            rows = _best_rows(output[0], confidence)
            corners = _corners(_in_pixels(rows[:, :4], input_size))
            return _listed(corners, rows[:, 4], np.rint(rows[:, 5]).astype(np.int64))


def _labelled(boxes: Floats, scores_by_class: Floats, confidence: float) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """
    A candidate for every class that a box reaches *confidence* in; *boxes*: n x 4, *scores_by_class*: n x C.

    The best class alone would hide the second, which may be the one whose threshold in the recipe is the lower.
    """
    places, classes = np.nonzero((scores_by_class >= confidence) & (scores_by_class > 0))
    return boxes[places], scores_by_class[places, classes], classes


def _grid_rows(input_size: tuple[int, int]) -> frozenset[int]:
    """How many rows a YOLOv5 has for an input: three anchors in every cell, of three grids or of four."""
    cells = [(input_size[0] // stride) * (input_size[1] // stride) for stride in STRIDES_PX]
    return frozenset({3 * sum(cells[:3]), 3 * sum(cells)})


def _check(scores: Floats, others: Floats) -> None:
    low, high = float(scores.min()), float(scores.max())
    # Logits fail here too. A NaN is in no range, and min() passes it on.
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise DetectorError(
            f"the network's scores are from {low:g} to {high:g}, not from 0 to 1 (NaN: no number at all)"
        )
    if not np.isfinite(others).all():
        raise DetectorError("the network answered with boxes that are no numbers (NaN or infinity)")


def _at_least(confidence: float, scores: Floats) -> NDArray[np.int64]:
    """A score of zero is no detection even where the limit is zero: end-to-end outputs are filled up with such rows."""
    return np.flatnonzero((scores >= confidence) & (scores > 0))


def _suppressed(centred: Floats, scores: Floats, classes: NDArray[np.int64], *, iou: float) -> list[Found]:
    """
    Greedy suppression, class by class. *centred*: n x 4, centre and size.

    The overlaps of a block of the best are worked out at once, and it ends with the last detection that is kept: 0.03
    ms for 20 candidates, at most 11 ms for 5,000. cv2.dnn.NMSBoxesBatched takes 0.02 and 12 to 65 ms, and drops a
    score that equals its limit.
    """
    order = np.argsort(-scores, kind="stable")
    scores, classes, centred = scores[order], classes[order], centred[order]
    corners = _corners(centred)
    x1, y1, x2, y2 = corners.T.copy()
    areas = (x2 - x1) * (y2 - y1)
    kept: list[int] = []
    left = np.arange(len(scores))
    while left.size and len(kept) < MAX_DETECTIONS:
        block = left[:BLOCK]
        these = block[:, None]
        width = np.minimum(x2[these], x2[left]) - np.maximum(x1[these], x1[left])
        height = np.minimum(y2[these], y2[left]) - np.maximum(y1[these], y1[left])
        both = np.maximum(width, 0) * np.maximum(height, 0)
        hides = (both > iou * (areas[these] + areas[left] - both)) & (classes[these] == classes[left])
        hidden = np.zeros(len(left), np.bool_)
        for number, candidate in enumerate(block.tolist()):
            if not hidden[number]:
                kept.append(candidate)
                hidden |= hides[number]
        left = left[len(block) :][~hidden[len(block) :]]
    kept = kept[:MAX_DETECTIONS]
    return _listed(corners[kept], scores[kept], classes[kept])


def _best_rows(rows: Floats, confidence: float) -> Floats:
    """Those of n x 6, with a score and a class at the end, that count, best first."""
    if (np.abs(rows[:, 5] - np.rint(rows[:, 5])) > NOT_WHOLE).any():
        raise DetectorError("the network's sixth column is no class number: is it an RT-DETR whose metadata is lost?")
    rows = rows[_at_least(confidence, rows[:, 4])]
    return rows[np.argsort(-rows[:, 4], kind="stable")[:MAX_DETECTIONS]]


def _in_pixels(relative: Floats, input_size: tuple[int, int]) -> Floats:
    if relative.size and float(np.abs(relative).max()) > FAR_OUT:
        raise DetectorError("the network's boxes are in pixels, not relative to its input as RT-DETR's are")
    height_px, width_px = input_size
    return relative * np.array([width_px, height_px, width_px, height_px], np.float32)


def _corners(centred: Floats) -> Floats:
    return np.concatenate([centred[:, :2] - centred[:, 2:] / 2, centred[:, :2] + centred[:, 2:] / 2], axis=1)


def _listed(corners: Floats, scores: Floats, classes: NDArray[np.int64]) -> list[Found]:
    together = zip(classes.tolist(), scores.tolist(), corners.tolist(), strict=True)
    return [Found(class_id, min(score, 1.0), *box) for class_id, score, box in together]
