"""Does a model still know the boards that it knew when it came? A locked set with the verdicts of then."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from station.assets import SAMPLES, expected_verdict
from station.detectors.card import USUAL_THRESHOLD, Card, KnownBoard
from station.detectors.colour import grey
from station.detectors.reference import Reference
from station.errors import DetectorError, ModelError
from station.picture import DEEP_BITS, decode
from station.types import Defect, Detector, Grey, Image

PASS, FAIL = "pass", "fail"
PAIR = ("fail-open-44000062.jpg", "pass-template-44000062.jpg")  # of the samples: a board and its template
LOCKED = 12  # boards, half of them bad where there are enough: a start looks at four of them, ``verify`` at all
AT_START = 4
# How far from its threshold the strongest defect of a board must lie to be locked: between onnxruntime, OpenVINO and an
# int8 copy of one network scores differ by a few hundredths, and a self-test must not fail for that. Near 0 and 1 there
# is less room: half of what there is.
MARGIN = 0.1

_Item = TypeVar("_Item")

Read = Callable[[str, str], bytes]
"""The picture of a file name and sha256; raises ModelError when it is not the one that was locked."""


@runtime_checkable
class Comparing(Protocol):
    """The part of a detector that compares boards with a template, where it is *paired*."""

    @property
    def paired(self) -> bool: ...

    def detect_alone(self, image: Image) -> list[Defect]: ...

    def detect_beside(self, image: Image, template: Grey) -> list[Defect]: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    A board that somebody has judged, and which may be locked: *bad* if it has a defect; *template*: its own.

    *depth_bits*: how many of 16 bits these pictures use.
    """

    picture: Path
    bad: bool
    template: Path | None = None
    depth_bits: int = DEEP_BITS


@dataclass(frozen=True, slots=True)
class Locked:
    """Boards for the self-test with their pictures by file name; *passed_over*: candidates that the model got wrong."""

    boards: tuple[KnownBoard, ...]
    pictures: dict[str, Path]
    passed_over: int


def lock(detector: Detector, candidates: Iterable[Candidate], *, threshold: Callable[[str], float]) -> Locked:
    """
    Chooses boards that *detector* judges right and clearly, and notes what it says; stops when there are enough.

    Raises ModelError where it judges none of the bad ones right: it is no model for them. Of a detector that compares,
    only boards with a template can be locked.
    """
    beside = compares(detector)
    chosen: dict[str, list[tuple[KnownBoard, Candidate]]] = {PASS: [], FAIL: []}
    asked = {PASS: 0, FAIL: 0}
    for one in candidates:
        expected = FAIL if one.bad else PASS
        if len(chosen[expected]) >= LOCKED // 2 or (beside and one.template is None):
            continue
        asked[expected] += 1
        data = one.picture.read_bytes()
        template = one.template.read_bytes() if beside and one.template is not None else None
        try:
            found = _detect(detector, data, template, depth_bits=one.depth_bits)
        except DetectorError:
            continue
        best = _strongest(found, threshold)
        counts = best is not None and best.confidence >= threshold(best.label)
        clear = best is None or abs(best.confidence - threshold(best.label)) >= _margin(threshold(best.label))
        if (FAIL if counts else PASS) == expected and clear:
            name = f"{expected}-{len(chosen[expected]) + 1:02d}{one.picture.suffix.lower()}"
            label, confidence = (best.label, best.confidence) if best is not None and counts else (None, 0.0)
            known = KnownBoard(name, _digest(data), expected, label, round(confidence, 4), depth_bits=one.depth_bits)
            if template is not None and one.template is not None:
                file = f"template-{name.rpartition('.')[0]}{one.template.suffix.lower()}"
                known = replace(known, template=file, template_sha256=_digest(template))
            chosen[expected].append((known, one))
    if asked[FAIL] and not chosen[FAIL]:
        raise ModelError(
            f"the model finds no clear defect on any of {asked[FAIL]} boards that are labelled with some: "
            "are they of its kind, and are their labels in its order?"
        )
    together = _alternating(chosen[FAIL], chosen[PASS])
    return Locked(
        tuple(board for board, _ in together),
        {board.file: one.picture for board, one in together}
        | {board.template: one.template for board, one in together if board.template and one.template},
        sum(asked.values()) - len(together),
    )


