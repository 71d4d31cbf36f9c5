"""Text on a picture: legible, where it was asked for, and never outside."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest

import station
from station.lettering import Size, width_px, write
from station.types import Image

SIZE = Size(capital_px=21, thick_px=1)
INK, GROUND = (255, 255, 255), (40, 0, 0)


def paper(height: int = 60, width: int = 400) -> Image:
    return np.full((height, width, 3), 7, np.uint8)


def written(text: str, at: tuple[int, int] = (10, 30), canvas: Image | None = None) -> Image:
    canvas = paper() if canvas is None else canvas
    write(canvas, text, at, SIZE, INK, on=GROUND)
    return canvas


def test_letters_stand_on_the_line_and_take_what_was_said() -> None:
    canvas = written("HE", at=(10, 30))
    inked = np.argwhere((canvas > 128).all(axis=-1))
    (top, left), (bottom, right) = inked.min(axis=0), inked.max(axis=0)
    assert (top, bottom) == (30 - 21, 30), "a capital's height, on the line"
    assert 10 <= left < right < 10 + width_px("HE", SIZE)
    changed = np.argwhere((canvas != 7).any(axis=-1))
    assert changed.min(axis=0).tolist() == [30 - SIZE.above_px, 10]
    assert changed.max(axis=0).tolist() == [30 + SIZE.below_px - 1, 10 + width_px("HE", SIZE) - 1]


def test_no_letter_is_cut_off_below_or_above() -> None:
    canvas = written(string.printable[:94], canvas=paper(width=2000))
    for row in (30 - SIZE.above_px, 30 + SIZE.below_px - 1):
        assert (canvas[row, 10 : 10 + width_px(string.printable[:94], SIZE)] == GROUND).all()


def test_all_letters_differ() -> None:
    """But for the capital I and the small l, which are one stroke each in this font."""
    letters = string.printable[:95].replace("I", "")
    assert len({written(one).tobytes() for one in letters}) == len(letters) == 94


@pytest.mark.parametrize("text", ["é", "\n", "\x00", "\x7f", "缺"])
def test_what_the_font_does_not_have_is_a_question_mark(text: str) -> None:
    assert np.array_equal(written(f"a{text}b"), written("a?b"))


@pytest.mark.parametrize("at", [(-30, 30), (390, 30), (10, 5), (10, 62), (-999, 30), (10, 999), (500, -500)])
def test_what_does_not_fit_is_left_out(at: tuple[int, int]) -> None:
    whole = written("short 0.93", at=(at[0] + 1000, at[1] + 1000), canvas=paper(2060, 2400))
    assert np.array_equal(written("short 0.93", at=at), whole[1000:1060, 1000:1400])


def test_no_text_changes_nothing() -> None:
    assert np.array_equal(written(""), paper())


def test_nobody_writes_with_the_font_that_opencv_would_load() -> None:
    """9 MB in every station, at the first word."""
    for file in Path(station.__file__).parent.rglob("*.py"):
        assert "cv2.putText" not in file.read_text()
        assert "cv2.getTextSize" not in file.read_text()
