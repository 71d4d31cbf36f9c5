"""Letterbox: any picture, or any three planes, into the network's own input, in buffers that are allocated once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from station.detectors.network import BLOCK_PX, PIXEL_BYTES, Input, Tensor
from station.types import Box, Grey, Image

PAD = 114  # the grey that YOLO networks are trained with around the picture
STRIP_ROWS = 128  # converted at a time: they stay in the cache. 32 to 320 are as fast, all 640 a fifth slower


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a picture lies in the network's input: *width_px* x *height_px* there, from (*left_px*, *top_px*) on."""

    picture_width_px: int
    picture_height_px: int
    width_px: int
    height_px: int
    left_px: int
    top_px: int

    def box(self, x1: float, y1: float, x2: float, y2: float) -> Box | None:
        """Corners in the network's input as a box in the picture, clipped to it; None if all of it lies in the pad."""
        across = self.picture_width_px / self.width_px  # not one scale for both: the size there is rounded to pixels
        down = self.picture_height_px / self.height_px
        left = min(max((x1 - self.left_px) * across, 0.0), float(self.picture_width_px))
        right = min(max((x2 - self.left_px) * across, 0.0), float(self.picture_width_px))
        top = min(max((y1 - self.top_px) * down, 0.0), float(self.picture_height_px))
        bottom = min(max((y2 - self.top_px) * down, 0.0), float(self.picture_height_px))
        if right <= left or bottom <= top:
            return None
        return Box(left, top, right - left, bottom - top)


