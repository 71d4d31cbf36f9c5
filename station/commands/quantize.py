"""``station model quantize``: an int8 copy of a model, which is only kept where it sees what the original sees."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from station import __version__
from station.commands.boards import boards_of, hits_of, pictures_of, spread
from station.commands.plain import plain
from station.config import Settings
from station.detectors import selftest
from station.detectors.card import Card, Timing, sha256_of
from station.detectors.find import find_model
from station.detectors.metric import Hits, Marked, average_precision, by_coco50, f_score_at, match
from station.detectors.network import Input
from station.detectors.preprocess import Letterbox
from station.detectors.quantize import quantize
from station.detectors.store import ModelFile, ModelStore
from station.detectors.thresholds import counts_at
from station.detectors.yolo import NetworkDetector
from station.errors import DetectorError, LabelsError, ModelError
from station.events import utc_text
from station.labelled import LabelledBoard, as_marked, load
from station.model_choice import run_self_test, seeing_all
from station.parts import build_detector, depth_bits, floor_of, model_store
from station.types import Defect, Image

CALIBRATION = 100  # pictures: with 48 or 300 the mAP on DeepPCB is the same to a tenth of a point
FEW = 40  # boards: fewer are not parted into those to calibrate with and those to judge by
LOST_AP = 0.01  # of mAP, where there are labels
LOST_AGREEMENT = 0.05  # of the agreement with the original, where there are none: near its threshold some defect flips
SURE = 0.25  # the confidence at which the two are compared then: the station's own default
ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Found:
    """How many of the *known* defects of a label count at its threshold: for the original, and for its int8 copy."""

    label: str
    threshold: float
    known: int
    before: int
    after: int

    @property
    def loss(self) -> float:
        return (self.before - self.after) / self.known


@dataclass(frozen=True, slots=True)
class Accuracy:
    """
    Of the original and of its int8 copy, 0..1, by what *measure*, on how many boards; and what they *found* by label.

    The measure is of the order of the scores: a copy whose scores are all halved has the same, and passes every board.
    """

    measure: str
    before: float
    after: float
    boards: int
    found: tuple[Found, ...]

    @property
    def loss(self) -> float:
        return self.before - self.after


def quantize_model(
    settings: Settings, name: str, *, images: Path, as_name: str | None, max_loss: float | None, console: Console
) -> None:
    """
    Makes an int8 copy of the model *name*, compares the two on the boards of *images*, and stores it as NAME-int8.

    *images*: labelled boards, or pictures alone. *max_loss*: of mAP, or of agreement, and of what counts of any label
    at its threshold. Raises ModelError when it loses more or the model cannot be quantised, LabelsError for the folder.
    """
    store = model_store(settings)
    original = find_model(name, store=store)
    target = as_name or f"{original.name}-int8"
    store.check_free(target)
    deep = depth_bits(settings)
    labelled, pictures = _boards(images, deep)
    before = build_detector(seeing_all(settings), original)
    if before.paired:
        raise ModelError(
            f"{original.name} compares boards with their templates: it is quantised where it was trained, by "
            "station.detectors.quantize.quantize with such inputs"
        )
    with tempfile.TemporaryDirectory(prefix="station-quantize-") as folder:
        made = Path(folder) / "model.onnx"
        calibration = spread(pictures, CALIBRATION)
        quantize(original.path, made, calibration=_tensors(calibration, deep, before.input_size))
        file = ModelFile(made, target, sha256_of(made))
        after = build_detector(seeing_all(settings), file)
        thresholds = _thresholds(settings, store, original, before.labels)
        accuracy = (
            _by_labels(before, after, _others(labelled, calibration), thresholds)
            if labelled
            else _by_agreement(before, after, _others_of(pictures, calibration), deep, thresholds)
        )
        figures = f"{accuracy.before:.3f} before, {accuracy.after:.3f} after"
        console.print(plain(f"{accuracy.measure} on {accuracy.boards} boards: {figures}"))
        limit = max_loss if max_loss is not None else LOST_AP if labelled else LOST_AGREEMENT
        if accuracy.loss > limit:
            raise ModelError(
                f"{target} is not kept: it loses {accuracy.loss:.3f} of {accuracy.measure}, and {limit:g} is allowed "
                "(--max-loss); more pictures of typical boards may help"
            )
        # One that lies at its threshold goes to the other side by the rounding alone.
        lost = [one for one in accuracy.found if one.before - one.after > max(1, limit * one.known)]
        if lost:
            said = ", ".join(
                f"of {one.known} {one.label} {one.before} count at {one.threshold:g} before, {one.after} after"
                for one in lost
            )
            raise ModelError(
                f"{target} is not kept: it would pass what {original.name} fails: {said}; one, or {limit:g} of a "
                "label, is allowed (--max-loss); more pictures of typical boards may help"
            )
        old_ms, new_ms = _side_by_side(before, after)
        card, boards = _card(original, store, file, before.labels, before.input_size)
        card = replace(
            card,
            timing=Timing(round(new_ms, 2), ROUNDS, after.computed_by),
            facts={
                "quantized_from": original.name,
                "quantized_from_sha256": before.model.sha256,
                "calibration_pictures": float(len(calibration)),
                "measure": accuracy.measure,
                "before": round(accuracy.before, 4),
                "after": round(accuracy.after, 4),
                "judged_boards": float(accuracy.boards),
                "largest_loss_of_a_label": round(max(one.loss for one in accuracy.found), 4),
            },
        )
        _same_on_known_boards(settings, file, card, store, original)
        store.add(card, model=made, boards=boards)
    console.print(plain(f"{old_ms:.1f} ms a board before, {new_ms:.1f} ms after"))
    console.print(plain(f"{target} is in the store. Use it with: station model use {target}"))


def _boards(images: Path, deep: int) -> tuple[list[LabelledBoard], list[Path]]:
    """Labelled boards, none where nobody has labelled any, and all pictures, which use *deep* of 16 bits."""
    pictures = pictures_of(images)
    if not (images / "labels").is_dir():
        return [], pictures
    labelled = list(boards_of(images, depth_bits=deep).all)
    return labelled, [one.picture for one in labelled]


def _others(labelled: Sequence[LabelledBoard], calibration: Sequence[Path]) -> list[LabelledBoard]:
    """Boards that were not calibrated with, where there are enough of both."""
    if len(labelled) < FEW:
        return list(labelled)
    taken = set(calibration)
    return [one for one in labelled if one.picture not in taken]


def _others_of(pictures: Sequence[Path], calibration: Sequence[Path]) -> list[Path]:
    taken = set(calibration)
    rest = [one for one in pictures if one not in taken]
    return spread(rest if len(rest) >= FEW // 2 else pictures, 2 * CALIBRATION)


def _tensors(pictures: Sequence[Path], deep: int, size_px: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
    box = Letterbox(Input(1, size_px[0], size_px[1], np.float32))
    for picture in track(pictures, description="calibrating", console=Console(stderr=True)):
        box.fill(load(picture, depth_bits=deep))
        yield np.asarray(box.tensor, np.float32).copy()


def _thresholds(settings: Settings, store: ModelStore, original: ModelFile, labels: Sequence[str]) -> dict[str, float]:
    """What a defect of each label needs to count: as the original's card says, else as the recipe does."""
    own = store.card(original.name).thresholds if original.name in store.names() else {}
    recipe = settings.recipe
    return {label: own.get(label, recipe.thresholds.get(label, recipe.threshold)) for label in labels}


