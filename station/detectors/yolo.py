"""A detector made of a network: picture in, defects out; alone, or beside the template of its product."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np

from station.detectors.colour import check_colour, grey
from station.detectors.decode import MAX_DETECTIONS, Layout, decode, layout_of
from station.detectors.network import EXPORT_HINT, PAIR, PLANES, Floats, Network
from station.detectors.preprocess import PAD, Letterbox, Placement
from station.detectors.tiles import MIN_OVERLAP_PX, USUAL_OVERLAP, Window, is_big, merge, plan
from station.errors import DetectorError, ModelError
from station.types import Defect, Grey, Image, ModelInfo

BATCH = 4  # tiles at a time, where the network takes and answers any number


class Registered(Protocol):
    @property
    def template(self) -> Grey:
        """The defect-free board in the frame of the picture, of its size."""


class Reference(Protocol):
    """A product's defect-free template. Raises DetectorError for a picture that it cannot be laid over."""

    def register_grey(self, board: Grey) -> Registered: ...


@dataclass(frozen=True, slots=True)
class Tiling:
    """How big pictures are cut: *size_px* None: as the network's input is; *overlap_px* None: a fifth of a tile."""

    size_px: int | None = None
    overlap_px: int | None = None


Fill = Callable[[Letterbox, Window, int], Placement]
"""Puts what a window shows into a letterbox, at a place in its batch."""


@dataclass(slots=True)
class _Desk:
    """The memory that judging one picture takes: kept from one to the next, and never shared by two at a time."""

    one: Letterbox
    many: Letterbox | None = None  # made when the first big picture comes
    grey: tuple[Grey, Grey] = field(default_factory=lambda: (np.empty((0, 0), np.uint8), np.empty((0, 0), np.uint8)))