class Letterbox:
    """
    Scales to fit, centres, pads with grey, and makes of bytes what a network takes (*given*): 0..1, or bytes.

    One instance, one thread: ``tensor`` is overwritten by every call. All pictures of a *batch* have one size. Sides
    are rounded as ultralytics rounds them. *stretch*: each side is scaled by itself, and there is no pad.
    """

    def __init__(self, given: Input, *, batch: int = 1, stretch: bool = False) -> None:
        dtype = given.dtype
        self._given = given
        self._pad = PAD if dtype is np.uint8 else PAD / 255
        self.tensor: Tensor = np.full(given.shape(batch), self._pad, dtype)
        # By table: 0.36 ms at 640 x 640, a multiplication 0.65; and as fast for float16, which OpenCV and numpy convert
        # slowly: its bit patterns are looked up. Bytes need none.
        bits = np.dtype(np.uint16 if dtype is np.float16 else dtype)
        self._table: NDArray[np.uint16 | np.float32] | None = None
        if dtype is not np.uint8:
            self._table = (np.arange(256, dtype=np.float32) / 255).astype(dtype).view(bits)
        self._pictures: NDArray[np.uint16 | np.float32 | np.uint8] = self.tensor.view(bits)
        self._stretch = stretch
        self._placement: Placement | None = None
        self._scaled: Image | None = None
        self._strips: list[Grey] = []
        self._strip: Grey | None = None
        self._scaled_planes: list[Grey] = []

    def fill(self, image: Image, *, at: int = 0) -> Placement:
        """
        Puts *image* (H x W x 3 BGR) into ``tensor[at]``, red first.

        A picture that fits as it is, or needs only the pad, costs no scaling.
        """
        placement = self._place(image.shape[0], image.shape[1])
        size = (placement.height_px, placement.width_px)
        if size != image.shape[:2]:
            if self._scaled is None:
                self._scaled = np.empty((*size, 3), np.uint8)
            image = cv2.resize(image, size[::-1], dst=self._scaled, interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]  # cv2's stubs know no dtype; it stays uint8
        if self._given.blocks:
            self._fill_blocks(placement, at, lambda rows, out: cv2.cvtColor(image[rows], cv2.COLOR_BGR2RGBA, dst=out))
            return placement
        inside = self._inside(placement, at)
        if self._table is None:
            cv2.split(image, list(inside[::-1]))  # BGR to RGB
        else:
            if not self._strips:
                self._strips = [np.empty((min(STRIP_ROWS, size[0]), size[1]), np.uint8) for _ in range(3)]
            for row in range(0, placement.height_px, STRIP_ROWS):
                strip = image[row : row + STRIP_ROWS]
                planes = [plane[: len(strip)] for plane in self._strips]
                cv2.split(strip, planes)
                for plane, out in zip(reversed(planes), inside, strict=True):  # BGR to RGB
                    cv2.LUT(plane, self._table, dst=out[row : row + len(strip)])
        return placement

    def fill_planes(self, planes: Sequence[Grey], *, at: int = 0) -> Placement:
        """Puts three *planes* of one size (each H x W) into ``tensor[at]``, in their order."""
        placement = self._place(planes[0].shape[0], planes[0].shape[1])
        size = (placement.height_px, placement.width_px)
        if size != planes[0].shape:
            if not self._scaled_planes:
                self._scaled_planes = [np.empty(size, np.uint8) for _ in planes]
            for plane, scaled in zip(planes, self._scaled_planes, strict=True):
                cv2.resize(plane, size[::-1], dst=scaled, interpolation=cv2.INTER_LINEAR)
            planes = self._scaled_planes
        if self._given.blocks:
            four = [*planes, planes[-1]]
            self._fill_blocks(placement, at, lambda rows, out: cv2.merge([plane[rows] for plane in four], out))
            return placement
        for plane, out in zip(planes, self._inside(placement, at), strict=True):
            if self._table is None:
                out[:] = plane
            else:
                cv2.LUT(plane, self._table, dst=out)
        return placement

    def _inside(self, placement: Placement, at: int) -> NDArray[np.uint16 | np.float32 | np.uint8]:
        """The part of a picture's planes that is not pad."""
        down = slice(placement.top_px, placement.top_px + placement.height_px)
        across = slice(placement.left_px, placement.left_px + placement.width_px)
        return self._pictures[at, :, down, across]

    def _fill_blocks(self, placement: Placement, at: int, pixels: Callable[[slice, Grey], object]) -> None:
        """
        Strip by strip: *pixels* puts the named rows of the picture, four bytes a pixel, where it is told.

        Two pixels of a row are eight bytes of a block, and those below them its other eight.
        """
        height, width = self._given.height_px, self._given.width_px
        if self._strip is None:
            self._strip = np.full((min(STRIP_ROWS, height), width * PIXEL_BYTES), self._pad, np.uint8)
        left, right = placement.left_px, placement.left_px + placement.width_px
        blocks = self.tensor[at].view(np.uint64)
        for top in range(0, height, len(self._strip)):
            strip = self._strip[: height - top]
            first = max(top, placement.top_px)
            end = min(top + len(strip), placement.top_px + placement.height_px)
            if first >= end:
                continue  # all of it is pad, as it was before
            if end - first < len(strip):
                strip[:] = self._pad
            rows = slice(first - placement.top_px, end - placement.top_px)
            pixels(rows, strip.reshape(len(strip), width, PIXEL_BYTES)[first - top : end - top, left:right])
            pairs = strip.view(np.uint64)
            out = blocks[top // BLOCK_PX : (top + len(strip)) // BLOCK_PX]
            out[..., 0], out[..., 1] = pairs[0::BLOCK_PX], pairs[1::BLOCK_PX]

    def _place(self, picture_height: int, picture_width: int) -> Placement:
        """Where a picture goes; buffers and pad are renewed only when that differs from the last picture's place."""
        last = self._placement
        if last is not None and (last.picture_height_px, last.picture_width_px) == (picture_height, picture_width):
            return last
        height, width = self._given.height_px, self._given.width_px
        scale = min(height / picture_height, width / picture_width)
        inside_width = width if self._stretch else max(1, min(width, round(picture_width * scale)))
        inside_height = height if self._stretch else max(1, min(height, round(picture_height * scale)))
        left, top = (width - inside_width) // 2, (height - inside_height) // 2
        self._placement = Placement(picture_width, picture_height, inside_width, inside_height, left, top)
        self._scaled, self._strips, self._strip, self._scaled_planes = None, [], None, []
        self.tensor[:] = self._pad
        return self._placement