def self_test(detector: Detector, boards: Sequence[KnownBoard], *, card: Card | None, floor: float, read: Read) -> int:
    """
    Has *detector* judge *boards* anew, by the thresholds of *card*; returns how many there were to judge.

    *floor*: the confidence that it was built with. A board whose defect is no longer clear of it is left out: it would
    only tell that this station looks for stronger defects. Raises ModelError naming the first board that differs.
    """
    told = 0
    for board in boards:
        if board.label is not None and board.confidence < floor + MARGIN:
            continue
        if compares(detector) and board.template is None:
            continue

        def threshold(label: str) -> float:
            return USUAL_THRESHOLD if card is None else card.threshold(label)

        try:
            board_and_template = [read(*one) for one in board.pictures()]
            best = _strongest(_detect(detector, *board_and_template, depth_bits=board.depth_bits), threshold)
        except DetectorError as error:
            raise ModelError(f"the model fails its self-test: {board.file} cannot be judged: {error}") from None
        counts = best is not None and best.confidence >= threshold(best.label)
        if (FAIL if counts else PASS) != board.verdict:
            seen = f"{best.label} {best.confidence:.2f}" if best is not None else "no defect"
            raise ModelError(
                f"the model fails its self-test: {board.file} should {board.verdict}, and it sees {seen} there"
            )
        told += 1
    return told


def shipped_boards(*, compared: bool) -> tuple[KnownBoard, ...]:
    """
    The self-test of a shipped model: the samples that a station ships with, but for the one that is cut off.

    *compared*: with a template, for a model that takes one; of the samples one board has its own.
    """
    if compared:
        board, template = PAIR
        return (
            KnownBoard(board, "", FAIL, "any", 1.0, template=template),
            KnownBoard(template, "", PASS, None, 1.0, template=template),
        )
    good, bad = (sorted(one.name for one in SAMPLES.glob(f"{verdict}-*")) for verdict in (PASS, FAIL))
    names = _alternating(bad, good)
    # Their confidence is not noted: 1.0 keeps them in at any floor that a station can be run with.
    return tuple(KnownBoard(one, "", expected_verdict(one), "any" if one in bad else None, 1.0) for one in names)


def read_shipped(file: str, _sha256: str) -> bytes:
    """The picture of one of ``shipped_boards``."""
    try:
        return (SAMPLES / file).read_bytes()
    except OSError as error:
        raise ModelError(f"{SAMPLES / file}: {error.strerror}: install the station again") from None


def sample_pictures() -> list[Path]:
    """Shipped boards with defects: something to judge where the user gave nothing."""
    return sorted(SAMPLES.glob(f"{FAIL}-*"))


def sample_of_size(height_px: int, width_px: int) -> Image:
    """A board of that size, repeated or cut, not scaled: to time a model of another input on."""
    image = decode(sample_pictures()[0].read_bytes())
    if image is None:
        raise ModelError(f"{SAMPLES} is damaged: install the station again")
    down, across = -(-height_px // image.shape[0]), -(-width_px // image.shape[1])
    sized: Image = np.ascontiguousarray(np.tile(image, (down, across, 1))[:height_px, :width_px])
    return sized


def _margin(threshold: float) -> float:
    return min(MARGIN, threshold / 2, (1 - threshold) / 2)


def _strongest(found: Sequence[Defect], threshold: Callable[[str], float]) -> Defect | None:
    """The one that is most above its label's threshold, or least below."""
    return max(found, key=lambda one: one.confidence - threshold(one.label), default=None)


def template_beside(image: Image, template: Image) -> Grey:
    """*template* of this very board, H x W uint8, in the frame of *image*. Raises DetectorError: it does not fit."""
    return Reference(grey(template), name="", sha256="").register(image).template


def compares(detector: Detector) -> bool:
    """Whether *detector* compares each board with its template."""
    return isinstance(detector, Comparing) and detector.paired


def _detect(detector: Detector, data: bytes, template: bytes | None = None, *, depth_bits: int) -> list[Defect]:
    image: Image | None = decode(data, depth_bits=depth_bits)
    if image is None:
        raise DetectorError("its picture cannot be decoded")
    if not isinstance(detector, Comparing):
        return detector.detect(image)
    if not detector.paired:  # known boards are of other products than the template of the recipe
        return detector.detect_alone(image)
    if template is None:
        return detector.detect(image)
    beside = decode(template, depth_bits=depth_bits)
    if beside is None:
        raise DetectorError("its template cannot be decoded")
    return detector.detect_beside(image, template_beside(image, beside))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _alternating(one: Sequence[_Item], other: Sequence[_Item]) -> list[_Item]:
    """First of each, second of each, and so on: any beginning of it has both kinds."""
    shared = min(len(one), len(other))
    pairs: Iterator[_Item] = (item for pair in zip(one, other, strict=False) for item in pair)
    return [*pairs, *one[shared:], *other[shared:]]
