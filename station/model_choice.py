"""Which model a station starts with: the configured one, tested on boards it knows, or the last one that was good."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from station.config import Settings
from station.detectors import selftest
from station.detectors.choices import Choices, Good
from station.detectors.converted import converted, keep_converted
from station.detectors.find import find_model
from station.detectors.pt import WARNING, Agreement, agreement, convert
from station.detectors.store import SHIPPED, STORE, ModelFile, ModelStore
from station.errors import ConfigError, DetectorError, ModelError
from station.parts import build_detector, floor_of, model_store
from station.picture import decode
from station.types import Defect, Detector, ModelDetector

log = structlog.get_logger(__name__)

LOWEST = 0.001  # a confidence that hides nothing

OnProgress = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Ready:
    """
    A detector that has passed its self-test.

    *fallback*: why it is not of the configured model, or None. *chosen*: what ``[detector] model`` would say to get
    this very model, whatever is chosen in the store meanwhile; None: there is none, or nothing was chosen.
    """

    detector: ModelDetector
    fallback: str | None = None
    chosen: str | None = None


def ready_detector(settings: Settings, *, on_progress: OnProgress) -> Ready:
    """
    The configured model, or the last good one in its place. A .pt is converted first, where it was not before.

    Only a model that knows every label of the one that it stands in for may do so: it would pass the rest. Where nobody
    knows these any more none may, and one that is configured as a file has nobody behind it. Raises ModelError when
    none can be used, ConfigError without a template for one that needs it.
    """
    store, wanted = model_store(settings), settings.detector.model
    try:
        file = configured_model(settings, store, on_progress=on_progress)
        detector = tested_detector(settings, file, store)
    except ModelError as error:
        if _is_file(wanted):
            raise
        good, detector = _stand_in(settings, store, error)
        why = f"{error}: {good.name} judges in its place; choose one with station model use, and restart"
        log.error("model gave way to the last good one", wanted=wanted, model=good.name, reason=str(error))
        return Ready(detector, why, good.name)
    if file.sha256 is not None and not _is_file(wanted):
        _remember(store, Good(file.name, file.sha256, detector.labels))
    return Ready(detector, chosen=wanted if _is_file(wanted) else file.name)


def configured_model(settings: Settings, store: ModelStore, *, on_progress: OnProgress) -> ModelFile:
    """What ``[detector] model`` names; a .pt that was not converted before is converted now. Raises ModelError."""
    pt = Path(settings.detector.model)
    if pt.suffix == ".pt" and pt.is_file() and converted(pt, store) is None:
        log.warning("converting a .pt, once", file=str(pt), beware=WARNING)
        with tempfile.TemporaryDirectory(prefix="station-pt-") as folder:
            onnx, agreed = onnx_of(
                pt, Path(folder), settings, pictures=selftest.sample_pictures(), on_progress=on_progress
            )
            kept = keep_converted(pt, onnx, store)
        log.info("converted", file=str(pt), compared=agreed.compared, score_difference=agreed.largest_score_difference)
        return kept
    return find_model(settings.detector.model, store=store)


def onnx_of(
    pt: Path, folder: Path, settings: Settings, *, pictures: Sequence[Path], on_progress: OnProgress
) -> tuple[Path, Agreement]:
    """*pt* as ONNX in *folder*, which agrees with the original on *pictures*. Raises ModelError."""
    made = convert(pt, folder, pictures=pictures, on_progress=on_progress)
    on_progress("comparing with the original")
    detector = build_detector(seeing_all(settings), ModelFile(made.onnx, pt.stem, None))

    def detect(picture: Path) -> list[Defect]:
        image = decode(picture.read_bytes())
        try:
            return [] if image is None else detector.detect_alone(image)
        except DetectorError as error:
            raise ModelError(f"{pt} cannot be converted: the ONNX fails on a board: {error}") from None

    return made.onnx, agreement(made.told, detect)


def tested_detector(settings: Settings, file: ModelFile, store: ModelStore) -> ModelDetector:
    """*file* loaded, and tested on some of the boards that it must know. Raises ModelError, ConfigError."""
    detector = build_detector(settings, file)
    run_self_test(detector, file, store, floor=floor_of(settings), most=selftest.AT_START)
    return detector


def run_self_test(
    detector: Detector, file: ModelFile, store: ModelStore, *, floor: float, most: int | None = None
) -> int:
    """Tests *detector* on the first *most* boards locked for *file*; returns how many told. Raises ModelError."""
    if file.name in SHIPPED:
        boards = selftest.shipped_boards(compared=selftest.compares(detector))[:most]
        return selftest.self_test(detector, boards, card=None, floor=floor, read=selftest.read_shipped)
    if file.path.parent.parent != store.folder or file.path.parent.name != file.name:
        return 0  # a file of the operator's: it came without boards
    card = store.card(file.name)
    return selftest.self_test(
        detector,
        card.boards[:most],
        card=card,
        floor=floor,
        read=lambda picture, sha256: store.picture(file.name, picture, sha256),
    )


def seeing_all(settings: Settings) -> Settings:
    """*settings* with a detector that reports whatever it sees: for comparing and weighing, not for judging."""
    return settings.with_detector(confidence=LOWEST)


def _stand_in(settings: Settings, store: ModelStore, trouble: ModelError) -> tuple[Good, ModelDetector]:
    """The last good model that still is, and knows all labels of the configured one. Raises ModelError."""
    wanted = settings.detector.model
    hint = "; choose one with station model use NAME" if wanted == STORE else ""
    choices = Choices(store)
    failed = choices.current() if wanted == STORE else wanted
    needed = choices.labels(failed)
    if needed is None:
        raise ModelError(f"{trouble}; no other judges in its place, since nobody knows the labels of {failed}{hint}")
    for one in choices.good():
        if one.name == failed:
            continue
        try:
            detector = tested_detector(settings, find_model(one.name, store=store), store)
        except (ModelError, ConfigError) as error:
            log.warning("model is not good any more", model=one.name, reason=str(error))
            continue
        if needed <= set(detector.labels):  # its own word: what is remembered may be of another file of that name
            return one, detector
        missing = sorted(needed - set(detector.labels))
        log.warning("model knows too little to stand in", model=one.name, wanted=failed, missing=missing)
    raise ModelError(f"{trouble}; no other that has run well knows all its labels{hint}")


def _remember(store: ModelStore, good: Good) -> None:
    try:
        Choices(store).remember(good)
    except ModelError as error:  # it judges all the same; only the next start would not know of it
        log.warning("a good model is not remembered", model=good.name, reason=str(error))


def _is_file(wanted: str) -> bool:
    return Path(wanted).suffix in {".onnx", ".pt"} or "/" in wanted
