"""How good a detector is: its boxes matched with labelled ones, average precision and F-score. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PAPER_IOU = 0.33  # DeepPCB's, to be exceeded
COCO_IOUS = tuple((50 + 5 * step) / 100 for step in range(10))  # 0.50, 0.55 ... 0.95, to be reached

RightBy = Callable[[float], bool]
"""Whether so much overlap (IoU) with a labelled box of its class makes a detection right."""


@dataclass(frozen=True, slots=True)
class Marked:
    """One box: number of the image it belongs to, class, corners in pixels; *score* is 1 for a labelled box."""

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
class Matched:
    """Who met whom, of one class: *found* best first, the labelled box of each (None: a false call), and the rest."""

    found: tuple[Marked, ...]
    partners: tuple[Marked | None, ...]
    missed: tuple[Marked, ...]

    def hits(self) -> Hits:
        right = np.asarray([one is not None for one in self.partners], np.bool_)
        scores = np.asarray([one.score for one in self.found], np.float64)
        return Hits(right, scores, int(right.sum()) + len(self.missed))


@dataclass(frozen=True, slots=True)
class FScore:
    """An F-score (harmonic mean of precision and recall) and the threshold at which it is reached."""

    value: float
    threshold: float
    precision: float
    recall: float


def by_paper(overlap: float) -> bool:
    """DeepPCB's rule: an IoU "larger than 0.33" (README of github.com/tangsanli5201/DeepPCB)."""
    return overlap > PAPER_IOU


def by_coco50(overlap: float) -> bool:
    """COCO's rule for AP50: an IoU of at least 0.5."""
    return overlap >= COCO_IOUS[0]


def at_least(limit: float) -> RightBy:
    """COCO's rule at another *limit* of IoU."""
    return lambda overlap: overlap >= limit


def iou(one: Marked, other: Marked) -> float:
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = (one.x2 - one.x1) * (one.y2 - one.y1) + (other.x2 - other.x1) * (other.y2 - other.y1)
    return both / (areas - both)


def pair_up(found: Sequence[Marked], labelled: Sequence[Marked], *, class_id: int, right_by: RightBy) -> Matched:
    """
    Best score first, each detection takes the unmatched labelled box of its image and class that it overlaps most.

    It is right when *right_by* says so of that overlap (IoU).
    """
    mine = sorted((one for one in found if one.class_id == class_id), key=lambda one: -one.score)
    free: dict[int, list[Marked]] = {}
    for truth in labelled:
        if truth.class_id == class_id:
            free.setdefault(truth.image, []).append(truth)
    partners: list[Marked | None] = []
    for one in mine:
        candidates = free.get(one.image, [])
        best = max(candidates, key=lambda truth: iou(one, truth), default=None)
        if best is not None and right_by(iou(one, best)):
            candidates.remove(best)
        else:
            best = None
        partners.append(best)
    return Matched(tuple(mine), tuple(partners), tuple(truth for left in free.values() for truth in left))


def match(found: Sequence[Marked], labelled: Sequence[Marked], *, class_id: int, right_by: RightBy) -> Hits:
    """What ``pair_up`` makes of one class, as scores and right or wrong."""
    return pair_up(found, labelled, class_id=class_id, right_by=right_by).hits()


def average_precision(hits: Hits) -> float:
    """
    The mean over the labelled boxes of the precision at which each was found, 0 for those that were not.

    So DeepPCB has it, whose script is "borrowed from" ICDAR 2015's (its README): nothing is interpolated. That script
    gives a detection to the first labelled box it overlaps enough, in the order of the file; here it is the one that it
    overlaps most. No number without a labelled box.
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


def coco_precision(found: Sequence[Marked], labelled: Sequence[Marked], *, class_id: int) -> float:
    """COCO's AP50-95 of one class: the mean of its AP at the ten limits 0.50, 0.55 ... 0.95 of IoU."""
    each = (match(found, labelled, class_id=class_id, right_by=at_least(limit)) for limit in COCO_IOUS)
    return float(np.mean([interpolated_precision(one) for one in each]))


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