def _by_labels(
    before: NetworkDetector, after: NetworkDetector, boards: Sequence[LabelledBoard], thresholds: Mapping[str, float]
) -> Accuracy:
    labels = before.labels
    was, now = (
        hits_of(detector, boards, labels, what=what)
        for detector, what in ((before, "judging with the original"), (after, "judging with the copy"))
    )
    found = tuple(
        Found(label, at, was[label].labelled, _counting(was[label], at), _counting(now[label], at))
        for label, at in thresholds.items()
        if was[label].labelled
    )
    if not found:
        raise LabelsError("none of the boards to judge by has a labelled defect: label more of them")
    first, second = (float(np.nanmean([average_precision(one) for one in hits.values()])) for hits in (was, now))
    return Accuracy("mAP (IoU > 0.33)", first, second, len(boards), found)


def _by_agreement(
    before: NetworkDetector,
    after: NetworkDetector,
    pictures: Sequence[Path],
    deep: int,
    thresholds: Mapping[str, float],
) -> Accuracy:
    """How many of the original's defects the copy finds, and the other way round, as an F-score; the original has 1."""
    labels = before.labels
    was, now = list[Marked](), list[Marked]()
    for number, picture in enumerate(track(pictures, description="comparing", console=Console(stderr=True))):
        image = load(picture, depth_bits=deep)
        was += as_marked(_detect(before, image), number, labels)
        now += as_marked(_detect(after, image), number, labels)
    truths = [one for one in was if one.score >= SURE]
    counting = [one for one in was if one.score >= thresholds[labels[one.class_id]]]
    if not truths or not counting:
        raise LabelsError("the model finds nothing that counts on these pictures: give some of boards with defects")
    hits = [match(now, truths, class_id=kind, right_by=by_coco50) for kind in range(len(labels))]
    same = [match(now, counting, class_id=kind, right_by=by_coco50) for kind in range(len(labels))]
    found = tuple(
        Found(label, thresholds[label], one.labelled, one.labelled, _counting(one, thresholds[label]))
        for label, one in zip(labels, same, strict=True)
        if one.labelled
    )
    return Accuracy("agreement with the original", 1.0, f_score_at(hits, SURE).value, len(pictures), found)


