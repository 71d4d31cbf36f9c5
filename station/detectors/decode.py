"""Turns a YOLO network's output into detections. Pure; what the output looks like is decided once, at load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from station.detectors.network import Floats
from station.errors import DetectorError, ModelError

MAX_DETECTIONS = 300  # what ultralytics and end-to-end heads keep
STRIDES_PX = (4, 8, 16, 32, 64, 128)  # of YOLO's grids: two to six of them, the finest of 4 or of 8
BLOCK = 64  # candidates that are compared with all weaker ones at once: 32 is slower for few, 128 for many
TOLERANCE = 1e-3  # of a score beyond 0..1: rounding of float16 and int8 networks
QUERIES = 300  # rows of an RT-DETR, whatever its input
NOT_WHOLE = 0.05  # a number further than this from a whole one is no class
RELATIVE = 1.5  # boxes are not in pixels if none reaches further than this
FAR_OUT = 4.0  # a coordinate beyond this is in pixels, not relative


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
    output: Floats,
    layout: Layout,
    *,
    confidence: float,
    iou: float,
    input_size: tuple[int, int],
    counts: Sequence[float] | None = None,
    most_rows: int = MAX_DETECTIONS,
) -> list[Found]:
    """
    What *output* (of one picture, in *layout*) finds at or above *confidence*, best first, at most 300.

    A box that reaches it in two classes is found twice: which of them counts is the recipe's to say. Of boxes of one
    class that overlap by more than *iou* the best stays, except for end-to-end networks and RT-DETR, which have done
    that themselves. *input_size*: the network's, (height, width) in pixels. *counts*: by class, from which score on a
    detection can fail the board; None: from *confidence* on. *most_rows*: how many rows a network that keeps only its
    best ones can give.

    Beyond 300, detections that cannot fail the board are dropped first. Raises DetectorError if more than 300 can, if
    the network itself may have cut off some that can, and for values that are not scores or boxes: returning nothing
    would mean PASS.
    """
    if output.size == 0:
        return []
    counts = [confidence] if counts is None else counts
    match layout:
        case Layout.ROWS:
            scores_by_class = output[0, 4:]
            _check(scores_by_class, output[0, :4])
            best = scores_by_class.max(axis=0)
            _check_room(best, counts, most_rows)
            kept = _at_least(confidence, best)
            boxes = _corners(output[0, :4, kept])  # kept x 4: numpy puts the index array first
            return _suppressed(_labelled(boxes, scores_by_class[:, kept].T, confidence, counts), iou=iou)
        case Layout.COLUMNS:
            _check(output[0, :, 4:], output[0, :, :4])
            rows = output[0, _at_least(confidence, output[0, :, 4])]  # a score cannot be above its objectness
            scores_by_class = rows[:, 5:] * rows[:, 4:5]
            best = scores_by_class.max(axis=1, initial=0.0)
            kept = _at_least(confidence, best)
            return _suppressed(_labelled(_corners(rows[kept, :4]), scores_by_class[kept], confidence, counts), iou=iou)
        case Layout.FINAL:
            _check(output[0, :, 4], output[0, :, [0, 1, 2, 3, 5]])
            _check_room(output[0, :, 4], counts, most_rows)
            rows, classes = _rows_at_least(confidence, output[0])
            return _listed(_candidates(rows[:, :4], rows[:, 4], classes, counts))
        case Layout.DETR:
            scores_by_class = output[0, :, 4:]
            _check(scores_by_class, output[0, :, :4])
            best = scores_by_class.max(axis=1)
            _check_room(best, counts, most_rows)
            kept = _at_least(confidence, best)
            boxes = _corners(_in_pixels(output[0, kept, :4], input_size))
            return _listed(_labelled(boxes, scores_by_class[kept], confidence, counts))
        case Layout.DETR_FINAL:
            _check(output[0, :, 4], output[0, :, [0, 1, 2, 3, 5]])
            _check_room(output[0, :, 4], counts, most_rows)
            rows, classes = _rows_at_least(confidence, output[0])
            return _listed(_candidates(_corners(_in_pixels(rows[:, :4], input_size)), rows[:, 4], classes, counts))


@dataclass(frozen=True, slots=True)
class _Candidates:
    """
    n candidates: corners (n x 4), scores, classes, and which can fail the board.

    Sorted with those first, then by falling score; so each class by itself is sorted by falling score.
    """

    corners: Floats
    scores: Floats
    classes: NDArray[np.int64]
    counting: NDArray[np.bool_]


def _candidates(corners: Floats, scores: Floats, classes: NDArray[np.int64], counts: Sequence[float]) -> _Candidates:
    """Raises DetectorError where one that counts has no area, or where the boxes cannot be in pixels."""
    if corners.size and float(np.abs(corners).max()) <= RELATIVE:
        raise DetectorError("the network's boxes are not in pixels: is it an RT-DETR whose metadata is lost?")
    limits = np.asarray(counts, np.float64)
    counting = scores >= limits[np.clip(classes, 0, len(limits) - 1)]
    x1, y1, x2, y2 = corners.T
    if (counting & ((x2 <= x1) | (y2 <= y1))).any():
        raise DetectorError(
            "the network found something whose box has no width or no height: is it exported in a layout that the "
            "station does not know?"
        )
    order = np.lexsort((-scores, ~counting))
    return _Candidates(corners[order], scores[order], classes[order], counting[order])


def _labelled(corners: Floats, scores_by_class: Floats, confidence: float, counts: Sequence[float]) -> _Candidates:
    """
    A candidate for every class that a box reaches *confidence* in; *corners*: n x 4, *scores_by_class*: n x C.

    The best class alone would hide the second, which may be the one whose threshold in the recipe is the lower.
    """
    places, classes = np.nonzero((scores_by_class >= confidence) & (scores_by_class > 0))
    return _candidates(corners[places], scores_by_class[places, classes], classes, counts)


def _grid_rows(input_size: tuple[int, int]) -> frozenset[int]:
    """How many rows a YOLOv5 has for an input: three anchors in every cell of grids that follow each other."""
    cells = [(input_size[0] // stride) * (input_size[1] // stride) for stride in STRIDES_PX]
    return frozenset(3 * sum(cells[first:end]) for first in (0, 1) for end in range(first + 2, len(cells) + 1))


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


def _check_room(best: Floats, counts: Sequence[float], most_rows: int) -> None:
    """
    *best*: the score of each row. A network that keeps only its best ones may have cut off some that count if
    all that it gave might.

    It knows no thresholds: three hundred vias, none of which counts, crowd out a short that does.
    """
    if len(best) >= most_rows and _at_least(min(counts), best).size == len(best):
        raise DetectorError(
            f"the network gives {len(best)} detections at most, and so many are there: the picture cannot be judged, "
            "since it may show more"
        )


def _suppressed(candidates: _Candidates, *, iou: float) -> list[Found]:
    """
    Greedy suppression, class by class.

    It works out the overlaps of one block of the best at a time, and ends when enough are kept: 0.03 ms for 20
    candidates, at most 11 ms for 5,000. cv2.dnn.NMSBoxesBatched takes 0.02 and 12 to 65 ms, and drops a score that
    equals its limit.
    """
    classes = candidates.classes
    x1, y1, x2, y2 = candidates.corners.T.copy()
    areas = (x2 - x1) * (y2 - y1)
    kept: list[int] = []
    left = np.arange(len(classes))
    while left.size and len(kept) <= MAX_DETECTIONS:  # one more, which tells what was cut off
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
    return _listed(candidates, kept)


def _rows_at_least(confidence: float, rows: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Those of n x 6, with a score and a class at the end, that are found; and their classes."""
    numbers = np.rint(rows[:, 5])
    if (np.abs(rows[:, 5] - numbers) > NOT_WHOLE).any():
        raise DetectorError("the network's sixth column is no class number: is it an RT-DETR whose metadata is lost?")
    found = _at_least(confidence, rows[:, 4])
    return rows[found], numbers[found].astype(np.int64)


