"""Decides by recipe: defects in, verdict and a readable reason out. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from station.types import Decision, Defect, Judged, Recipe, Suppressed, Verdict, cut


def decide(defects: Sequence[Defect], recipe: Recipe) -> Decision:
    """
    FAIL when a defect that nothing suppresses reaches its label's threshold, else PASS.

    A defect is suppressed when its box is smaller than the recipe's minimum area or its centre lies in an ignored
    region; it is reported, never silent.
    """
    judged: list[Judged] = []
    suppressed: list[Suppressed] = []
    for defect in defects:
        by = _suppressor(defect, recipe)
        if by is None:
            judged.append(Judged(defect, counts=defect.confidence >= recipe.threshold(defect.label)))
        else:
            suppressed.append(Suppressed(defect, by))
    judged.sort(key=lambda one: (not one.counts, -one.defect.confidence))
    verdict = Verdict.FAIL if judged and judged[0].counts else Verdict.PASS
    return Decision(verdict, _reason(judged, suppressed, recipe), tuple(judged), tuple(suppressed))


def fails(defect: Defect, recipe: Recipe) -> bool:
    """Whether *defect* alone fails the board."""
    return decide([defect], recipe).verdict is Verdict.FAIL


def unknown(reason: str) -> Decision:
    """The answer for a board that could not be judged."""
    return Decision(Verdict.UNKNOWN, reason)


def _suppressor(defect: Defect, recipe: Recipe) -> str | None:
    box = defect.box
    if box.area_px < recipe.min_area_px:
        return "min_area_px"
    centre_x, centre_y = box.x + box.width / 2, box.y + box.height / 2
    for region in recipe.ignore:
        inside_x = region.box.x <= centre_x < region.box.x + region.box.width
        inside_y = region.box.y <= centre_y < region.box.y + region.box.height
        if inside_x and inside_y:
            return f"region {region.name}"
    return None


def _reason(judged: Sequence[Judged], suppressed: Sequence[Suppressed], recipe: Recipe) -> str:
    if judged:
        first = judged[0].defect
        sign = ">=" if judged[0].counts else "<"
        text = f"{first.label} {_number(first.confidence)} {sign} {_number(recipe.threshold(first.label))}"
        more = sum(one.counts for one in judged) - 1
        text += f" and {more} more" if more > 0 else ""
    else:
        text = "no defect found"
    return text + (f"; {len(suppressed)} suppressed" if suppressed else "")


def _number(value: float) -> str:
    return f"{cut(value, 2):.2f}"
