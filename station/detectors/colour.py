"""The pictures that detectors take, and what is grey of them."""

from __future__ import annotations

import cv2
import numpy as np

from station.errors import DetectorError
from station.types import Grey, Image


def check_colour(image: Image) -> None:
    """Raises DetectorError for what is no picture: H x W x 3 uint8, not empty."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise DetectorError(f"not a colour picture of bytes: shape {image.shape}, {image.dtype}")


def grey(image: Image) -> Grey:
    """H x W x 3 BGR as H x W, by the weights of BT.601, as cameras and decoders do it."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
