"""How detections are matched and what their figures are, against cases worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from station.detectors.metric import (
    Hits,
    Marked,
    average_precision,
    best_f_score,
    by_coco50,
    by_paper,
    coco_precision,
    f_score_at,
    interpolated_precision,
    iou,
    match,
    pair_up,
)


def box(image: int = 0, kind: int = 0, *, x: float = 0, size: float = 10, score: float = 1.0) -> Marked:
    return Marked(image, kind, x, 0, x + size, size, score)


def hits(right: list[bool], *, labelled: int, scores: list[float] | None = None) -> Hits:
    """Detections of one class, best first; their scores do not matter unless given."""
    given = scores if scores is not None else np.linspace(0.9, 0.1, len(right))
    return Hits(np.asarray(right, np.bool_), np.asarray(given, np.float64), labelled)


def test_iou_of_half_shifted_squares_is_a_third() -> None:
    assert iou(box(), box(x=5)) == pytest.approx(1 / 3)
    assert iou(box(), box(x=10)) == 0.0
    assert iou(box(), box()) == 1.0


def test_each_labelled_box_is_matched_once_and_by_the_best_score() -> None:
    found = match([box(score=0.6), box(x=1, score=0.9)], [box()], class_id=0, right_by=by_paper)
    assert list(found.right) == [True, False]
    assert list(found.scores) == [0.9, 0.6]


def test_a_detection_takes_the_labelled_box_that_it_overlaps_most() -> None:
    # The better one lies between both, nearer to the second: taking the first would leave the weaker one without any.
    labelled = [box(x=0), box(x=6)]
    found = match([box(x=4, score=0.9), box(x=0, score=0.8)], labelled, class_id=0, right_by=by_paper)
    assert found.right.all()


def test_another_class_or_another_image_is_no_match() -> None:
    assert not match([box(1)], [box(0)], class_id=0, right_by=by_paper).right.any()
    assert len(match([box(0, 1)], [box(0, 0)], class_id=0, right_by=by_paper).right) == 0


def test_the_paper_wants_more_than_its_limit_and_coco_at_least_its_own() -> None:
    assert by_paper(0.3301)
    assert not by_paper(0.33)
    assert by_coco50(0.5)
    assert not by_coco50(0.4999)
    # 10 x 10 in 20 x 10: an IoU of exactly 0.5.
    half = Marked(0, 0, 0, 0, 20, 10)
    assert match([box()], [half], class_id=0, right_by=by_coco50).right.all()


def test_the_papers_average_precision_by_hand() -> None:
    # Right, wrong, right, and a third labelled box that is never found: (1 + 2/3 + 0) / 3.
    assert average_precision(hits([True, False, True], labelled=3)) == pytest.approx((1 + 2 / 3) / 3)
    # Wrong first: (1/2 + 2/3) / 2. An interpolated one would say 2/3.
    assert average_precision(hits([False, True, True], labelled=2)) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_cocos_average_precision_by_hand() -> None:
    # Precision 1 up to recall 0.5 (51 of 101 points), then 2/3 (50 points).
    assert interpolated_precision(hits([True, False, True], labelled=2)) == pytest.approx((51 + 50 * 2 / 3) / 101)
    # Wrong first: the later precision of 2/3 counts for the lower recalls too.
    assert interpolated_precision(hits([False, True, True], labelled=2)) == pytest.approx(2 / 3)
    # Found a third: recall 0, 0.01, ... 0.33 are reached, 34 points.
    assert interpolated_precision(hits([True], labelled=3)) == pytest.approx(34 / 101)


@pytest.mark.parametrize("found", range(101))
def test_a_recall_that_is_just_reached_counts(found: int) -> None:
    assert interpolated_precision(hits([True] * found, labelled=100)) == pytest.approx(
        (found + 1) / 101 if found else 0
    )


@pytest.mark.parametrize("precision_of", [average_precision, interpolated_precision])
def test_nothing_found_is_zero_and_nothing_labelled_is_no_number(precision_of: Callable[[Hits], float]) -> None:
    assert precision_of(hits([], labelled=1)) == 0.0
    assert precision_of(hits([False, False], labelled=1)) == 0.0
    assert precision_of(hits([True], labelled=1)) == 1.0
    assert math.isnan(precision_of(hits([False], labelled=0)))


def test_the_best_f_score_by_hand() -> None:
    # At 0.7: 2 of 3 right, 2 of 2 found: F = 0.8. At 0.9: 1 of 1, 1 of 2: 0.667.
    best = best_f_score([hits([True, False, True], labelled=2, scores=[0.9, 0.8, 0.7])])
    assert (best.value, best.threshold) == pytest.approx((0.8, 0.7))
    assert (best.precision, best.recall) == pytest.approx((2 / 3, 1.0))


def test_the_f_score_is_of_all_classes_at_one_threshold() -> None:
    one = hits([True], labelled=1, scores=[0.9])
    other = hits([True, False], labelled=1, scores=[0.4, 0.3])
    best = best_f_score([one, other])
    assert (best.value, best.threshold) == (1.0, 0.4)


@pytest.mark.parametrize("order", [[True, False], [False, True]])
def test_no_threshold_parts_what_scores_the_same(order: list[bool]) -> None:
    found = [hits(order, labelled=1, scores=[0.8, 0.8])]
    best = best_f_score(found)
    assert (best.precision, best.recall) == (0.5, 1.0)
    assert best == f_score_at(found, best.threshold)


def test_the_figures_at_a_threshold_count_what_scores_at_least_that() -> None:
    found = [hits([True, False, True], labelled=4, scores=[0.9, 0.8, 0.7])]
    at = f_score_at(found, 0.8)
    assert (at.precision, at.recall, at.value) == pytest.approx((0.5, 0.25, 1 / 3))
    assert f_score_at(found, 0.95).value == 0.0


@pytest.mark.parametrize("found", [[], [False]])
def test_without_one_right_detection_the_f_score_is_zero(found: list[bool]) -> None:
    assert best_f_score([hits(found, labelled=1)]).value == 0.0


def test_cocos_mean_over_ten_limits_by_hand() -> None:
    # Of 10 x 10, 8 x 10 is found: an IoU of 0.8, which is right at the limits 0.50 to 0.80: seven of ten.
    assert coco_precision([Marked(0, 0, 0, 0, 8, 10)], [box()], class_id=0) == pytest.approx(0.7)
    # A second board, exactly found and surer: two of two up to 0.80, then one of two (recall 0 to 0.5: 51 points).
    found = [Marked(0, 0, 0, 0, 8, 10, 0.5), box(1, score=0.9)]
    assert coco_precision(found, [box(), box(1)], class_id=0) == pytest.approx((7 * 1 + 3 * 51 / 101) / 10)


def test_cocos_mean_of_what_is_not_labelled_is_no_number() -> None:
    assert math.isnan(coco_precision([box()], [], class_id=0))


def test_who_met_whom_is_told_and_who_was_missed() -> None:
    near, far, other = box(x=1, score=0.9), box(x=50, score=0.8), box(1)
    matched = pair_up([far, near], [box(), other], class_id=0, right_by=by_paper)
    assert matched.found == (near, far)
    assert matched.partners == (box(), None)
    assert matched.missed == (other,)
    assert matched.hits().labelled == 2