def _in_pixels(relative: Floats, input_size: tuple[int, int]) -> Floats:
    if relative.size and float(np.abs(relative).max()) > FAR_OUT:
        raise DetectorError("the network's boxes are in pixels, not relative to its input as RT-DETR's are")
    height_px, width_px = input_size
    return relative * np.array([width_px, height_px, width_px, height_px], np.float32)


def _corners(centred: Floats) -> Floats:
    return np.concatenate([centred[:, :2] - centred[:, 2:] / 2, centred[:, :2] + centred[:, 2:] / 2], axis=1)


def _listed(candidates: _Candidates, kept: Sequence[int] | None = None) -> list[Found]:
    """Those *kept* (None: all), in the order of the candidates, as a list, best first. Raises DetectorError."""
    chosen = np.arange(len(candidates.scores)) if kept is None else np.asarray(kept, np.int64)
    if len(chosen) > MAX_DETECTIONS and candidates.counting[chosen[MAX_DETECTIONS]]:
        raise DetectorError(f"more than {MAX_DETECTIONS} detections that count: the picture cannot be judged")
    chosen = chosen[:MAX_DETECTIONS]
    chosen = chosen[np.argsort(-candidates.scores[chosen], kind="stable")]
    together = zip(
        candidates.classes[chosen].tolist(),
        candidates.scores[chosen].tolist(),
        candidates.corners[chosen].tolist(),
        strict=True,
    )
    return [Found(class_id, min(score, 1.0), *box) for class_id, score, box in together]
