"""Is this image fit to be judged? Pure."""

from __future__ import annotations

import cv2

from station.types import Image

MIN_SIDE_PX = 32  # of less no network and no golden board can tell anything
GRID_PX = 64  # the picture is averaged down to it, so that a sensor's noise is not taken for a board


def problem_of(image: Image, *, min_contrast: float) -> str | None:
    """
    Why *image* (H x W x 3 uint8 BGR) cannot be judged, or None: it can.

    *min_contrast*: grey levels (0..255) between its brightest and its darkest place. A lens cap, a lamp that is out or
    a belt without a board show less, and a network finds no defect there.
    """
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE_PX:
        return f"the picture is {width} x {height} pixels: a board cannot be judged below {MIN_SIDE_PX}"
    small = cv2.resize(image, (min(width, GRID_PX), min(height, GRID_PX)), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    contrast = int(grey.max()) - int(grey.min())
    if contrast < min_contrast:
        return (
            f"there is no board to be seen: contrast {contrast} < {min_contrast:g} grey levels ([recipe] min_contrast)"
        )
    return None
