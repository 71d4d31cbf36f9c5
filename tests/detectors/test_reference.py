"""The template of a product: read once, and laid over each board, or the board is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from station.detectors.reference import LIMIT, Reference
from station.errors import ConfigError, DetectorError
from station.types import Grey
from tests.detectors.layouts import layout, photo, shifted, turned


def reference(template: Grey) -> Reference:
    return Reference(template, name="product-7", sha256="")


def unlike(one: Grey, other: Grey) -> float:
    """Mean difference in grey levels, away from the edges of the picture."""
    return float(cv2.absdiff(one, other)[48:-48, 48:-48].mean())


@pytest.mark.parametrize(("right_px", "down_px"), [(0, 0), (1, 0), (-3, 2), (7, -9), (24, -31), (-38, 38)])
def test_a_shift_is_found_to_the_pixel(right_px: int, down_px: int) -> None:
    template = layout(1)
    board = shifted(template, right_px, down_px)
    found = reference(template).register(photo(board, noise=3))
    assert (found.dx_px, found.dy_px) == (right_px, down_px)
    assert (found.rotation_deg, found.scale) == (0.0, 1.0)
    assert found.template.shape == board.shape
    assert (found.template[48:-48, 48:-48] == board[48:-48, 48:-48]).all()
    assert found.quality > 0.8


@pytest.mark.parametrize(("width", "height", "reach_px"), [(640, 640, 40), (900, 600, 56.25)])
def test_a_board_that_lies_off_by_more_than_a_16th_of_its_long_side_is_refused_with_the_figure(
    width: int, height: int, reach_px: float
) -> None:
    template = layout(1, width=width, height=height)
    known = reference(template)
    inside, outside = int(reach_px) - 1, int(reach_px) + 5
    assert known.register(photo(shifted(template, inside, -inside))).dx_px == inside
    for x, y in ((outside, 0), (0, -outside), (-outside - 15, 10)):
        off = rf"lies {max(abs(x), abs(y))}\.?\d* px off its template, more than {reach_px:g} "
        with pytest.raises(DetectorError, match=off):
            known.register(photo(shifted(template, x, y)))


def test_a_board_in_its_place_gets_the_template_as_it_is() -> None:
    template = layout(2)
    found = reference(template).register(photo(template))
    assert found.template is template
    assert 0.99 < found.quality <= 1.0


@pytest.mark.parametrize(("degrees", "scale"), [(0.7, 1.0), (-2.0, 1.01), (3.0, 0.98)])
def test_a_board_that_lies_askew_is_found_where_a_shift_does_not_suffice(degrees: float, scale: float) -> None:
    template = layout(3)
    board = turned(template, degrees, scale=scale)
    found = reference(template).register(photo(board, noise=3, gain=0.5, offset=100))
    assert found.rotation_deg == pytest.approx(degrees, abs=0.1)
    assert found.scale == pytest.approx(scale, abs=0.003)
    assert unlike(found.template, board) < unlike(template, board) / 5
    assert found.quality > 0.95


@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0.0), (1.0, -35.0), (0.6, 80.0), (1.15, 5.0)])
def test_the_light_does_not_matter(gain: float, offset: float) -> None:
    template = layout(4)
    found = reference(template).register(photo(shifted(template, 5, -4), gain=gain, offset=offset, noise=4))
    assert (found.dx_px, found.dy_px) == (5, -4)
    assert found.quality > 0.9


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1300, 901), (333, 517), (90, 160), (170, 90)])
def test_pictures_of_any_size_can_be_laid_over(width: int, height: int) -> None:
    template = layout(5, width=width, height=height)
    found = reference(template).register(photo(shifted(template, 3, 2)))
    assert (found.dx_px, found.dy_px) == (3, 2)


def test_what_the_template_does_not_know_repeats_its_edge() -> None:
    template = layout(6)
    found = reference(template).register(photo(shifted(template, 20, 0)))
    assert (found.template[:, :20] == found.template[:, 20:21]).all()


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda _: layout(99), id="another product"),
        pytest.param(lambda template: template[:, ::-1].copy(), id="mirrored"),
        pytest.param(lambda template: template[::-1].copy(), id="upside down"),
        pytest.param(lambda template: np.rot90(template).copy(), id="turned left"),
        pytest.param(lambda template: np.rot90(template, 2).copy(), id="turned round"),
        pytest.param(lambda template: np.rot90(template, 3).copy(), id="turned right"),
        pytest.param(lambda template: 255 - template, id="negative"),
        pytest.param(lambda template: shifted(template, 150, 90), id="far out of place"),
        pytest.param(lambda _: np.random.default_rng(0).integers(0, 256, (640, 640), np.uint8), id="noise"),
    ],
)
def test_what_is_no_board_of_this_product_is_refused_with_the_figure(made: object) -> None:
    assert callable(made)
    template = layout(7)
    with pytest.raises(DetectorError, match=rf"does not fit its template: correlation 0\.\d\d < {LIMIT:.2f}"):
        reference(template).register(photo(made(template)))


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_picture_is_refused(level: int) -> None:
    with pytest.raises(DetectorError, match="all of one colour"):
        reference(layout(8)).register(np.full((640, 640, 3), level, np.uint8))


def test_the_limit_can_be_moved() -> None:
    template = layout(9)
    board = photo(template, noise=120)
    found = Reference(template, name="p", sha256="", limit=0.3).register(board)
    with pytest.raises(DetectorError, match=f"correlation {found.quality:.2f} < 0.99"):
        Reference(template, name="p", sha256="", limit=0.99).register(board)


def test_a_picture_of_another_size_is_refused_and_both_sizes_are_named() -> None:
    with pytest.raises(DetectorError, match="the picture is 800 x 600 pixels, its template 640 x 640: take"):
        reference(layout(10)).register(np.zeros((600, 800, 3), np.uint8))


@pytest.mark.parametrize("shape", [(640, 640), (0, 0, 3)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DetectorError, match="not a colour picture of bytes"):
        reference(layout(10)).register(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_template_is_read_from_a_grey_or_a_colour_file(tmp_path: Path, suffix: str) -> None:
    template = layout(11)
    for number, picture in enumerate((template, photo(template))):
        path = tmp_path / f"board-{number}.{suffix}"
        cv2.imwrite(str(path), picture)
        read = Reference.read(path)
        assert read.template.shape == template.shape
        assert float(cv2.absdiff(read.template, template).mean()) < 6
        assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert read.description == f"board-{number} (640x640; sha256 {read.sha256[:12]})"


def test_a_template_that_cannot_be_used_is_refused_with_what_to_do(tmp_path: Path) -> None:
    good = cv2.imencode(".png", layout(12))[1].tobytes()
    cases = {
        "text.png": (b"no picture at all", "not an image"),
        "cut.png": (good[: len(good) // 2], "truncated"),
        "blank.png": (cv2.imencode(".png", np.full((64, 64), 90, np.uint8))[1].tobytes(), "all of one colour: give"),
        "empty.png": (b"", "empty file"),
    }
    for name, (data, why) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError, match=why) as refused:
            Reference.read(tmp_path / name)
        assert str(refused.value).startswith(f"[recipe] template = {tmp_path / name}: ")
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\): give the picture"):
        Reference.read(tmp_path / "missing.png")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        Reference.read(tmp_path)
