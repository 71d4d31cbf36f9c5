"""Has a detector judge a folder of labelled boards and their defect-free templates: what evaluate and report share."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import deeppcb
import numpy as np
from rich.console import Console
from rich.progress import track

from station.config import Settings
from station.decide import decide, fails
from station.detectors.backends import open_network
from station.detectors.both import unite
from station.detectors.colour import grey
from station.detectors.find import find_model
from station.detectors.golden import NAME, GoldenDetector
from station.detectors.metric import Hits, Marked, Matched, pair_up
from station.detectors.reference import Reference
from station.detectors.yolo import NetworkDetector
from station.errors import ConfigError, DetectorError, LabelsError
from station.labelled import SUFFIXES, LabelledBoard, Layout, as_marked, load, read_labelled, renumbered
from station.parts import build_limits, build_reference, build_tiling, depth_bits, floor_of
from station.picture import DEEP_BITS
from station.trust import problem_of
from station.types import Defect, Grey, Image, ModelInfo, Recipe

CONFIDENCE = 0.001  # AP is over all thresholds: what a station would not report belongs to it too
SHIFT_PX = 2  # a template is no test for who has it to compare with: it is moved so far, as boards on a line are


@dataclass(frozen=True, slots=True)
class Told:
    """
    What a detector finds on one picture: *every* defect that it is at all sure of, which the curves are drawn from, and
    what the station would have *listed*, from its own confidence on. Where tiles are united the two may differ in more
    than how many there are: what one tile is hardly sure of has a say in what another one saw.
    """

    every: list[Defect]
    listed: list[Defect]


class BoardDetector(Protocol):
    """A detector of the station, told each board's template; *compares*: it has no use for a board without one."""

    @property
    def model(self) -> ModelInfo: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def compares(self) -> bool: ...

    def detect(self, board: Image, template: Path | None) -> Told:
        """Raises DetectorError."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """
    What a detector found on labelled boards and on defect-free templates, and what *recipe* makes of it.

    ``image`` of a box is the index in *boards*, ``class_id`` that in *labels*. *found* and *on_templates*: whatever was
    found, but for what the recipe suppresses; *counted* and *counted_on_templates*: what fails the board on the line.
    *templates* has None where there is none. *blind*: classes do not count. *moved*: the templates were moved by up to
    SHIFT_PX before they were judged. *unknown* and *unknown_templates*: what the station would not judge.
    """

    model: ModelInfo
    labels: tuple[str, ...]
    recipe: Recipe
    boards: tuple[LabelledBoard, ...]
    templates: tuple[Path | None, ...]
    found: tuple[Marked, ...]
    counted: tuple[Marked, ...]
    labelled: tuple[Marked, ...]
    on_templates: tuple[Marked, ...]
    counted_on_templates: tuple[Marked, ...]
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

    @property
    def good(self) -> frozenset[int]:
        """The boards on which nothing is labelled."""
        return frozenset(number for number, board in enumerate(self.boards) if not board.rows)

    def matched(self, right_by: Callable[[float], bool], *, counted: bool = False) -> list[Matched]:
        """Who met whom, by class; of all that was found or only of what was *counted*."""
        boxes, truths = self._plain(self.counted if counted else self.found), self.truths
        return [pair_up(boxes, truths, class_id=kind, right_by=right_by) for kind in range(len(self.classes))]

    def hits(self, right_by: Callable[[float], bool], *, counted: bool = False) -> list[Hits]:
        return [one.hits() for one in self.matched(right_by, counted=counted)]

    def hits_with_templates(self, right_by: Callable[[float], bool]) -> dict[str, Hits]:
        """By class, with the templates among the boards: whatever is found there is a false call."""
        beyond = [replace(one, image=one.image + len(self.boards)) for one in self.on_templates]
        found, truths = self._plain([*self.found, *beyond]), self.truths
        return {
            label: pair_up(found, truths, class_id=kind, right_by=right_by).hits()
            for kind, label in enumerate(self.classes)
        }

    def _plain(self, boxes: Sequence[Marked]) -> Sequence[Marked]:
        return [replace(one, class_id=0) for one in boxes] if self.blind else boxes


class _NetworkJudge:
    """The station's detector on one network; one that compares is given each board's template, registered."""

    def __init__(self, settings: Settings, *, confidence: float) -> None:
        wanted = settings.detector
        file = find_model(wanted.model)
        network = open_network(file.path, backend=wanted.backend, threads=wanted.threads, sha256=file.sha256)
        self._settings = settings
        self._floor = floor_of(settings)
        # One that compares nothing refuses what does not fit the recipe's template, if there is one.
        reference, counts_from = build_reference(settings), settings.recipe.threshold_of
        fails_board = partial(fails, recipe=build_limits(settings))
        self._every = NetworkDetector(
            network,
            name=file.name,
            confidence=min(confidence, self._floor),
            iou=wanted.iou,
            counts_from=counts_from,
            fails=fails_board,
            reference=reference,
            tiling=build_tiling(settings),
        )
        self._line = self._every.beside(reference, confidence=self._floor, counts_from=counts_from, fails=fails_board)
        self.model = self._every.model
        self.labels = self._every.labels
        self.compares = self._every.paired

    def detect(self, board: Image, template: Path | None) -> Told:
        beside = self._registered(board, template) if self.compares and template is not None else None

        def by(detector: NetworkDetector) -> list[Defect]:
            return detector.detect(board) if beside is None else detector.detect_beside(board, beside)

        every = by(self._every)
        if self._every.cuts(board):
            return Told(every, by(self._line))
        return Told(every, _from(self._floor, every))

    def _registered(self, board: Image, template: Path) -> Grey:
        try:
            reference = _reference(template, self._settings)
        except ConfigError:  # one of one colour, which a station refuses: of a pair it lies anywhere alike
            picture = load(template, depth_bits=depth_bits(self._settings))
            return grey(picture)
        return reference.register(board).template


class GoldenJudge:
    """The comparison with each board's own template."""

    model = ModelInfo(NAME, "")
    labels = GoldenDetector.labels
    compares = True

    def __init__(self, settings: Settings, *, confidence: float) -> None:
        self._settings = settings
        self._floor = floor_of(settings)
        self._confidence = min(confidence, self._floor)

    def detect(self, board: Image, template: Path | None) -> Told:
        if template is None:
            raise DetectorError("no template to compare with")
        try:
            reference = _reference(template, self._settings)
        except ConfigError as error:
            raise DetectorError(str(error)) from None
        every = GoldenDetector(reference, confidence=self._confidence).detect(board)
        return Told(every, _from(self._floor, every))


