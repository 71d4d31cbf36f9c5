"""Has a detector judge a folder of labelled boards and their defect-free templates: what evaluate and report share."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import deeppcb
import numpy as np
from rich.console import Console
from rich.progress import track

from station.detectors.backends import Backend, open_network
from station.detectors.both import BothDetector
from station.detectors.find import find_model
from station.detectors.golden import NAME, GoldenDetector
from station.detectors.metric import Hits, Marked, Matched, pair_up
from station.detectors.reference import Reference
from station.detectors.yolo import NetworkDetector
from station.errors import ConfigError, DetectorError, LabelsError
from station.labelled import SUFFIXES, LabelledBoard, Layout, as_marked, load, read_labelled, renumbered
from station.types import Defect, Image, ModelInfo, Recipe

CONFIDENCE = 0.001  # AP is over all thresholds: what a station would not report belongs to it too
IOU = 0.45  # the station's own limit of overlap
SHIFT_PX = 2  # a template is no test for who has it to compare with: it is moved so far, as boards on a line are


class BoardDetector(Protocol):
    """A detector of the station, told each board's template; *compares*: it has no use for a board without one."""

    @property
    def model(self) -> ModelInfo: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def compares(self) -> bool: ...

    def detect(self, board: Image, template: Path | None) -> list[Defect]: ...


@dataclass(frozen=True, slots=True)
class Judgement:
    """
    What a detector found on labelled boards and on defect-free templates.

    ``image`` of a box is the index in *boards*, ``class_id`` that in *labels*. *templates* has None where there is
    none. *blind*: classes do not count. *moved*: the templates were moved
    by up to SHIFT_PX before they were judged. *unknown* and *unknown_templates*: what the detector refused to judge.
    """

    model: ModelInfo
    labels: tuple[str, ...]
    boards: tuple[LabelledBoard, ...]
    templates: tuple[Path | None, ...]
    found: tuple[Marked, ...]
    labelled: tuple[Marked, ...]
    on_templates: tuple[Marked, ...]
    blind: bool
    moved: bool
    unknown: frozenset[int]
    unknown_templates: frozenset[int]

    @property
    def classes(self) -> tuple[str, ...]:
        """What is counted apart: the labels, or all as one."""
        return ("defect",) if self.blind else self.labels

    @property
    def boxes(self) -> Sequence[Marked]:
        """What was found, by ``classes``."""
        return self._plain(self.found)

    @property
    def truths(self) -> Sequence[Marked]:
        """What is labelled, by ``classes``."""
        return self._plain(self.labelled)

    def matched(self, right_by: Callable[[float], bool], *, recipe: Recipe | None = None) -> list[Matched]:
        """Who met whom, by class; with *recipe* only what counts for it."""
        found = self.found if recipe is None else self.counting(self.found, recipe)
        boxes, truths = self._plain(found), self.truths
        return [pair_up(boxes, truths, class_id=kind, right_by=right_by) for kind in range(len(self.classes))]

    def hits(self, right_by: Callable[[float], bool], *, recipe: Recipe | None = None) -> list[Hits]:
        return [one.hits() for one in self.matched(right_by, recipe=recipe)]

    def hits_with_templates(self, right_by: Callable[[float], bool]) -> dict[str, Hits]:
        """By class, with the templates among the boards: whatever is found there is a false call."""
        beyond = [replace(one, image=one.image + len(self.boards)) for one in self.on_templates]
        found, truths = self._plain([*self.found, *beyond]), self.truths
        return {
            label: pair_up(found, truths, class_id=kind, right_by=right_by).hits()
            for kind, label in enumerate(self.classes)
        }

    def counting(self, found: Sequence[Marked], recipe: Recipe) -> tuple[Marked, ...]:
        """Those at or above the recipe's threshold for their label."""
        return tuple(one for one in found if one.score >= recipe.threshold(self.labels[one.class_id]))

    def _plain(self, boxes: Sequence[Marked]) -> Sequence[Marked]:
        return [replace(one, class_id=0) for one in boxes] if self.blind else boxes


class _NetworkJudge:
    """The station's detector on one network; one that compares is given each board's template, registered."""

    def __init__(self, detector: NetworkDetector) -> None:
        self._detector = detector
        self.model = detector.model
        self.labels = detector.labels
        self.compares = detector.paired

    def detect(self, board: Image, template: Path | None) -> list[Defect]:
        if not self.compares or template is None:
            return self._detector.detect(board)
        try:
            reference = Reference.read(template)
        except ConfigError:  # one of one colour, which a station refuses: of a pair it lies anywhere alike
            return self._detector.detect_beside(board, deeppcb.grey(template))
        return self._detector.detect_beside(board, reference.register(board).template)


class GoldenJudge:
    """The comparison with each board's own template."""

    model = ModelInfo(NAME, "")
    labels = GoldenDetector.labels
    compares = True

    def __init__(self, confidence: float) -> None:
        self._confidence = confidence

    def detect(self, board: Image, template: Path | None) -> list[Defect]:
        if template is None:
            raise DetectorError("no template to compare with")
        try:
            reference = Reference.read(template)
        except ConfigError as error:
            raise DetectorError(str(error)) from None
        return GoldenDetector(reference, confidence=self._confidence).detect(board)


