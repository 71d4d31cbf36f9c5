"""Is this image fit to be judged? Pure."""

from __future__ import annotations

from dataclasses import dataclass
from operator import lt

import cv2
import numpy as np

from station.types import Grey, Image, TrustLimits

MIN_SIDE_PX = 32  # of less no network and no golden board can tell anything
GRID_PX = 64  # the picture is averaged down to it, so that a sensor's noise is not taken for a board
PATCH_PX = 256  # sharpness is of the finest detail, so it is looked at unscaled, in nine places of this side
PATCHES = 3  # in each direction
DARK = 64  # grey levels: all that 14 of 16 bits make
PARTS = 4  # in each direction, whose light is looked at one by one


@dataclass(frozen=True, slots=True)
class Look:
    """
    What a picture looks like, in figures.

    *brightness*: mean grey level, *contrast*: between its brightest and its darkest place (0..255). *sharpness*: how
    much of its variance lies in its finest detail, in thousandths; blurring takes it away, light and contrast leave it.
    *parts*: mean grey level of each of 4 x 4 parts, row by row.
    """

    width: int
    height: int
    brightness: float
    contrast: float
    sharpness: float
    parts: tuple[float, ...]


def look_at(image: Image) -> Look:
    """The figures of *image* (H x W x 3 uint8 BGR, at least 32 x 32)."""
    height, width = image.shape[:2]
    grey = _small(image)
    return Look(width, height, float(grey.mean()), _contrast(grey), _sharpness(image), _parts(grey))


def problem_of(image: Image, *, min_contrast: float, limits: TrustLimits | None = None) -> str | None:
    """
    Why *image* (H x W x 3 uint8 BGR) cannot be judged, or None: it can.

    *min_contrast*: grey levels (0..255) between its brightest and its darkest place. A lens cap, a lamp that is out or
    a belt without a board show less, and a network finds no defect there. *limits* are what good pictures taught.
    """
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE_PX:
        return f"the picture is {width} x {height} pixels: a board cannot be judged below {MIN_SIDE_PX}"
    grey = _small(image)
    contrast = _contrast(grey)
    if contrast < min_contrast:
        # As dark as a picture of 10 to 14 bits that is taken for one of 16.
        deep = "; a 16-bit picture? See [source] depth_bits" if int(image.max()) < DARK else ""
        return (
            f"there is no board to be seen: contrast {contrast:.0f} < {min_contrast:g} grey levels "
            f"([recipe] min_contrast{deep})"
        )
    return None if limits is None else _beyond(image, grey, limits)


def _beyond(image: Image, grey: Grey, limits: TrustLimits) -> str | None:
    height, width = image.shape[:2]
    if (width, height) != (limits.width, limits.height):
        return f"wrong size: {width} x {height} pixels, and {limits.width} x {limits.height} were learned"
    brightness, contrast, sharpness = float(grey.mean()), _contrast(grey), _sharpness(image)
    dark = sum(map(lt, _parts(grey), limits.min_parts or ()))
    beyond = {
        f"too dark: brightness {brightness:.0f} < {limits.min_brightness:g}": brightness < limits.min_brightness,
        f"too bright: brightness {brightness:.0f} > {limits.max_brightness:g}": brightness > limits.max_brightness,
        f"dark in places: {dark} of {PARTS**2} parts of the picture lack light": dark > 0,
        f"too flat: contrast {contrast:.0f} < {limits.min_contrast:g}": contrast < limits.min_contrast,
        f"out of focus: sharpness {sharpness:.1f} < {limits.min_sharpness:g}": sharpness < limits.min_sharpness,
    }
    return next((f"{what} (trust limits)" for what, true in beyond.items() if true), None)


def _small(image: Image) -> Grey:
    """Halved first where that comes out even, and each cell is of whole pixels: of 640, 0.18 ms and not 0.42."""
    height, width = image.shape[:2]
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    if height % (2 * GRID_PX) == width % (2 * GRID_PX) == 0:
        grey = cv2.resize(grey, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(grey, (min(width, GRID_PX), min(height, GRID_PX)), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]  # cv2's stubs know no dtype; it stays uint8


def _contrast(grey: Grey) -> float:
    return float(int(grey.max()) - int(grey.min()))


def _parts(grey: Grey) -> tuple[float, ...]:
    return tuple(cv2.resize(grey, (PARTS, PARTS), interpolation=cv2.INTER_AREA).ravel().tolist())


def _sharpness(image: Image) -> float:
    """A thousand times the Laplacian's energy over the picture's, in patches all over it; 0 of a blank picture."""
    height, width = image.shape[:2]
    high, wide = min(height, PATCH_PX), min(width, PATCH_PX)
    rows = sorted({round(at) for at in np.linspace(0, height - high, PATCHES)})
    columns = sorted({round(at) for at in np.linspace(0, width - wide, PATCHES)})
    detail = energy = 0.0
    for top in rows:
        for left in columns:
            grey = cv2.cvtColor(image[top : top + high, left : left + wide], cv2.COLOR_BGR2GRAY)
            # A light smoothing first: the sensor's noise is fine detail too, and a picture in the dark is full of it.
            smooth = cv2.GaussianBlur(grey, (3, 3), 0)
            _, fine = cv2.meanStdDev(cv2.Laplacian(smooth, cv2.CV_16S))
            _, whole = cv2.meanStdDev(smooth)
            detail += float(fine.item()) ** 2
            energy += float(whole.item()) ** 2
    return 1000 * detail / energy if energy > 0 else 0.0