def open_detector(settings: Settings, *, confidence: float = CONFIDENCE) -> BoardDetector:
    """
    The station's own detector, of the model that *settings* name, which also tells what it is sure of by *confidence*.

    Raises ModelError and ConfigError.
    """
    return _NetworkJudge(settings, confidence=confidence)


class BothJudge:
    """What the network or the comparison finds, united as on the line."""

    compares = True

    def __init__(self, network: BoardDetector, golden: BoardDetector, *, recipe: Recipe) -> None:
        self.model = ModelInfo(f"{network.model.name}+{golden.model.name}", network.model.sha256)
        self.labels = (*network.labels, *golden.labels)
        self._network = network
        self._golden = golden
        self._recipe = recipe

    def detect(self, board: Image, template: Path | None) -> Told:
        golden = self._golden.detect(board, template)  # first, as on the line
        network = self._network.detect(board, template)
        return Told(self._united(network.every, golden.every), self._united(network.listed, golden.listed))

    def _united(self, network: Sequence[Defect], golden: Sequence[Defect]) -> list[Defect]:
        return unite(network, golden, recipe=self._recipe, found_by=self.model.name)


def _reference(template: Path, settings: Settings) -> Reference:
    """*template* as the recipe of *settings* would use it. Raises ConfigError."""
    recipe = settings.recipe.model_copy(update={"template": template})
    reference = build_reference(settings.model_copy(update={"recipe": recipe}))
    assert reference is not None
    return reference


def _from(confidence: float, defects: Sequence[Defect]) -> list[Defect]:
    return [one for one in defects if one.confidence >= confidence]


def part_of(root: Path, split: str | None) -> str:
    """*split*, or what stands for None: the part that is kept to judge, where there is one, else all boards."""
    kept = (root / "val.txt").is_file() or (root / "images" / "val").is_dir()
    return split or ("val" if kept else "all")