def open_detector(model: str, *, backend: Backend = "auto", confidence: float = CONFIDENCE) -> BoardDetector:
    """The station's own detector for *model*, with its own limit of overlap. Raises ModelError and ConfigError."""
    file = find_model(model)
    network = open_network(file.path, backend=backend, sha256=file.sha256)
    # Nothing is decided here: of a picture with very many detections the best 300 are weighed.
    detector = NetworkDetector(network, name=file.name, confidence=confidence, iou=IOU, counts_from=lambda _: 2.0)
    return _NetworkJudge(detector)


class _Told:
    """A judge of this script as a detector of one board, whose template it was told."""

    def __init__(self, judge: BoardDetector, template: Path | None) -> None:
        self.model = judge.model
        self.labels = judge.labels
        self.description = judge.model.name
        self._judge = judge
        self._template = template

    def half(self) -> _Told:
        return self

    def detect(self, image: Image) -> list[Defect]:
        return self._judge.detect(image, self._template)


class BothJudge:
    """What the network or the comparison finds, united as on the line."""

    compares = True

    def __init__(self, network: BoardDetector, golden: BoardDetector, *, recipe: Recipe) -> None:
        self.model = ModelInfo(f"{network.model.name}+{golden.model.name}", network.model.sha256)
        self.labels = (*network.labels, *golden.labels)
        self._network = network
        self._golden = golden
        self._recipe = recipe

    def detect(self, board: Image, template: Path | None) -> list[Defect]:
        network, golden = _Told(self._network, template), _Told(self._golden, template)
        return BothDetector(network, golden, recipe=self._recipe).detect(board)


def part_of(root: Path, split: str | None) -> str:
    """*split*, or what stands for None: the part that is kept to judge, where there is one, else all boards."""
    kept = (root / "val.txt").is_file() or (root / "images" / "val").is_dir()
    return split or ("val" if kept else "all")


def choose(root: Path, *, split: str, families: Sequence[str] = ()) -> list[LabelledBoard]:
    """Boards of a part of *root*, and only of *families*, the starts of names. Raises LabelsError if there is none."""
    boards = read_labelled(root, split=split)
    if families:
        boards = [one for one in boards if Path(one.name).name.startswith(tuple(families))]
    if not boards:
        raise LabelsError(f"no board of {root} ({split}) has a name that starts with {' or '.join(families)}")
    return boards


def judge(
    detector: BoardDetector, boards: Sequence[LabelledBoard], *, templates: Path | None, blind: bool = False
) -> Judgement:
    """
    Judges all *boards*, and each one's file of the same name in *templates*.

    *blind*: any label is right for any class, for detectors that know others. What it refuses to judge is UNKNOWN, as
    on the line. Raises LabelsError for boards that it cannot be measured with.
    """
    names = _names(detector, boards, blind=blind)
    labels = tuple(dict.fromkeys([*names, *detector.labels]))
    boards = renumbered([replace(one, names=None) for one in boards] if blind else boards, names)
    partners = [_beside(templates, board) for board in boards]
    if detector.compares and None in partners:
        missing = boards[partners.index(None)].name
        where = f"{templates} has none for {missing}" if templates else "there is no folder of them"
        raise LabelsError(f"{detector.model.name} compares each board with its template, but {where}: use --templates")
    found: list[Marked] = []
    truths: list[Marked] = []
    on_templates: list[Marked] = []
    unknown: set[int] = set()
    unknown_templates: set[int] = set()
    progress = track(boards, description="judging boards", console=Console(stderr=True))
    for number, (board, partner) in enumerate(zip(progress, partners, strict=True)):
        image = load(board.picture)
        truths += board.marked(number, height_px=image.shape[0], width_px=image.shape[1])
        try:
            found += as_marked(detector.detect(image, partner), number, labels)
        except DetectorError:
            unknown.add(number)
        if partner is None:
            continue
        good = load(partner)
        try:
            seen = _moved(good, board.name) if detector.compares else good
            on_templates += as_marked(detector.detect(seen, partner), number, labels)
        except DetectorError:
            unknown_templates.add(number)
    return Judgement(
        detector.model,
        labels,
        tuple(boards),
        tuple(partners),
        tuple(found),
        tuple(truths),
        tuple(on_templates),
        blind=blind,
        moved=detector.compares,
        unknown=frozenset(unknown),
        unknown_templates=frozenset(unknown_templates),
    )


def _names(detector: BoardDetector, boards: Sequence[LabelledBoard], *, blind: bool) -> tuple[str, ...]:
    """What class k of the label files is called."""
    if boards[0].layout is Layout.DEEPPCB and (blind or set(deeppcb.CLASSES) <= set(detector.labels)):
        return deeppcb.CLASSES
    if not blind:
        return detector.labels
    return tuple(f"class {kind}" for kind in range(1 + max(row.class_id for one in boards for row in one.rows)))


def _beside(templates: Path | None, board: LabelledBoard) -> Path | None:
    if templates is None:
        return None
    name = Path(board.name).name
    candidates = (templates / f"{name}{suffix}" for suffix in (board.picture.suffix, *sorted(SUFFIXES)))
    return next((one for one in candidates if one.is_file()), None)


def _moved(image: Image, name: str) -> Image:
    """*image* moved by up to SHIFT_PX each way, always the same for one *name*; its border pixels are repeated."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    right_px, down_px = generator.integers(-SHIFT_PX, SHIFT_PX + 1, 2)
    height_px, width_px = image.shape[:2]
    rows = np.clip(np.arange(height_px) - down_px, 0, height_px - 1)
    columns = np.clip(np.arange(width_px) - right_px, 0, width_px - 1)
    return np.ascontiguousarray(image[rows][:, columns])
