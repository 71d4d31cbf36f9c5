"""Turns a YOLO network's output into boxes. Pure; what the output looks like is decided once, at load."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_DETECTIONS = 300

Floats = NDArray[np.float32]


class Layout(Enum):
    """What the numbers of an output mean; N candidates, C classes."""

    ROWS = "YOLOv8/11: 1 x (4 + C) x N: centre, size, class scores"
    COLUMNS = "YOLOv5: 1 x N x (5 + C): centre, size, objectness, class scores"
    FINAL = "end-to-end: 1 x N x 6: corners, score, class"


def layout_of(shape: Sequence[int | str | None], classes: int) -> Layout | None:
    """The layout that fits an output of *shape* for so many classes; None: none does."""
    if len(shape) != 3:
        return None
    middle, last = shape[1], shape[2]
    # An end-to-end head keeps a few hundred rows; a grid of a whole image has thousands, and 6 columns there are one
    # class.
    if last == 6 and (classes != 1 or (isinstance(middle, int) and middle <= 1000)):
        return Layout.FINAL
    if middle == 4 + classes:
        return Layout.ROWS
    if last == 5 + classes:
        return Layout.COLUMNS
    return None


def decode(
    output: Floats, layout: Layout, *, confidence: float, iou: float
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """
    Boxes (n x 4: x1 y1 x2 y2 in network pixels), scores (n) and classes (n), best first, at most 300.

    Of overlapping boxes of one class the best stays, except for end-to-end networks, which have done that themselves.
    """
    match layout:
        case Layout.ROWS:
            scores_by_class = output[0, 4:]
            best = scores_by_class.max(axis=0)
            found = np.flatnonzero(best >= confidence)
            classes = scores_by_class[:, found].argmax(axis=0)
            return _suppressed(output[0, :4, found], best[found], classes, confidence=confidence, iou=iou)
        case Layout.COLUMNS:
            rows = output[0][output[0, :, 4] >= confidence]  # a score cannot be above its objectness
            scores_by_class = rows[:, 5:] * rows[:, 4:5]
            best = scores_by_class.max(axis=1, initial=0.0)
            found = np.flatnonzero(best >= confidence)
            classes = scores_by_class[found].argmax(axis=1)
            return _suppressed(rows[found, :4], best[found], classes, confidence=confidence, iou=iou)
        case Layout.FINAL:
            rows = output[0][output[0, :, 4] >= confidence]
            rows = rows[np.argsort(-rows[:, 4], kind="stable")][:MAX_DETECTIONS]
            return rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64)


def _suppressed(
    centred: Floats, scores: Floats, classes: NDArray[np.int64], *, confidence: float, iou: float
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    corners = np.empty((len(scores), 4), np.float32)
    corners[:, :2] = centred[:, :2] - centred[:, 2:4] / 2
    corners[:, 2:] = centred[:, :2] + centred[:, 2:4] / 2
    if len(scores) == 0:
        return corners, scores, classes
    boxes = np.column_stack([corners[:, :2], centred[:, 2:4]]).astype(np.float64)
    kept = np.asarray(
        cv2.dnn.NMSBoxesBatched(boxes.tolist(), scores.tolist(), classes.tolist(), confidence, iou),
        np.int64,
    ).reshape(-1)
    kept = kept[np.argsort(-scores[kept], kind="stable")][:MAX_DETECTIONS]
    return corners[kept], scores[kept], classes[kept]
