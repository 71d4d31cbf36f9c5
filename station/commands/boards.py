"""The labelled boards that a user judges a model with: which there are, and what a model makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from station.detectors.metric import Hits, by_paper
from station.detectors.selftest import Candidate, template_beside
from station.detectors.thresholds import Choice, thresholds_from_cost
from station.detectors.yolo import NetworkDetector
from station.errors import DetectorError, LabelsError, ModelError
from station.labelled import NAMES, SUFFIXES, LabelledBoard, Layout, hits_by_label, load, read_labelled
from station.model_choice import LOWEST
from station.types import Defect, Image

MOST = 500  # boards, spread evenly over the folder: more take minutes and change thresholds by a hundredth
PICTURES = 8  # on which a converted model is compared with its original

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Boards:
    """
    Labelled boards; those of ``templates`` (DeepPCB's defect-free ones) count as boards without a defect.

    *template*: the recipe's, for boards that have none of their name.
    """

    all: tuple[LabelledBoard, ...]
    templates: dict[str, Path]
    template: Path | None = None

    @property
    def defective(self) -> list[LabelledBoard]:
        return [one for one in self.all if one.rows]

    def template_of(self, board: LabelledBoard) -> Path | None:
        return self.templates.get(Path(board.name).name, self.template)

    def candidates(self) -> list[Candidate]:
        return [Candidate(one.picture, bool(one.rows), self.template_of(one), one.depth_bits) for one in self.all]

    def comparable(self) -> Boards:
        """Those that have a template which they fit. Raises LabelsError where no board with a defect has one."""
        fitting = tuple(one for one in self.all if self._fits(one))
        if not any(one.rows for one in fitting):
            raise LabelsError(
                "the model compares each board with its template, and no labelled board has one that it fits: put the "
                "picture of the same board without a defect into templates/, under the board's own file name, or set "
                "[recipe] template"
            )
        return replace(self, all=fitting)

    def _fits(self, board: LabelledBoard) -> bool:
        template = self.template_of(board)
        if template is None:
            return False
        try:
            template_beside(*(load(one, depth_bits=board.depth_bits) for one in (board.picture, template)))
        except DetectorError:
            return False
        return True


def boards_of(root: Path, *, depth_bits: int, most: int = MOST, template: Path | None = None) -> Boards:
    """
    The labelled boards of *root*, at most *most* of them. Raises LabelsError.

    *depth_bits*: how many of 16 bits their pictures use: a model is judged by what the line would show it. *template*:
    the recipe's, if there is one.
    """
    boards = read_labelled(root, depth_bits=depth_bits)
    templates = sorted(one for one in (root / "templates").glob("*") if one.suffix.lower() in SUFFIXES)
    good = [LabelledBoard(f"templates/{one.stem}", one, (), Layout.YOLO, depth_bits=depth_bits) for one in templates]
    if not any(one.rows for one in boards):
        raise LabelsError(f"no board of {root} is labelled with a defect: a model cannot be judged by good ones alone")
    those = (*spread(boards, most), *spread(good, most // 2))
    return Boards(those, {one.stem: one for one in templates}, template)


def pictures_of(root: Path) -> list[Path]:
    """The pictures of *root*, or of its ``images``, whether labelled or not. Raises LabelsError when there are none."""
    folder = root / "images" if (root / "images").is_dir() else root
    found = sorted(one for one in folder.rglob("*") if one.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not found:
        raise LabelsError(f"{folder} has no picture: give a folder of pictures of typical boards")
    return found


def hits_of(
    detector: NetworkDetector,
    boards: Sequence[LabelledBoard],
    labels: Sequence[str],
    *,
    what: str,
    template_of: Callable[[LabelledBoard], Path | None] | None = None,
) -> dict[str, Hits]:
    """
    What *detector* gets right on *boards* of any product, by label (IoU over 0.33). Raises ModelError, LabelsError.

    *template_of*: what each board is compared with; None: they are judged alone.
    """
    shown, order = _progress(what, len(boards)), iter(boards)

    def detect(image: Image) -> list[Defect]:
        next(shown, None)
        board = next(order)
        template = None if template_of is None else template_of(board)
        try:
            if template is None:
                return detector.detect_alone(image)
            return detector.detect_beside(image, template_beside(image, load(template, depth_bits=board.depth_bits)))
        except DetectorError as error:
            raise ModelError(f"the model fails on the labelled board {board.name}: {error}") from None

    found = hits_by_label(detect, boards, labels, right_by=by_paper)
    next(shown, None)  # the last step, which closes the bar
    return found


def thresholds_of(
    detector: NetworkDetector, boards: Boards, labels: Sequence[str], *, miss_cost: float
) -> dict[str, Choice]:
    """
    The thresholds of least cost on *boards*, for the labels that are there. Raises ModelError, LabelsError.

    One that misses most of its defects is none: the labels mean something else, or the model does not know them.
    """
    template_of = boards.template_of if detector.paired else None
    hits = hits_of(detector, boards.all, labels, what="judging labelled boards", template_of=template_of)
    try:
        chosen = thresholds_from_cost(hits, miss_cost=miss_cost, floor=LOWEST)
    except ValueError as error:
        raise LabelsError(str(error)) from None
    missed = [
        f"{label} {one.misses} of {one.labelled}" for label, one in chosen.items() if 2 * one.misses > one.labelled
    ]
    if missed:
        raise LabelsError(
            f"at the thresholds of least cost the model misses most defects of a label ({', '.join(missed)}): is that "
            f"what these labels are called, in this order, in labels/ and {NAMES}? If so, they need more training, or "
            "more false calls for a miss (--miss-cost)"
        )
    return chosen


def spread(those: Sequence[_Item], most: int) -> list[_Item]:
    """At most *most* of them, evenly from first to last: in a folder neighbours are often boards of one kind."""
    if len(those) <= most:
        return list(those)
    return [those[number * len(those) // most] for number in range(most)]


def _progress(what: str, count: int) -> Iterator[int]:
    return iter(track(range(count), description=what, console=Console(stderr=True)))
