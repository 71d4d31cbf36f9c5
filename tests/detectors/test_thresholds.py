"""Thresholds from what a miss costs against a false call, with tables worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from station.detectors.metric import Hits
from station.detectors.thresholds import FEW, Point, cheapest, counts_at, thresholds_from_cost, trade_off


def hits(found: list[tuple[float, bool]], *, missed: int = 0) -> Hits:
    """Detections as (score, right); *missed*: labelled boxes that no detection found."""
    right = [one for _, one in found]
    return Hits(np.asarray(right, np.bool_), np.asarray([score for score, _ in found], np.float64), sum(right) + missed)


# Ten labelled, nine of them found: eight at 0.9 and one at 0.3, below three false calls.
TEN = hits([*((0.9, True) for _ in range(8)), (0.6, False), (0.5, False), (0.4, False), (0.3, True)], missed=1)


def test_the_trade_off_by_hand() -> None:
    assert trade_off(TEN, miss_cost=5, floor=0.1) == (
        Point(0.9, 1.0, misses=10, false_calls=0, cost=50),
        Point(0.6, 0.9, misses=2, false_calls=0, cost=10),
        Point(0.5, 0.6, misses=2, false_calls=1, cost=11),
        Point(0.4, 0.5, misses=2, false_calls=2, cost=12),
        Point(0.3, 0.4, misses=2, false_calls=3, cost=13),
        Point(0.1, 0.3, misses=1, false_calls=3, cost=8),
    )


@pytest.mark.parametrize(
    ("miss_cost", "threshold", "misses", "false_calls"),
    [
        (2.9, 0.75, 2, 0),  # the last hit would save 2.9 and cost 3
        (3.0, 0.2, 1, 3),  # one cost: the lower threshold, where fewer are missed
        (50.0, 0.2, 1, 3),
    ],
)
def test_the_last_hit_is_bought_when_it_is_worth_its_false_calls(
    miss_cost: float, threshold: float, misses: int, false_calls: int
) -> None:
    chosen = thresholds_from_cost({"open": TEN}, miss_cost=miss_cost, floor=0.1)["open"]
    assert (chosen.threshold, chosen.misses, chosen.false_calls) == (threshold, misses, false_calls)
    assert chosen.cost == pytest.approx(miss_cost * misses + false_calls)
    assert not chosen.pooled


def test_each_label_has_its_own_threshold() -> None:
    sure = hits([(0.8, True)] * FEW + [(0.6, False)])
    faint = hits([(0.3, True)] * FEW + [(0.1, False)])
    chosen = thresholds_from_cost({"open": sure, "spur": faint}, miss_cost=10, floor=0.01)
    assert {label: one.threshold for label, one in chosen.items()} == {"open": 0.7, "spur": 0.2}


def test_a_label_with_few_examples_takes_the_threshold_of_all_labels() -> None:
    many = hits([(0.8, True)] * 40 + [(0.6, False)] * 5)
    few = hits([(0.2, True)] * (FEW - 1) + [(0.1, False)])
    chosen = thresholds_from_cost({"open": many, "spur": few}, miss_cost=0.5, floor=0.01)
    # Together: at 0.7 nine are missed (4.5); at 0.15 five are false calls (5.0).
    assert chosen["spur"].pooled
    assert chosen["spur"].threshold == chosen["open"].threshold == 0.7
    assert (chosen["spur"].misses, chosen["spur"].false_calls) == (FEW - 1, 0)


def test_a_label_that_was_never_found_is_no_reason_for_a_threshold_of_its_own() -> None:
    lost = hits([(0.99, False)], missed=50)
    chosen = thresholds_from_cost({"open": TEN, "spur": lost}, miss_cost=1, floor=0.1)
    assert chosen["spur"].pooled
    assert chosen["spur"].misses == 50


def test_without_any_false_call_the_threshold_lies_halfway_below_the_last_hit() -> None:
    chosen = thresholds_from_cost({"open": hits([(0.9, True)] * FEW)}, miss_cost=10, floor=0.1)
    assert chosen["open"].threshold == 0.5


def test_detections_of_one_score_are_never_parted() -> None:
    curve = trade_off(hits([(0.5, True), (0.5, False), (0.5, True)]), miss_cost=1, floor=0.0)
    assert [(one.misses, one.false_calls) for one in curve] == [(2, 0), (0, 1)]


def test_what_scores_below_the_floor_is_not_counted() -> None:
    curve = trade_off(hits([(0.5, True), (0.05, True), (0.04, False)]), miss_cost=1, floor=0.1)
    assert curve[-1] == Point(0.1, 0.5, misses=1, false_calls=0, cost=1)


def test_a_score_of_one_counts_at_every_threshold() -> None:
    assert trade_off(hits([(1.0, True)]), miss_cost=1, floor=0.0) == (Point(0.0, 1.0, 0, 0, 0),)


@pytest.mark.parametrize(
    ("above", "up_to", "said"),
    [(0.4, 0.8, 0.6), (0.501, 0.505, 0.503), (0.123, 0.456, 0.29), (0.5, np.nextafter(0.5, 1), np.nextafter(0.5, 1))],
)
def test_a_threshold_is_as_short_a_number_as_lies_in_its_stretch(above: float, up_to: float, said: float) -> None:
    assert Point(above, up_to, 0, 0, 0).threshold == said


def test_the_counts_of_every_stretch_hold_at_its_threshold() -> None:
    random = np.random.default_rng(0)
    scores = np.sort(random.random(300).round(2))[::-1]
    found = Hits(random.random(300) < scores, scores, 250)
    for point in trade_off(found, miss_cost=7, floor=0.05):
        assert counts_at(found, point.threshold) == (point.misses, point.false_calls)
    best = cheapest(trade_off(found, miss_cost=7, floor=0.05))
    for threshold in np.arange(0.051, 1.0, 0.001):
        misses, false_calls = counts_at(found, float(threshold))
        assert best.cost <= 7 * misses + false_calls


def test_boards_without_any_labelled_defect_give_no_threshold() -> None:
    with pytest.raises(ValueError, match="no labelled defect"):
        thresholds_from_cost({"open": hits([(0.9, False)])}, miss_cost=10, floor=0.1)


@pytest.mark.parametrize(("miss_cost", "floor"), [(0, 0.1), (-1, 0.1), (float("nan"), 0.1), (float("inf"), 0.1)])
def test_a_cost_that_makes_no_sense_is_refused(miss_cost: float, floor: float) -> None:
    with pytest.raises(ValueError, match="miss_cost"):
        thresholds_from_cost({"open": TEN}, miss_cost=miss_cost, floor=floor)


@pytest.mark.parametrize("floor", [-0.1, 1.0, float("nan")])
def test_a_floor_that_makes_no_sense_is_refused(floor: float) -> None:
    with pytest.raises(ValueError, match="floor"):
        trade_off(TEN, miss_cost=1, floor=floor)
