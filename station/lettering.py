"""
Writes text onto a picture, stroke by stroke, in the simplex letters of the Hershey fonts: ASCII.

OpenCV 5 writes nicer ones, and loads a font for it at the first word: 9 MB and 25 ms in every station.
Source of the format: the Hershey fonts as James Hurt wrote them (``assets/LICENSE-futural``). A line a letter, from the
space on: its number, how many points follow, where it begins and ends, and its points, two characters each: R is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from station.assets import ASSETS
from station.types import Image

FIRST = " "
CAPITAL, ASCENT, DESCENT = 21, 25, 7  # how far capitals, and any letters, reach above the line; and below it; in units
BASELINE = 9  # of a letter's middle
Colour: TypeAlias = tuple[int, int, int]  # BGR
LIFTED = " R"  # the pen
FRACTION_BITS = 4  # of a pixel, for OpenCV


@dataclass(frozen=True, slots=True)
class _Letter:
    """*strokes*: points (x, y) in the font's units, from where the letter begins, on the line and downwards."""

    width: int
    strokes: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, slots=True)
class Size:
    """Of letters, in pixels: how high a capital is, and how thick a stroke."""

    capital_px: int
    thick_px: int

    @property
    def above_px(self) -> int:
        """What a text takes above the line that it stands on."""
        return round(ASCENT * self.units_px) + self.thick_px + 1

    @property
    def below_px(self) -> int:
        """What it takes below that."""
        return round(DESCENT * self.units_px) + self.thick_px + 2

    @property
    def units_px(self) -> float:
        return self.capital_px / CAPITAL


def width_px(text: str, size: Size) -> int:
    """What *text* takes from left to right, in pixels."""
    letters = _letters_of(size)
    return sum(letters[one].shape[1] for one in text)


def write(canvas: Image, text: str, at: tuple[int, int], size: Size, colour: Colour, *, on: Colour) -> None:
    """
    Puts *text* onto *canvas* (height x width x 3), on the line from *at* (x, y) to the right; no ASCII becomes "?".

    Its ground becomes the colour *on*. What does not fit onto the canvas is left out.
    """
    if not text:
        return
    left, top = at[0], at[1] - size.above_px
    letters = _letters_of(size)
    mask = np.concatenate([letters[one] for one in text], axis=1)
    mask = mask[max(0, -top) : max(0, canvas.shape[0] - top), max(0, -left) : max(0, canvas.shape[1] - left)]
    top, left = max(0, top), max(0, left)
    if mask.size:
        canvas[top : top + mask.shape[0], left : left + mask.shape[1]] = cv2.applyColorMap(mask, _shades(on, colour))


@lru_cache(maxsize=32)
def _shades(ground: Colour, colour: Colour) -> NDArray[np.uint8]:
    """From the one to the other, 256 x 1 x 3."""
    return np.round(np.linspace(ground, colour, 256)[:, None]).astype(np.uint8)


class _Masks(dict[str, NDArray[np.uint8]]):
    """Letters of one size, each drawn when it is first asked for."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self._size = size

    def __missing__(self, one: str) -> NDArray[np.uint8]:
        place = ord(one) - ord(FIRST)
        if not 0 <= place < len(_letters()):
            return self["?"]  # not kept: there are a million such signs
        self[one] = mask = _mask(_letters()[place], self._size)
        return mask


@lru_cache(maxsize=8)
def _letters_of(size: Size) -> _Masks:
    return _Masks(size)


def _mask(letter: _Letter, size: Size) -> NDArray[np.uint8]:
    """255 where the letter covers what is below it, 0 where it does not."""
    mask = np.zeros((size.above_px + size.below_px, max(1, round(letter.width * size.units_px))), np.uint8)
    line = np.array((0, size.above_px), np.float32)
    strokes = [np.round((one * size.units_px + line) * (1 << FRACTION_BITS)).astype(np.int32) for one in letter.strokes]
    cv2.polylines(mask, strokes, False, 255, size.thick_px, cv2.LINE_AA, FRACTION_BITS)
    return mask


@cache
def _letters() -> tuple[_Letter, ...]:
    return tuple(_read(line) for line in (ASSETS / "futural.jhf").read_text("ascii").splitlines())


def _read(line: str) -> _Letter:
    points = line[8:]  # behind the letter's number and their count
    left, right = (ord(one) - ord("R") for one in points[:2])
    strokes: list[list[tuple[int, int]]] = [[]]
    for place in range(2, len(points), 2):
        if points[place : place + 2] == LIFTED:
            strokes.append([])
        else:
            across, down = (ord(one) - ord("R") for one in points[place : place + 2])
            strokes[-1].append((across - left, down - BASELINE))
    return _Letter(right - left, tuple(np.array(stroke, np.float32) for stroke in strokes if stroke))
