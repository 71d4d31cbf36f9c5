"""Letterbox: any picture into the network's own input, in buffers that are allocated once."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from station.types import Image

PAD = 114  # the grey that YOLO networks are trained with around the picture


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the picture lies in the network's input: network pixel = picture pixel * scale + offset."""

    scale: float
    left_px: int
    top_px: int


class Letterbox:
    """
    Scales to fit, centres, pads with grey, and turns H x W x 3 BGR bytes into 1 x 3 x H x W RGB in 0..1.

    One instance, one thread: ``tensor`` is overwritten by every call.
    """

    def __init__(self, *, height: int, width: int, dtype: type[np.float32 | np.float16]) -> None:
        self.tensor: NDArray[np.float32 | np.float16] = np.zeros((1, 3, height, width), dtype)
        self._canvas: Image | None = None  # a line whose pictures have the network's own size never needs it
        self._placed: tuple[int, int, int, int] | None = None

    def fill(self, image: Image) -> Placement:
        """Puts *image* into ``tensor``; a picture of the network's own size costs no scaling."""
        height, width = self.tensor.shape[2:]
        image_height, image_width = image.shape[:2]
        scale = min(height / image_height, width / image_width)
        new_width = max(1, min(width, round(image_width * scale)))
        new_height = max(1, min(height, round(image_height * scale)))
        left, top = (width - new_width) // 2, (height - new_height) // 2
        if (new_height, new_width) == (height, width) == (image_height, image_width):
            source = image
        else:
            place = (left, top, new_width, new_height)
            if self._canvas is None or place != self._placed:
                self._canvas = np.full((height, width, 3), PAD, np.uint8)
                self._placed = place
            window = self._canvas[top : top + new_height, left : left + new_width]
            window[:] = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
            source = self._canvas
        np.multiply(source[..., ::-1].transpose(2, 0, 1), np.float32(1 / 255), out=self.tensor[0], casting="unsafe")
        return Placement(scale, left, top)