class NetworkDetector:
    """
    Implements ``types.Detector`` on any ``Network``: letterbox, run, decode. *fails*: whether a defect alone fails the
    board; None: any does that reaches *counts_from*.

    Boxes are in pixels of the original image, clipped to it, best first. What lies wholly outside the image is dropped,
    unless all that counts lies there: then the picture is not judged, as when more counts than can be listed, or for
    boxes that make no sense. *counts_from*: the score, by label, from which a detection can fail the board; None: from
    *confidence* on. *tiling* None: any picture is scaled to fit; else one larger than the network's input is cut into
    tiles. *reference*: a board that does not fit it is not judged, and a network that compares (``paired``) sees it
    beside the board. Raises ModelError at construction for a network that is not such a detector: what to do about it.
    """

    def __init__(
        self,
        network: Network,
        *,
        name: str,
        confidence: float,
        iou: float,
        counts_from: Callable[[str], float] | None = None,
        fails: Callable[[Defect], bool] | None = None,
        reference: Reference | None = None,
        tiling: Tiling | None = None,
    ) -> None:
        self.model = ModelInfo(name, network.sha256)
        self.labels = network.labels
        self.input_size = (network.input.height_px, network.input.width_px)
        planes = network.metadata.get(PLANES)
        if planes not in {None, "bgr", PAIR}:
            raise ModelError(f"{network.path} takes {planes} ({PLANES}), which this station cannot make: update it")
        self.paired = planes == PAIR
        self._network = network
        self._confidence = confidence
        self._iou = iou
        self._counts = [confidence if counts_from is None else counts_from(label) for label in self.labels]
        self._fails = fails or self._reaches
        self._tiling = tiling
        self._reference = reference
        # RT-DETR is trained on pictures that are stretched to its input, and on ultralytics' word for what it is.
        self._detr = network.metadata.get("head") == "RTDETRDecoder" or (
            "head" not in network.metadata and "rtdetr" in network.metadata.get("description", "").lower()
        )
        self._desks: list[_Desk] = [self._new_desk()]
        self._on_half = False
        self._layout, self._most_rows = self._find_layout()
        # Exports with NMS suppress for as many pictures as they were made for, mostly one, and find nothing in further
        # ones, whatever batch they take. On processors a batch gains nothing.
        self._batch = network.input.batch or (1 if self._layout is Layout.FINAL else BATCH)
        self._tile_px, self._overlap_px = self._tile_size(tiling)
        self._windows: tuple[Window, ...] = ()

    def beside(
        self,
        reference: Reference | None,
        *,
        confidence: float,
        counts_from: Callable[[str], float],
        fails: Callable[[Defect], bool],
    ) -> NetworkDetector:
        """Another detector on the same network, for another product: its template, and what it lists."""
        return NetworkDetector(
            self._network,
            name=self.model.name,
            confidence=confidence,
            iou=self._iou,
            counts_from=counts_from,
            fails=fails,
            reference=reference,
            tiling=self._tiling,
        )

    def half(self) -> NetworkDetector:
        """The same, for two pictures at a time, each on half of the cores. Raises ModelError."""
        self._network.halve()
        other = copy(self)  # it shares the desks: no more of them than are needed at a time
        other._on_half = True  # noqa: SLF001  # of its own kind
        return other

    @property
    def computed_by(self) -> str:
        """What runs the network, in one phrase."""
        return self._network.computed_by

    @property
    def description(self) -> str:
        """One line for ``station check``."""
        height, width = self.input_size
        return (
            f"{self.model.name} ({len(self.labels)} labels: {', '.join(self.labels)}; {width}x{height}"
            f"{', beside the template' if self.paired else ''}; {self._network.computed_by}; "
            f"sha256 {self.model.sha256[:12]})"
        )

    def warm_up(self) -> None:
        """Judges one grey picture, so that the first board is as fast as the second. Raises ModelError."""
        height, width = self.input_size
        image = np.full((height, width, 3), PAD, np.uint8)
        try:
            if self.paired:
                self.detect_beside(image, image[..., 0])
            else:
                self._judge_plain(image)
        except DetectorError as error:
            raise ModelError(f"{self._network.path}: the model fails on a plain grey picture: {error}") from None

    def detect(self, image: Image) -> list[Defect]:
        """
        *image*: H x W x 3 uint8 BGR. Raises DetectorError when it cannot be judged.
        """
        check_colour(image)
        if self.paired:
            if self._reference is None:
                raise DetectorError(needs_template(self.model.name))
            reference = self._reference
            return self._judge_beside(image, lambda board: reference.register_grey(board).template)
        if self._reference is not None:
            # It does not compare, but a board of another product, or out of place, is not to be judged.
            self._reference.register_grey(grey(image))
        return self._judge_plain(image)

    def cuts(self, image: Image) -> bool:
        """Whether *image* is judged in tiles."""
        return len(self._cut(*image.shape[:2])) > 1

    def detect_alone(self, image: Image) -> list[Defect]:
        """As ``detect``, for a board of any product: what has no reference is not compared. Raises DetectorError."""
        check_colour(image)
        return self._judge_plain(image)

    def detect_beside(self, image: Image, template: Grey) -> list[Defect]:
        """As ``detect``, for a network that compares: with *template*, H x W uint8, in the frame of *image*."""
        check_colour(image)
        return self._judge_beside(image, lambda _: template)

    def _judge_beside(self, image: Image, template_for: Callable[[Grey], Grey]) -> list[Defect]:
        """*template_for* gives the template in the frame of the board, which it is shown in grey."""
        with self._desk() as desk:
            if desk.grey[0].shape != image.shape[:2]:
                desk.grey = (np.empty(image.shape[:2], np.uint8), np.empty(image.shape[:2], np.uint8))
            board, difference = desk.grey
            cv2.cvtColor(image, cv2.COLOR_BGR2GRAY, dst=board)
            template = template_for(board)
            if template.shape != board.shape:
                raise DetectorError(f"the template is {template.shape}, the picture {board.shape} (height, width)")
            cv2.absdiff(board, template, dst=difference)
            planes = (board, template, difference)
            return self._judge(
                image, desk, lambda box, window, at: box.fill_planes([window.of(plane) for plane in planes], at=at)
            )

    def _judge_plain(self, image: Image) -> list[Defect]:
        with self._desk() as desk:
            return self._judge(image, desk, lambda box, window, at: box.fill(window.of(image), at=at))

    def _judge(self, image: Image, desk: _Desk, fill: Fill) -> list[Defect]:
        windows = self._cut(image.shape[0], image.shape[1])
        if len(windows) == 1:
            placement = fill(desk.one, windows[0], 0)
            return self._read(self._network.run(desk.one.tensor, half=self._on_half), placement)
        if desk.many is None:
            desk.many = self._letterbox(self._batch)
        found: list[list[Defect]] = []
        for first in range(0, len(windows), len(desk.many.tensor)):
            together = windows[first : first + len(desk.many.tensor)]
            placements = [fill(desk.many, window, at) for at, window in enumerate(together)]
            output = self._network.run(desk.many.tensor[: len(together)], half=self._on_half)
            if len(output) != len(together):
                raise DetectorError(f"the network answered {len(output)} times to {len(together)} pictures")
            for at, (window, placement) in enumerate(zip(together, placements, strict=True)):
                found.append([window.placed(one) for one in self._read(output[at : at + 1], placement)])
        return merge(found, windows, iou=self._iou, fails=self._fails)

    def _read(self, output: Floats, placement: Placement) -> list[Defect]:
        found = decode(
            output,
            self._layout,
            confidence=self._confidence,
            iou=self._iou,
            input_size=self.input_size,
            counts=self._counts,
            most_rows=self._most_rows,
        )
        placed = [(self._label(one.class_id), one, placement.box(one.x1, one.y1, one.x2, one.y2)) for one in found]
        counting = [box for _, one, box in placed if one.score >= self._counts[one.class_id]]
        # One may be imagined; if all are, the boxes are of another scale.
        if counting and all(box is None for box in counting):
            raise DetectorError("all that the network found lies beside the picture: are its boxes in other units?")
        return [Defect(label, one.score, box, self.model.name) for label, one, box in placed if box is not None]

    def _cut(self, height: int, width: int) -> tuple[Window, ...]:
        """The tiles of a picture, or all of it as one; the plan of the last picture serves the next of its size."""
        if self._overlap_px is None or not is_big(height, width, tile_px=self._tile_px):
            return (Window(0, 0, width, height),)
        windows = self._windows  # of another thread's picture, perhaps
        last = windows[-1] if windows else Window(0, 0, 0, 0)
        if (last.y + last.height, last.x + last.width) != (height, width):
            windows = self._windows = plan(height, width, tile_px=self._tile_px, overlap_px=self._overlap_px)
        return windows

    def _tile_size(self, tiling: Tiling | None) -> tuple[tuple[int, int], int | None]:
        """Height and width of a tile, and by how many pixels two overlap; None: nothing is cut."""
        if tiling is None:
            return self.input_size, None
        tile_px = (tiling.size_px, tiling.size_px) if tiling.size_px else self.input_size
        most = min(tile_px) // 2
        if tiling.overlap_px is None:
            if most < MIN_OVERLAP_PX:  # too small a network to be cut for: pictures are scaled
                return tile_px, None
            return tile_px, min(most, max(MIN_OVERLAP_PX, round(min(tile_px) * USUAL_OVERLAP)))
        if not MIN_OVERLAP_PX <= tiling.overlap_px <= most:
            raise ModelError(
                f"[detector] tiles: tiles of {tile_px[1]} x {tile_px[0]} pixels can overlap by {MIN_OVERLAP_PX} to "
                f"{most} pixels, not by {tiling.overlap_px}"
            )
        return tile_px, tiling.overlap_px

    @contextmanager
    def _desk(self) -> Iterator[_Desk]:
        """Nobody else's until the block ends."""
        try:
            desk = self._desks.pop()
        except IndexError:
            desk = self._new_desk()
        try:
            yield desk
        finally:
            self._desks.append(desk)

    def _new_desk(self) -> _Desk:
        return _Desk(self._letterbox(1))

    def _letterbox(self, batch: int) -> Letterbox:
        return Letterbox(self._network.input, batch=batch, stretch=self._detr)

    def _find_layout(self) -> tuple[Layout, int]:
        """What its answers mean, and how many rows they have at most."""
        shape: Sequence[int | None] = self._network.output_shape
        whole = False
        try:
            known = [one for one in shape if one is not None]
            if len(known) != len(shape) or self._detr:  # a run on plain grey tells what the file leaves open
                answer = self._network.run(self._desks[0].one.tensor)
                known, whole = list(answer.shape), bool((answer[..., -1] == np.rint(answer[..., -1])).all())
            layout = layout_of(known, len(self.labels), input_size=self.input_size, detr=self._detr, whole=whole)
        except (ModelError, DetectorError) as error:
            raise ModelError(f"{self._network.path} cannot be used: {error}; {EXPORT_HINT}") from None
        # RT-DETR always gives as many rows; others that leave the number open may give fewer for plain grey.
        rows = known[1] if self._detr else shape[2 if layout is Layout.ROWS else 1]
        return layout, MAX_DETECTIONS if rows is None else rows

    def _reaches(self, defect: Defect) -> bool:
        return defect.confidence >= self._counts[self.labels.index(defect.label)]

    def _label(self, kind: int) -> str:
        if not 0 <= kind < len(self.labels):
            raise DetectorError(f"the network found class {kind}, but knows only {len(self.labels)}")
        return self.labels[kind]


def needs_template(model: str) -> str:
    """What to do about a network that compares and has nothing to compare with."""
    return f"{model} compares each board with its template: set [recipe] template to a picture of a defect-free board"