def _counting(hits: Hits, threshold: float) -> int:
    """How many of the known defects were found with *threshold* or more."""
    return hits.labelled - counts_at(hits, threshold)[0]


def _detect(detector: NetworkDetector, image: Image) -> list[Defect]:
    try:
        return detector.detect_alone(image)
    except DetectorError as error:
        raise ModelError(f"the model fails on a picture: {error}") from None


def _side_by_side(before: NetworkDetector, after: NetworkDetector) -> tuple[float, float]:
    """Medians in ms, taken in turns: what else the machine does meets both."""
    image = selftest.sample_of_size(*before.input_size)
    took_ms: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(ROUNDS):
        for number, detector in enumerate((before, after)):
            began_s = time.perf_counter()
            detector.detect_alone(image)
            took_ms[number].append((time.perf_counter() - began_s) * 1000)
    return median(took_ms[0]), median(took_ms[1])


def _card(
    original: ModelFile, store: ModelStore, file: ModelFile, labels: tuple[str, ...], size_px: tuple[int, int]
) -> tuple[Card, dict[str, Path]]:
    """The copy's card, with the original's thresholds and self-test, and where the pictures of that are."""
    made_at, made_by = utc_text(datetime.now(timezone.utc)), f"station {__version__}"
    if original.name not in store.names():
        card = Card(file.name, file.sha256 or "", original.path.name, made_at, made_by, labels, size_px[1], size_px[0])
        return card, {}
    known = store.card(original.name)
    card = replace(known, name=file.name, sha256=file.sha256 or "", made_at=made_at, made_by=made_by)
    folder = store.folder / original.name / "selftest"
    return card, {file: folder / file for board in known.boards for file, _ in board.pictures()}


def _same_on_known_boards(
    settings: Settings, file: ModelFile, card: Card, store: ModelStore, original: ModelFile
) -> None:
    """The copy has to pass the original's self-test before it may be kept."""
    detector = build_detector(settings, file)
    if not card.boards:
        run_self_test(detector, original, store, floor=floor_of(settings))
        return
    read = partial(store.picture, original.name)
    selftest.self_test(detector, card.boards, card=card, floor=floor_of(settings), read=read)
