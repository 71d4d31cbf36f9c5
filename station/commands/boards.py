"""The labelled boards that a user judges a model with: which there are, and what a model makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from station.detectors.metric import Hits, by_paper
from station.detectors.selftest import Candidate
from station.detectors.thresholds import Choice, thresholds_from_cost
from station.detectors.yolo import NetworkDetector
from station.errors import DetectorError, LabelsError, ModelError
from station.labelled import NAMES, SUFFIXES, LabelledBoard, Layout, hits_by_label, read_labelled
from station.model_choice import LOWEST
from station.types import Defect, Image

MOST = 500  # boards, spread evenly over the folder: more take minutes and change thresholds by a hundredth
PICTURES = 8  # on which a converted model is compared with its original

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Boards:
    """Labelled boards; those of ``templates`` (DeepPCB's defect-free ones) count as boards without a defect."""

    all: tuple[LabelledBoard, ...]
    templates: dict[str, Path]

    @property
    def defective(self) -> list[LabelledBoard]:
        return [one for one in self.all if one.rows]

    def candidates(self) -> list[Candidate]:
        return [
            Candidate(one.picture, bool(one.rows), self.templates.get(Path(one.name).name), one.depth_bits)
            for one in self.all
        ]


def boards_of(root: Path, *, depth_bits: int, most: int = MOST) -> Boards:
    """
    The labelled boards of *root*, at most *most* of them. Raises LabelsError.

    *depth_bits*: how many of 16 bits their pictures use: a model is judged by what the line would show it.
    """
    boards = read_labelled(root, depth_bits=depth_bits)
    templates = sorted(one for one in (root / "templates").glob("*") if one.suffix.lower() in SUFFIXES)
    good = [LabelledBoard(f"templates/{one.stem}", one, (), Layout.YOLO, depth_bits=depth_bits) for one in templates]
    if not any(one.rows for one in boards):
        raise LabelsError(f"no board of {root} is labelled with a defect: a model cannot be judged by good ones alone")
    return Boards((*spread(boards, most), *spread(good, most // 2)), {one.stem: one for one in templates})


def pictures_of(root: Path) -> list[Path]:
    """The pictures of *root*, or of its ``images``, whether labelled or not. Raises LabelsError when there are none."""
    folder = root / "images" if (root / "images").is_dir() else root
    found = sorted(one for one in folder.rglob("*") if one.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not found:
        raise LabelsError(f"{folder} has no picture: give a folder of pictures of typical boards")
    return found


def hits_of(
    detector: NetworkDetector, boards: Sequence[LabelledBoard], labels: Sequence[str], *, what: str
) -> dict[str, Hits]:
    """
    What *detector* gets right on *boards* of any product, by label (IoU over 0.33). Raises ModelError, LabelsError.
    """
    shown = _progress(what, len(boards))

    def detect(image: Image) -> list[Defect]:
        next(shown, None)
        try:
            return detector.detect_alone(image)
        except DetectorError as error:
            raise ModelError(f"the model fails on a labelled board: {error}") from None

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
    hits = hits_of(detector, boards.all, labels, what="judging labelled boards")
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
