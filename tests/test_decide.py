"""Deciding by recipe, with tables."""

from __future__ import annotations

import pytest

from station.decide import decide, unknown
from station.types import Box, Defect, Recipe, Region, Verdict

RECIPE = Recipe(
    name="r",
    default_threshold=0.5,
    thresholds={"spur": 0.7},
    min_area_px=100.0,
    ignore=(Region("logo", Box(0, 0, 50, 50)),),
)


def defect(label: str = "short", confidence: float = 0.9, box: Box | None = None) -> Defect:
    return Defect(label, confidence, box or Box(100, 100, 20, 20), "m")


@pytest.mark.parametrize(
    ("found", "verdict", "reason"),
    [
        ([], Verdict.PASS, "no defect found"),
        ([defect()], Verdict.FAIL, "short 0.90 >= 0.50"),
        ([defect(confidence=0.5)], Verdict.FAIL, "short 0.50 >= 0.50"),
        ([defect(confidence=0.4999)], Verdict.PASS, "short 0.49 < 0.50"),
        ([defect("spur", 0.69)], Verdict.PASS, "spur 0.69 < 0.70"),
        ([defect("spur", 0.70)], Verdict.FAIL, "spur 0.70 >= 0.70"),
        ([defect("spur", 0.6), defect("open", 0.55)], Verdict.FAIL, "open 0.55 >= 0.50"),
        ([defect("open", 0.6), defect("short", 0.9)], Verdict.FAIL, "short 0.90 >= 0.50 and 1 more"),
    ],
)
def test_a_defect_at_or_above_its_labels_threshold_fails_the_board(
    found: list[Defect], verdict: Verdict, reason: str
) -> None:
    decision = decide(found, RECIPE)
    assert (decision.verdict, decision.reason) == (verdict, reason)


def test_one_weak_box_does_not_hide_a_strong_defect() -> None:
    decision = decide([defect("spur", 0.3), defect("short", 0.95)], RECIPE)
    assert decision.verdict is Verdict.FAIL
    assert [(one.defect.label, one.counts) for one in decision.defects] == [("short", True), ("spur", False)]


@pytest.mark.parametrize(
    ("box", "by"),
    [
        (Box(100, 100, 9.9, 10), "min_area_px"),
        (Box(100, 100, 10, 10), None),
        (Box(30, 30, 20, 20), "region logo"),
        (Box(40, 40, 20, 20), None),  # its centre is on the far edge: outside
        (Box(20, 20, 200, 200), None),  # its centre is outside, though it reaches in
    ],
)
def test_what_an_area_or_a_region_hides_is_reported(box: Box, by: str | None) -> None:
    decision = decide([defect(box=box)], RECIPE)
    assert decision.verdict is (Verdict.FAIL if by is None else Verdict.PASS)
    assert [one.by for one in decision.suppressed] == ([] if by is None else [by])
    assert ("1 suppressed" in decision.reason) is (by is not None)


def test_unknown_is_an_answer_and_never_a_pass() -> None:
    assert unknown("too dark").verdict is Verdict.UNKNOWN
