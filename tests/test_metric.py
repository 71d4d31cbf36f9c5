"""The metric of scripts/evaluate.py, against cases worked out by hand."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

metric = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "metric.py"), run_name="metric_under_test")
Marked, iou, match = metric["Marked"], metric["iou"], metric["match"]
average_precision, best_f_score = metric["average_precision"], metric["best_f_score"]


def box(image: int = 0, kind: int = 0, *, x: float = 0, size: float = 10, score: float = 1.0):  # type: ignore[no-untyped-def]  # runpy's types are not known here
    return Marked(image, kind, x, 0, x + size, size, score)


def test_iou_of_half_shifted_squares_is_a_third() -> None:
    assert iou(box(), box(x=5)) == pytest.approx(1 / 3)
    assert iou(box(), box(x=10)) == 0.0
    assert iou(box(), box()) == 1.0


def test_each_labelled_box_is_matched_once_and_by_the_best_score() -> None:
    hits = match([box(score=0.6), box(x=1, score=0.9)], [box()], class_id=0, over=0.33)
    assert list(hits.right) == [True, False]
    assert list(hits.scores) == [0.9, 0.6]


def test_another_class_or_another_image_is_no_match() -> None:
    assert not match([box(1)], [box(0)], class_id=0, over=0.33).right.any()
    assert len(match([box(0, 1)], [box(0, 0)], class_id=0, over=0.33).right) == 0


def test_an_overlap_of_exactly_the_limit_is_not_above_it() -> None:
    assert not match([box(x=5)], [box()], class_id=0, over=1 / 3 + 1e-9).right.any()
    assert match([box(x=5)], [box()], class_id=0, over=0.33).right.all()


def test_average_precision_by_hand() -> None:
    # Two labelled; right, wrong, right: precision 1 up to recall 0.5 (51 of 101 points), then 2/3 (50 points).
    found = [box(0, score=0.9), box(0, x=50, score=0.8), box(1, score=0.7)]
    hits = match(found, [box(0), box(1)], class_id=0, over=0.5)
    assert average_precision(hits) == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)


def test_nothing_found_is_zero_and_nothing_labelled_is_no_number() -> None:
    assert average_precision(match([], [box()], class_id=0, over=0.5)) == 0.0
    assert average_precision(match([box()], [], class_id=0, over=0.5)) != average_precision(
        match([box()], [], class_id=0, over=0.5)
    )


def test_the_best_f_score_by_hand() -> None:
    # At 0.7: 2 of 3 right, 2 of 2 found: F = 0.8. At 0.9: 1 of 1, 1 of 2: 0.667.
    found = [box(0, score=0.9), box(0, x=50, score=0.8), box(1, score=0.7)]
    best = best_f_score([match(found, [box(0), box(1)], class_id=0, over=0.5)])
    assert (best.value, best.threshold) == (pytest.approx(0.8), 0.7)
    assert (best.precision, best.recall) == (pytest.approx(2 / 3), 1.0)
