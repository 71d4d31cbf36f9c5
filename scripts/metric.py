"""Average precision and F-score of a detector, from matched boxes. Pure; tested against cases worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Marked:
    """One box: image it belongs to, class, corners in pixels; *score* is 1 for a labelled box."""

    image: int
    class_id: int
    x1: float
    y1: float
    x2: float
    y2: float
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class Hits:
    """Detections of one class, best first: which are right, their scores, and how many labelled boxes there are."""

    right: NDArray[np.bool_]
    scores: NDArray[np.float64]
    labelled: int


@dataclass(frozen=True, slots=True)
class FScore:
    """The best F-score over all thresholds, and precision and recall there."""

    value: float
    threshold: float
    precision: float
    recall: float


def iou(one: Marked, other: Marked) -> float:
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = (one.x2 - one.x1) * (one.y2 - one.y1) + (other.x2 - other.x1) * (other.y2 - other.y1)
    return both / (areas - both)


def match(found: Sequence[Marked], labelled: Sequence[Marked], *, class_id: int, over: float) -> Hits:
    """
    Best score first, each detection takes the unmatched labelled box of its image and class that it overlaps most.

    It is right when that overlap (IoU) is above *over*: DeepPCB's paper says 0.33, COCO's AP50 says 0.5.
    """
    mine = sorted((one for one in found if one.class_id == class_id), key=lambda one: -one.score)
    free: dict[int, list[Marked]] = {}
    for truth in labelled:
        if truth.class_id == class_id:
            free.setdefault(truth.image, []).append(truth)
    total = sum(map(len, free.values()))
    right = np.zeros(len(mine), np.bool_)
    for number, one in enumerate(mine):
        candidates = free.get(one.image, [])
        best = max(candidates, key=lambda truth: iou(one, truth), default=None)
        if best is not None and iou(one, best) > over:
            right[number] = True
            candidates.remove(best)
    return Hits(right, np.asarray([one.score for one in mine], np.float64), total)


def average_precision(hits: Hits) -> float:
    """Area under precision over recall at 101 points of recall, precision made non-increasing (COCO's way)."""
    if hits.labelled == 0:
        return float("nan")
    if len(hits.right) == 0:
        return 0.0
    true = np.cumsum(hits.right)
    recall = true / hits.labelled
    precision = true / np.arange(1, len(true) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.mean([envelope[place] if place < len(envelope) else 0.0 for place in places]))


def best_f_score(all_hits: Sequence[Hits]) -> FScore:
    """At the one threshold for all classes that makes it largest."""
    right = np.concatenate([one.right for one in all_hits])
    scores = np.concatenate([one.scores for one in all_hits])
    labelled = sum(one.labelled for one in all_hits)
    if len(scores) == 0 or labelled == 0:
        return FScore(0.0, 0.0, 0.0, 0.0)
    order = np.argsort(-scores, kind="stable")
    true = np.cumsum(right[order])
    precision = true / np.arange(1, len(true) + 1)
    recall = true / labelled
    f_scores = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f_scores))
    return FScore(float(f_scores[best]), float(scores[order][best]), float(precision[best]), float(recall[best]))
