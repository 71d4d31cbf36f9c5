"""What is no board: too small, or the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from station.assets import SAMPLES
from station.picture import decode
from station.trust import problem_of
from station.types import Image


def noisy(level: int) -> Image:
    """A dark or bright picture as a sensor gives it: no board, but no pixel like the next either."""
    random = np.random.default_rng(1)
    return np.clip(random.normal(level, 8, (480, 640, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("level", [0, 20, 128, 255])
def test_a_lens_cap_a_dead_lamp_and_an_empty_belt_are_no_boards(level: int) -> None:
    assert "no board to be seen" in (problem_of(noisy(level), min_contrast=12.0) or "")


def test_a_picture_so_dark_that_it_may_have_fewer_than_sixteen_bits_says_where_that_is_set() -> None:
    assert "[source] depth_bits" in (problem_of(noisy(20), min_contrast=12.0) or "")
    assert "depth_bits" not in (problem_of(noisy(128), min_contrast=12.0) or "")


def test_zero_judges_any_picture() -> None:
    assert problem_of(noisy(0), min_contrast=0.0) is None


@pytest.mark.parametrize("shape", [(1, 1, 3), (10, 6000, 3), (6000, 31, 3)])
def test_a_strip_is_no_board(shape: tuple[int, int, int]) -> None:
    assert "below 32" in (problem_of(np.zeros(shape, np.uint8), min_contrast=0.0) or "")


@pytest.mark.parametrize("file", sorted(SAMPLES.glob("[fp]*")), ids=lambda one: one.name)
def test_boards_are_boards_in_dim_light_too(file: object) -> None:
    image = decode(SAMPLES.joinpath(str(file)).read_bytes())
    assert image is not None
    assert problem_of((image // 8).astype(np.uint8), min_contrast=12.0) is None
