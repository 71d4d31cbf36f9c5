"""Average precision and F-score of a detector, from matched boxes. Pure; tested against cases worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """Detections of one class, best first: which are right, with what scores, and how many boxes are labelled."""

    right: NDArray[np.bool_]
    scores: NDArray[np.float64]
    labelled: int


@dataclass(frozen=True, slots=True)
class FScore:
    """An F-score (harmonic mean of precision and recall) and the threshold at which it is reached."""

    value: float
    threshold: float
    precision: float
    recall: float


def by_paper(overlap: float) -> bool:
    """DeepPCB's rule: an IoU "larger than 0.33" (README of github.com/tangsanli5201/DeepPCB)."""
    return overlap > 0.33


def by_coco50(overlap: float) -> bool:
    """COCO's rule for AP50: an IoU of at least 0.5."""
    return overlap >= 0.5


def iou(one: Marked, other: Marked) -> float:
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = (one.x2 - one.x1) * (one.y2 - one.y1) + (other.x2 - other.x1) * (other.y2 - other.y1)
    return both / (areas - both)


def match(
    found: Sequence[Marked], labelled: Sequence[Marked], *, class_id: int, right_by: Callable[[float], bool]
) -> Hits:
    """
    Best score first, each detection takes the unmatched labelled box of its image and class that it overlaps most.

    It is right when *right_by* says so of that overlap (IoU).
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
        if best is not None and right_by(iou(one, best)):
            right[number] = True
            candidates.remove(best)
    return Hits(right, np.asarray([one.score for one in mine], np.float64), total)


def average_precision(hits: Hits) -> float:
    """
    The mean over the labelled boxes of the precision at which each was found, 0 for those that were not.

    So DeepPCB's paper has it, whose script is ICDAR 2015's: nothing is interpolated. No number without a labelled box.
    """
    if hits.labelled == 0:
        return float("nan")
    precision = np.cumsum(hits.right) / np.arange(1, len(hits.right) + 1)
    return float(precision[hits.right].sum() / hits.labelled)


def interpolated_precision(hits: Hits) -> float:
    """COCO's AP: the mean of precision at 101 points of recall, where it is the best at that recall or a higher one."""
    if hits.labelled == 0:
        return float("nan")
    true = np.cumsum(hits.right)
    precision = true / np.arange(1, len(true) + 1)
    best_from_here = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    # In whole boxes: 0.07 * 100 is a little more than 7, and would be out of the reach of a recall of 7 / 100.
    needed = -(-np.arange(101) * hits.labelled // 100)
    return float(best_from_here[np.searchsorted(true, needed)].mean())


def best_f_score(all_hits: Sequence[Hits]) -> FScore:
    """At the one threshold for all classes that makes it largest."""
    right = np.concatenate([one.right for one in all_hits])
    scores = np.concatenate([one.scores for one in all_hits])
    labelled = sum(one.labelled for one in all_hits)
    if not right.any() or labelled == 0:
        return FScore(0.0, 0.0, 0.0, 0.0)
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    true = np.cumsum(right[order])
    precision = true / np.arange(1, len(true) + 1)
    recall = true / labelled
    f_scores = 2 * true / (np.arange(1, len(true) + 1) + labelled)  # = 2PR / (P + R)
    f_scores[:-1][scores[:-1] == scores[1:]] = 0.0  # no threshold parts detections of one score: the last one counts
    best = int(np.argmax(f_scores))
    return FScore(float(f_scores[best]), float(scores[best]), float(precision[best]), float(recall[best]))


def f_score_at(all_hits: Sequence[Hits], threshold: float) -> FScore:
    """Precision, recall and F-score of what scores at least *threshold*; 0 where there is nothing to divide by."""
    kept = sum(int((one.scores >= threshold).sum()) for one in all_hits)
    true = sum(int(one.right[one.scores >= threshold].sum()) for one in all_hits)
    labelled = sum(one.labelled for one in all_hits)
    return FScore(2 * true / max(kept + labelled, 1), threshold, true / max(kept, 1), true / max(labelled, 1))