def choose(root: Path, *, split: str, families: Sequence[str] = (), depth_bits: int = DEEP_BITS) -> list[LabelledBoard]:
    """
    Boards of a part of *root*, and only of *families*, the starts of names. Raises LabelsError if there is none.

    They may all be good ones, without a label. *depth_bits*: how many of 16 bits their pictures use.
    """
    boards = read_labelled(root, split=split, depth_bits=depth_bits, unlabelled=True)
    if families:
        boards = [one for one in boards if Path(one.name).name.startswith(tuple(families))]
    if not boards:
        raise LabelsError(f"no board of {root} ({split}) has a name that starts with {' or '.join(families)}")
    return boards


def judge(
    detector: BoardDetector,
    boards: Sequence[LabelledBoard],
    *,
    recipe: Recipe,
    templates: Path | None,
    blind: bool = False,
) -> Judgement:
    """
    Judges all *boards* by *recipe*, and each one's file of the same name in *templates*.

    *blind*: any label is right for any class, for detectors that know others. What it refuses to judge, or the recipe
    does, is UNKNOWN, as on the line. Raises LabelsError for boards that it cannot be measured with.
    """
    names = _names(detector, boards, blind=blind)
    labels = tuple(dict.fromkeys([*names, *detector.labels]))
    boards = renumbered([replace(one, names=None) for one in boards] if blind else boards, names)
    partners = [_beside(templates, board) for board in boards]
    if detector.compares and None in partners:
        missing = boards[partners.index(None)].name
        where = f"{templates} has none for {missing}" if templates else "there is no folder of them"
        raise LabelsError(f"{detector.model.name} compares each board with its template, but {where}: use --templates")
    truths: list[Marked] = []
    on_boards, on_templates = _Seen(detector, recipe, labels), _Seen(detector, recipe, labels)
    progress = track(boards, description="judging boards", console=Console(stderr=True))
    for number, (board, partner) in enumerate(zip(progress, partners, strict=True)):
        image = load(board.picture, depth_bits=board.depth_bits)
        truths += board.marked(number, height_px=image.shape[0], width_px=image.shape[1])
        on_boards.look(image, partner, number)
        if partner is not None:
            good = load(partner, depth_bits=board.depth_bits)
            on_templates.look(_moved(good, board.name) if detector.compares else good, partner, number)
    return Judgement(
        detector.model,
        labels,
        recipe,
        tuple(boards),
        tuple(partners),
        found=tuple(on_boards.found),
        counted=tuple(on_boards.counted),
        labelled=tuple(truths),
        on_templates=tuple(on_templates.found),
        counted_on_templates=tuple(on_templates.counted),
        blind=blind,
        moved=detector.compares,
        unknown=frozenset(on_boards.unknown),
        unknown_templates=frozenset(on_templates.unknown),
    )


class _Seen:
    """What was seen on one picture after the other."""

    def __init__(self, detector: BoardDetector, recipe: Recipe, labels: Sequence[str]) -> None:
        self.found: list[Marked] = []
        self.counted: list[Marked] = []
        self.unknown: set[int] = set()
        self._detector = detector
        self._recipe = recipe
        self._labels = labels

    def look(self, image: Image, template: Path | None, number: int) -> None:
        """Has picture *number* judged as the line would have it judged."""
        recipe = self._recipe
        if problem_of(image, min_contrast=recipe.min_contrast, limits=recipe.trust) is not None:
            self.unknown.add(number)
            return
        try:
            told = self._detector.detect(image, template)
        except DetectorError:
            self.unknown.add(number)
            return
        shown = [one.defect for one in decide(told.every, recipe).defects]
        counted = [one.defect for one in decide(told.listed, recipe).defects if one.counts]
        self.found += as_marked(shown, number, self._labels)
        self.counted += as_marked(counted, number, self._labels)


def _names(detector: BoardDetector, boards: Sequence[LabelledBoard], *, blind: bool) -> tuple[str, ...]:
    """What class k of the label files is called."""
    if boards[0].layout is Layout.DEEPPCB and (blind or set(deeppcb.CLASSES) <= set(detector.labels)):
        return deeppcb.CLASSES
    if not blind:
        return detector.labels
    most = max((row.class_id for one in boards for row in one.rows), default=-1)
    return tuple(f"class {kind}" for kind in range(1 + most))


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
