"""The worst that a detector did by its recipe: who was taken for what, misses, false calls, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from judge import Judgement
from numpy.typing import NDArray

from station.detectors.metric import Marked, by_paper, iou
from station.labelled import load
from station.types import Image

CROP_PX = 120  # of the board at least: what lies around tells an open from a short
SHOWN_PX = 360  # so large a crop is shown
LABELLED_BGR, FOUND_BGR, PAPER_BGR = (40, 150, 0), (30, 30, 220), (245, 245, 245)


@dataclass(frozen=True, slots=True)
class Case:
    """
    One miss or one false call: the box in question, one sentence about it, and all boxes of its board.

    *on_template*: it was found on the defect-free template itself.
    """

    board: str
    box: Marked
    said: str
    labelled: tuple[Marked, ...]
    found: tuple[Marked, ...]
    on_template: bool = False


def confusion(judgement: Judgement) -> NDArray[np.int64]:
    """
    How often each class was taken for which: rows labelled, columns found; the last of each is the background.

    IoU > 0.33. Boxes of the right class are paired first, what is left over then regardless of class. With n classes
    (n + 1) x (n + 1); the last row has the false calls, the last column the misses.
    """
    count = len(judgement.classes)
    table = np.zeros((count + 1, count + 1), np.int64)
    wrong: list[Marked] = []
    missed: list[Marked] = []
    for kind, one in enumerate(judgement.matched(by_paper, counted=True)):
        table[kind, kind] += sum(partner is not None for partner in one.partners)
        wrong += [box for box, partner in zip(one.found, one.partners, strict=True) if partner is None]
        missed += one.missed
    for found, truth in _regardless(wrong, missed):
        table[truth.class_id if truth else count, found.class_id if found else count] += 1
    return table


def _regardless(found: Sequence[Marked], labelled: Sequence[Marked]) -> list[tuple[Marked | None, Marked | None]]:
    """Pairs of boxes whatever their class, and those that met none."""
    pairs: list[tuple[Marked | None, Marked | None]] = []
    left = list(labelled)
    for one in sorted(found, key=lambda one: -one.score):
        near = [truth for truth in left if truth.image == one.image and by_paper(iou(one, truth))]
        best = max(near, key=lambda truth: iou(one, truth), default=None)
        if best is not None:
            left.remove(best)
        pairs.append((one, best))
    return [*pairs, *((None, truth) for truth in left)]


def worst_misses(judgement: Judgement, *, most: int) -> list[Case]:
    """Labelled defects that nothing counted for, those first of which the detector saw least."""
    cases: list[tuple[float, float, Case]] = []
    for kind, one in enumerate(judgement.matched(by_paper, counted=True)):
        for box in one.missed:
            near = [found for found in judgement.boxes if found.image == box.image and by_paper(iou(found, box))]
            own = max((found.score for found in near if found.class_id == kind), default=0.0)
            best = max(near, key=lambda found: found.score, default=None)
            if best is None:
                said = "nothing was found there"
            elif best.class_id == kind:
                said = f"found with {best.score:.2f} only"
            else:
                said = f"called {judgement.classes[best.class_id]} {best.score:.2f}"
                said += f", {judgement.classes[kind]} {own:.2f}" if own > 0 else ""
            case = _case(judgement, box, f"{judgement.classes[kind]} missed: {said}")
            cases.append((own, best.score if best else 0.0, case))
    cases.sort(key=lambda one: one[:2])
    return [case for _, _, case in cases[:most]]


def worst_false_calls(judgement: Judgement, *, most: int) -> list[Case]:
    """What counts and is no labelled defect, surest first; one of each board, then more."""
    cases: list[Case] = []
    for kind, one in enumerate(judgement.matched(by_paper, counted=True)):
        name = judgement.classes[kind]
        for box, partner in zip(one.found, one.partners, strict=True):
            if partner is None:
                said = f"{name} {box.score:.2f} {_instead(judgement, box)}"
                cases.append(_case(judgement, box, said))
    for box in judgement.counted_on_templates:
        said = f"{judgement.labels[box.class_id]} {box.score:.2f} on a defect-free template"
        seen = tuple(other for other in judgement.counted_on_templates if other.image == box.image)
        cases.append(Case(judgement.boards[box.image].name, box, said, (), seen, on_template=True))
    cases.sort(key=lambda one: -one.box.score)
    turn: dict[str, int] = {}
    in_turn: list[tuple[int, Case]] = []
    for case in cases:  # twelve times the same drill hole would teach nothing
        turn[case.board] = turn.get(case.board, -1) + 1
        in_turn.append((turn[case.board], case))
    return [case for _, case in sorted(in_turn, key=lambda one: one[0])[:most]]


def picture_of(case: Case, judgement: Judgement) -> Image:
    """The place on the board, and beside it the same place on the template where there is one; boxes drawn."""
    template = judgement.templates[case.box.image]
    board_of = judgement.boards[case.box.image]
    board = load(template if case.on_template and template else board_of.picture, depth_bits=board_of.depth_bits)
    views = [_view(board, case, boxes=True)]
    if template is not None and not case.on_template:
        views.append(_view(load(template, depth_bits=board_of.depth_bits), case, boxes=False))
    gap = np.full((SHOWN_PX, 12, 3), PAPER_BGR, np.uint8)
    return np.hstack([part for view in views for part in (view, gap)][:-1])


def _case(judgement: Judgement, box: Marked, said: str) -> Case:
    return Case(
        judgement.boards[box.image].name,
        box,
        said,
        tuple(one for one in judgement.labelled if one.image == box.image),
        tuple(one for one in judgement.counted if one.image == box.image),
    )


def _instead(judgement: Judgement, box: Marked) -> str:
    """What is labelled where *box* was found."""
    near = [one for one in judgement.truths if one.image == box.image and iou(one, box) > 0]
    best = max(near, key=lambda one: iou(one, box), default=None)
    if best is None:
        return "where nothing is labelled"
    name = judgement.classes[best.class_id]
    if best.class_id != box.class_id:
        return f"where {name} is labelled"
    return (
        f"again on a {name} that is found"
        if by_paper(iou(best, box))
        else f"beside a {name} (IoU {iou(best, box):.2f})"
    )


def _view(image: Image, case: Case, *, boxes: bool) -> Image:
    """A square of *image* around the box, enlarged."""
    box = case.box
    side = int(min(max(CROP_PX, 2 * (box.x2 - box.x1), 2 * (box.y2 - box.y1)), *image.shape[:2]))
    left = int(np.clip((box.x1 + box.x2 - side) / 2, 0, image.shape[1] - side))
    top = int(np.clip((box.y1 + box.y2 - side) / 2, 0, image.shape[0] - side))
    crop = image[top : top + side, left : left + side]
    # A board is black and white: a little grey lets the boxes be seen on both.
    shown = cv2.resize(crop, (SHOWN_PX, SHOWN_PX), interpolation=cv2.INTER_NEAREST) // 2 + 96
    if boxes:
        scale = SHOWN_PX / side
        for each, colour in ((case.found, FOUND_BGR), (case.labelled, LABELLED_BGR)):
            for one in each:
                start = (round((one.x1 - left) * scale), round((one.y1 - top) * scale))
                end = (round((one.x2 - left) * scale), round((one.y2 - top) * scale))
                cv2.rectangle(shown, start, end, colour, 2 if colour == LABELLED_BGR else 3)
    return np.asarray(shown, np.uint8)
