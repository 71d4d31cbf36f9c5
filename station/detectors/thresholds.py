"""
Thresholds by label, from what a missed defect costs against a false call. Pure.

On labelled boards, a threshold t costs ``miss_cost * misses(t) + false_calls(t)``: the labelled defects that no
detection at or above t found, and the detections at or above t that are no labelled defect. Boards without a defect
belong among them. The boards stand for the line: where it sees a tenth of their defects a board, a miss is a tenth as
frequent, and *miss_cost* should be a tenth as well. ``station.labelled.hits_by_label`` gets the hits from a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from station.detectors.metric import Hits

FEW = 10  # labelled defects: below that one odd board decides, and a label takes the threshold of all labels together
DIGITS = 2  # of a threshold, where the stretch that it lies in is wide enough: a person will read it and change it


@dataclass(frozen=True, slots=True)
class Point:
    """
    One flat stretch of the trade-off: every threshold above *above* and up to *up_to* has these counts.

    *cost* is in false calls: ``miss_cost * misses + false_calls``.
    """

    above: float
    up_to: float
    misses: int
    false_calls: int
    cost: float

    @property
    def threshold(self) -> float:
        """The middle, as short a number as lies within: as far from the last hit as from the next false call."""
        middle = (self.above + self.up_to) / 2
        for digits in range(DIGITS, 17):
            short = round(middle, digits)
            if self.above < short <= self.up_to:
                return short
        return self.up_to  # no number lies between them


@dataclass(frozen=True, slots=True)
class Choice:
    """A label's threshold and what it does on these boards; *pooled*: too few examples, all labels decided."""

    threshold: float
    labelled: int
    misses: int
    false_calls: int
    cost: float
    pooled: bool


def thresholds_from_cost(by_label: Mapping[str, Hits], *, miss_cost: float, floor: float) -> dict[str, Choice]:
    """
    The threshold of least cost for each label. *miss_cost*: how many false calls one miss is worth.

    *floor*: the confidence that the detector ran with (below it nothing is known). Of stretches of one cost the lowest
    is taken, with the fewest misses: a miss is what nobody sees. Within it the middle: the next boards score a little
    higher and a little lower. A label with fewer than ``FEW`` labelled defects, or none of them found, takes the
    threshold of least cost for all labels together. Raises ValueError where nothing is labelled, and for a *miss_cost*
    or *floor* that makes no sense.
    """
    _check(miss_cost, floor)
    together = _together(list(by_label.values()))
    if together.labelled == 0:
        raise ValueError("no labelled defect of any label: thresholds need boards with labelled defects")
    for_all = cheapest(trade_off(together, miss_cost=miss_cost, floor=floor)).threshold
    chosen: dict[str, Choice] = {}
    for label, hits in by_label.items():
        pooled = hits.labelled < FEW or not hits.right.any()
        own = for_all if pooled else cheapest(trade_off(hits, miss_cost=miss_cost, floor=floor)).threshold
        misses, false_calls = counts_at(hits, own)
        cost = miss_cost * misses + false_calls
        chosen[label] = Choice(own, hits.labelled, misses, false_calls, cost, pooled)
    return chosen


def trade_off(hits: Hits, *, miss_cost: float, floor: float) -> tuple[Point, ...]:
    """The whole curve of one label, from the highest threshold (nothing counts) down to *floor* (all counts)."""
    _check(miss_cost, floor)
    kept = hits.scores >= floor
    order = np.argsort(-hits.scores[kept], kind="stable")
    scores = hits.scores[kept][order]
    right = hits.right[kept][order]
    # No threshold parts detections of one score: a stretch begins where the score changes.
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if scores.size else np.zeros(0, np.int64)
    counted = np.concatenate([[0], ends + 1])
    found = np.concatenate([[0], np.cumsum(right)])[counted]
    tops = np.concatenate([[1.0], scores[ends]])  # the highest threshold at which so many count
    bottoms = np.concatenate([scores[ends], [floor]])
    points = (
        Point(
            float(bottom),
            float(top),
            hits.labelled - int(true),
            int(count - true),
            miss_cost * (hits.labelled - int(true)) + int(count - true),
        )
        for bottom, top, count, true in zip(bottoms, tops, counted, found, strict=True)
    )
    return tuple(one for one in points if one.above < one.up_to)  # a score of 1, or of the floor itself, leaves none


def cheapest(curve: tuple[Point, ...]) -> Point:
    """The stretch of least cost; of several the lowest."""
    return min(reversed(curve), key=lambda one: one.cost)


def counts_at(hits: Hits, threshold: float) -> tuple[int, int]:
    """(misses, false calls) of one label at *threshold*."""
    counted = hits.scores >= threshold
    found = int(hits.right[counted].sum())
    return hits.labelled - found, int(counted.sum()) - found


def _together(all_hits: list[Hits]) -> Hits:
    return Hits(
        np.concatenate([np.zeros(0, np.bool_), *(one.right for one in all_hits)]),
        np.concatenate([np.zeros(0, np.float64), *(one.scores for one in all_hits)]),
        sum(one.labelled for one in all_hits),
    )


def _check(miss_cost: float, floor: float) -> None:
    if not (miss_cost > 0 and np.isfinite(miss_cost)):
        raise ValueError(f"miss_cost is {miss_cost:g}: it is how many false calls one miss is worth, more than 0")
    if not 0 <= floor < 1:
        raise ValueError(f"floor is {floor:g}: it is the confidence the detector ran with, from 0 to below 1")
