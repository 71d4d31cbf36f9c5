"""The defect-free template of a product, and where a board lies compared with it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from station.detectors.colour import check_colour, grey
from station.errors import ConfigError, DetectorError, PictureError
from station.picture import DEEP_BITS, read
from station.types import Grey, Image

LIMIT = 0.7  # DeepPCB's boards reach 0.83 but for near-blank ones; 99 of 100 of another family's stay below 0.35
COARSE_PX = 160  # long side of the pictures that are compared first: traces of 8 px at 640 are still seen
REACH = 16  # a board may lie off by a 16th of its long side (40 px of 640): beyond, the fixture is the trouble
SUSPECT = 0.9  # a correlation below which a rotation is looked for in any case
BENT_PX = 4  # by how much the corners of a board may want to move further before a rotation is looked for
GAIN = 0.9  # what a rotation must bring the mean difference down to: it has four more parameters to please
MAX_ROTATION_DEG = 5.0
MAX_STRETCH = 0.05
FLAT = 1.0  # standard deviation in grey levels, below which a picture shows nothing
STEPS = 16  # of the descent at each scale; two are usual


@dataclass(frozen=True, slots=True)
class Registered:
    """
    The template as it would look if the camera had seen it where it saw the board.

    *template*: height x width uint8 grey, of the board's size; beyond its own edge its last pixels are repeated, so
    that a strip that the template does not know is still compared with something, and never passes unseen.
    *dx_px*, *dy_px*: how far the board lies to the right of and below its template, at the picture's centre.
    *quality*: the correlation coefficient of the two at 160 pixels, 0 (nothing in common) to 1.
    *rotation_deg* is counter-clockwise; it and *scale* are 0 and 1 unless a shift alone did not fit.
    """

    template: Grey
    dx_px: float
    dy_px: float
    quality: float
    rotation_deg: float = 0.0
    scale: float = 1.0

    @property
    def shift_px(self) -> float:
        return math.hypot(self.dx_px, self.dy_px)


class Reference:
    """
    A product's defect-free template. ``register`` may be called from any thread.

    *template*: height x width uint8 grey. *sha256* (hex) is of the file it came from. *limit*: the least ``quality``
    with which a board is still taken for one of this product. *max_shift_px*: how far a board may lie off it.
    """

    def __init__(
        self, template: Grey, *, name: str, sha256: str, limit: float = LIMIT, max_shift_px: float | None = None
    ) -> None:
        self.max_shift_px = max_shift_px
        self.template = template
        self.name = name
        self.sha256 = sha256
        self._limit = limit
        self._scales = tuple(_scales(template))

    @classmethod
    def read(
        cls, path: Path, *, limit: float = LIMIT, max_shift_px: float | None = None, depth_bits: int = DEEP_BITS
    ) -> Reference:
        """Reads the picture at *path*, decoded as a board's is, *depth_bits* too. Raises ConfigError: what to do."""
        where = f"[recipe] template = {path}"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{where}: cannot be read ({error.strerror}): give the picture of a defect-free board"
            ) from None
        try:
            template = grey(read(data, depth_bits=depth_bits))
        except PictureError as error:
            raise ConfigError(f"{where}: {error}: give a whole picture, taken as the boards' pictures are") from None
        if float(template.std()) < FLAT:
            raise ConfigError(f"{where}: all of one colour: give the picture of a defect-free board")
        sha256 = hashlib.sha256(data).hexdigest()
        return cls(template, name=path.stem, sha256=sha256, limit=limit, max_shift_px=max_shift_px)

    @property
    def description(self) -> str:
        """One line for ``station check``."""
        height, width = self.template.shape
        return f"{self.name} ({width}x{height}; sha256 {self.sha256[:12]})"

    def register(self, image: Image) -> Registered:
        """
        Lays the template over *image* (H x W x 3 uint8 BGR, as large as the template).

        By whole pixels, and by rotation and scale where that does not suffice. Raises DetectorError with the figure
        when the two do not fit: another product, a board that is mirrored or turned, a blank picture, another size; and
        when it lies further off than *max_shift_px*, or than a 16th of the long side to the right, left, top or bottom.
        A layout that is its own mirror image cannot be told from it.
        """
        check_colour(image)
        return self.register_grey(grey(image))

    def register_grey(self, board: Grey) -> Registered:
        """The same for H x W uint8 grey, for those who need that themselves."""
        if board.shape != self.template.shape:
            (height, width), (its_height, its_width) = board.shape, self.template.shape
            raise DetectorError(
                f"the picture is {width} x {height} pixels, its template {its_width} x {its_height}: "
                "take the template anew with this camera and its settings"
            )
        small = _shrunk(board, self._scales[0].factor)
        if float(cv2.meanStdDev(small)[1].item()) < FLAT:
            raise DetectorError("the picture is all of one colour: there is nothing to compare with the template")
        alike = matched(board, self.template)
        if alike is not board:
            small = _shrunk(alike, self._scales[0].factor)
        found = self._shifted(alike, small)
        if found.quality < SUSPECT or _bent(alike, found.template):
            found = self._turned(alike, small, found)
        if found.quality < self._limit:
            raise DetectorError(
                f"the board does not fit its template: correlation {found.quality:.2f} < {self._limit:.2f} "
                "(another product, turned, mirrored, or out of place?)"
            )
        reach_px = max(board.shape) / REACH
        if max(abs(found.dx_px), abs(found.dy_px)) > reach_px:
            raise DetectorError(
                f"out of place: the board lies {found.shift_px:.1f} px off its template, more than {reach_px:g} to the "
                f"right, left, top or bottom (a {REACH}th of the long side): has the camera or the fixture moved?"
            )
        if self.max_shift_px is not None and found.shift_px > self.max_shift_px:
            raise DetectorError(
                f"shifted: the board lies {found.shift_px:.1f} px off its template, more than {self.max_shift_px:g} "
                "(max_shift_px of the trust limits): has the camera or the fixture moved?"
            )
        return found

    def _shifted(self, board: Grey, small: Grey) -> Registered:
        """
        By whole pixels: looked for at 160 pixels within the reach, then followed down to full size.

        *small* here and below: *board* as small as the coarsest scale.
        """
        coarse = self._scales[0]
        reach = max(small.shape) // REACH
        inner = small[reach : small.shape[0] - reach, reach : small.shape[1] - reach]
        if inner.size == 0 or float(inner.std()) < FLAT:  # nothing there but at its edge: no place to be found
            at = _Offset(0, 0)
        else:
            _, _, _, best = cv2.minMaxLoc(cv2.matchTemplate(coarse.template, inner, cv2.TM_CCOEFF_NORMED))
            at = _Offset(best[0] - reach, best[1] - reach)
        factor = coarse.factor
        for scale in self._scales[1:]:
            at = _Offset(round(at.x * factor / scale.factor), round(at.y * factor / scale.factor))
            at = _descend(_shrunk(board, scale.factor), scale.template, at)
            factor = scale.factor
        template = _moved(self.template, at)
        return Registered(template, float(-at.x), float(-at.y), self._quality(small, template))

    def _turned(self, board: Grey, small: Grey, shifted: Registered) -> Registered:
        """Rotation and scale as well, from where the shift has led (ECC, Evangelidis and Psarakis 2008)."""
        height, width = board.shape
        coarse = self._scales[0]  # at 320 pixels as well it took twice as long and found the same
        warp = np.array([[1, 0, -shifted.dx_px / coarse.factor], [0, 1, -shifted.dy_px / coarse.factor]], np.float32)
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
        try:
            _, found = cv2.findTransformECC(
                small,
                coarse.template,
                warp,
                motionType=cv2.MOTION_AFFINE,
                criteria=criteria,
            )
        except cv2.error:  # it did not converge: no such rotation
            return shifted
        warp = np.array(found, np.float32)
        warp[:, 2] *= coarse.factor
        scale_x, scale_y = (math.hypot(*column) for column in warp[:, :2].T.tolist())
        rotation_deg = math.degrees(math.atan2(float(warp[1, 0]), float(warp[0, 0])))
        if abs(rotation_deg) > MAX_ROTATION_DEG or max(abs(scale_x - 1), abs(scale_y - 1)) > MAX_STRETCH:
            return shifted
        template = cv2.warpAffine(
            self.template,
            warp,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        turned = np.asarray(template, np.uint8)
        quality = self._quality(small, turned)
        middle = np.array([width / 2, height / 2])
        off = middle - (warp[:, :2] @ middle + warp[:, 2])
        worse = cv2.norm(board, turned, cv2.NORM_L1) > GAIN * cv2.norm(board, shifted.template, cv2.NORM_L1)
        if worse or quality < shifted.quality or float(np.abs(off).max()) > max(board.shape) / REACH:
            return shifted
        return Registered(turned, float(off[0]), float(off[1]), quality, rotation_deg, 2 / (scale_x + scale_y))

    def _quality(self, small: Grey, template: Grey) -> float:
        coarse = self._scales[0]
        its_small = coarse.template if template is self.template else _shrunk(template, coarse.factor)
        one, other = small.astype(np.float32), its_small.astype(np.float32)
        one -= one.mean()
        other -= other.mean()
        spread = math.sqrt(float(np.vdot(one, one)) * float(np.vdot(other, other)))
        return max(0.0, float(np.vdot(one, other)) / spread) if spread > 0 else 0.0


def matched(board: Grey, template: Grey) -> Grey:
    """*board* with the mean and the spread of *template*: lamps age, and exposures differ. Not changed if near."""
    mean, spread = (float(one.item()) for one in cv2.meanStdDev(board))
    its_mean, its_spread = (float(one.item()) for one in cv2.meanStdDev(template))
    gain = its_spread / spread if spread > 0 else 1.0
    levels = np.arange(256, dtype=np.float32)
    table = np.clip(np.rint((levels - mean) * gain + its_mean), 0, 255)
    if float(np.abs(table - levels).max()) < 8:  # defects make as much: a board need not be darker for a short
        return board
    return np.asarray(cv2.LUT(board, table.astype(np.uint8)), np.uint8)


@dataclass(frozen=True, slots=True)
class _Scale:
    """The template, shrunk by a whole number."""

    factor: int
    template: Grey


class _Offset(NamedTuple):  # and no dataclass: some sixty a board are looked up by it
    """What a pixel of the board shows is in the template so many pixels further right and down."""

    x: int
    y: int


def _scales(template: Grey) -> Iterator[_Scale]:
    factor = max(1, round(max(template.shape) / COARSE_PX))
    while factor > 1:
        yield _Scale(factor, _shrunk(template, factor))
        factor = (factor + 1) // 2
    yield _Scale(1, template)


def _shrunk(picture: Grey, factor: int) -> Grey:
    """In one step: halves of halves are faster, but rounded twice, and three of 2,000 boards then lay elsewhere."""
    if factor == 1:
        return picture
    height, width = picture.shape
    size = (max(1, width // factor), max(1, height // factor))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _descend(board: Grey, template: Grey, start: _Offset) -> _Offset:
    """From *start* to the next offset at which the mean difference has a minimum among its neighbours."""
    height, width = board.shape
    costs: dict[_Offset, float] = {}

    def cost(at: _Offset) -> float:
        if at not in costs:
            left, top, right, bottom = max(0, -at.x), max(0, -at.y), width - max(0, at.x), height - max(0, at.y)
            if right <= left or bottom <= top:
                return math.inf
            there = template[top + at.y : bottom + at.y, left + at.x : right + at.x]
            total = cv2.norm(board[top:bottom, left:right], there, cv2.NORM_L1)
            costs[at] = total / ((right - left) * (bottom - top))
        return costs[at]

    at = start
    for _ in range(STEPS):
        around = (_Offset(at.x + x, at.y + y) for x in (-1, 0, 1) for y in (-1, 0, 1))
        best = min(around, key=cost)
        if cost(best) >= cost(at):
            break
        at = best
    return at


def _bent(board: Grey, template: Grey) -> bool:
    """Whether the four quarters of a board that was shifted want to be shifted further, and not all the same way."""
    middle_y, middle_x = board.shape[0] // 2, board.shape[1] // 2
    quarters = [
        (slice(top, top + middle_y), slice(left, left + middle_x)) for top in (0, middle_y) for left in (0, middle_x)
    ]
    wanted = [_descend(board[quarter], template[quarter], _Offset(0, 0)) for quarter in quarters]
    across, down = [one.x for one in wanted], [one.y for one in wanted]
    return max(max(across) - min(across), max(down) - min(down)) >= BENT_PX


def _moved(template: Grey, at: _Offset) -> Grey:
    if at == _Offset(0, 0):
        return template
    height, width = template.shape
    part = template[max(0, at.y) : height + min(0, at.y), max(0, at.x) : width + min(0, at.x)]
    edges = (max(0, -at.y), max(0, at.y), max(0, -at.x), max(0, at.x))
    return np.asarray(cv2.copyMakeBorder(part, *edges, cv2.BORDER_REPLICATE), np.uint8)
