"""Grey, deep, transparent and turned pictures: what the detector gets is what a person sees, or a clear refusal."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import pytest

from station.evidence import FolderEvidence
from station.picture import Look, decode, look, refusal
from station.types import Box, Defect, Image, Verdict
from tests.boards import NOON
from tests.boards import board as inspected
from tests.odd_pictures import (
    SIDES,
    Samples,
    as_stored,
    bmp32,
    board,
    encoded,
    jpeg,
    jpeg_of,
    palette_png,
    png,
    png_of,
    tiff,
    webp,
    with_chunk,
)

LOSSY = 12  # of 255: what JPEG makes of the middle of an even patch
GREY = np.arange(0, 256, dtype=np.uint8).reshape(8, 32)


def seen(data: bytes, *, depth_bits: int = 16) -> Image:
    """As the station takes a file: it is looked at, allowed, and decoded."""
    found = look(data)
    assert (found.flaw, refusal(found, max_pixels=10_000)) == (None, None)
    image = decode(data, depth_bits=depth_bits)
    assert image is not None
    assert image.dtype == np.dtype(np.uint8)
    assert image.flags.c_contiguous
    return image


def with_alpha(image: Samples, alpha: int | Samples) -> Samples:
    return np.dstack([image, np.broadcast_to(np.asarray(alpha, image.dtype), image.shape[:2])])


def rgb(bgr: Samples) -> Samples:
    """As TIFF stores it, alpha staying last."""
    return np.ascontiguousarray(bgr[..., [2, 1, 0, *range(3, bgr.shape[2])]])


# --- grey and few colours


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff"])
def test_a_grey_picture_is_spread_to_three_equal_channels(suffix: str) -> None:
    image = seen(encoded(suffix, GREY))
    assert (image[..., 0] == image[..., 1]).all()
    assert (image[..., 1] == image[..., 2]).all()
    assert np.abs(image[..., 0].astype(int) - GREY).max() <= (LOSSY if suffix == ".jpg" else 0)


def test_a_picture_of_one_bit_is_black_and_white() -> None:
    assert seen(png_of(3, 1, bits=1, colours=0, rows=b"\0\xa0"))[0, :, 0].tolist() == [255, 0, 255]


def test_a_palette_is_looked_up() -> None:
    expected = [[30, 20, 10], [60, 50, 40]]
    assert seen(palette_png([0, 1], bytes([10, 20, 30, 40, 50, 60])))[0].tolist() == expected
    red, green, blue = (
        tuple(level * 257 for level in levels) + (0,) * 254 for levels in ([10, 40], [20, 50], [30, 60])
    )
    indices = np.array([[[0], [1]]], np.uint8)
    assert seen(tiff(indices, colours=3, t320=red + green + blue))[0].tolist() == expected


# --- 16 bits


@pytest.mark.parametrize("depth", [9, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_upper_eight_of_the_bits_that_its_camera_uses_are_seen(depth: int, kind: str, channels: int) -> None:
    deep = GREY.astype(np.uint16) << (depth - 8)
    deep += np.random.default_rng(depth).integers(0, 1 << (depth - 8), deep.shape, np.uint16)
    data = encoded(kind, deep if channels == 1 else np.dstack([deep, deep[::-1], deep[:, ::-1]]))
    image = seen(data, depth_bits=depth)
    expected = np.dstack([GREY] * 3) if channels == 1 else np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])
    assert np.array_equal(image, expected)


@pytest.mark.parametrize("factor", [257, 256])
def test_eight_bits_that_were_made_sixteen_come_back_exactly(factor: int) -> None:
    assert np.array_equal(seen(encoded(".png", GREY.astype(np.uint16) * factor))[..., 0], GREY)


def test_twelve_bits_that_are_packed_are_unpacked() -> None:
    packed = np.frombuffer(bytes([0x00, 0x0F, 0xFF, 0x12, 0x34, 0x56]), np.uint8).reshape(1, 6, 1)
    for depth_bits in (16, 12):  # the file says itself how many it has
        image = seen(tiff(packed, colours=1, t256=4, t258=12), depth_bits=depth_bits)
        assert image[0, :, 0].tolist() == [0x00, 0xFF, 0x12, 0x45]


def test_no_picture_says_by_its_brightest_pixel_how_deep_it_is() -> None:
    """A little more light, or one hot pixel, would spread or darken all the others, and turn a verdict."""
    dark = np.full((4, 4), 1023, np.uint16)
    for brightest in (1023, 1024, 65535):
        dark[0, 0] = brightest
        assert (seen(encoded(".png", dark))[1:] == 3).all()
        assert (seen(encoded(".png", dark), depth_bits=12)[1:] == 63).all()


def test_what_is_above_the_depth_is_white() -> None:
    hot = np.array([[4095, 4096, 65535, 0]], np.uint16)
    assert seen(encoded(".png", hot), depth_bits=12)[0, :, 0].tolist() == [255, 255, 255, 0]


def test_twelve_bits_of_colour_beside_alpha_are_seen_as_such() -> None:
    deep = with_alpha(board().astype(np.uint16) << 4, 65535)
    assert np.array_equal(seen(encoded(".png", deep), depth_bits=12), board())


def test_a_black_picture_of_sixteen_bits_is_black() -> None:
    assert not seen(encoded(".png", np.zeros((4, 4), np.uint16))).any()


# --- alpha

Make: TypeAlias = Callable[[Samples], bytes]
TRANSPARENT: dict[str, Make] = {
    "PNG": png,
    "PNG of 16 bits": lambda one: png(one.astype(np.uint16) * 257),
    "WebP": webp,
    "BMP": lambda one: bmp32(one, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    "TIFF": lambda one: tiff(rgb(one), colours=2, t338=2),
    "TIFF of 16 bits": lambda one: tiff(rgb(one).astype(np.uint16) * 257, colours=2, t338=2),
}
EACH_TRANSPARENT = pytest.mark.parametrize("make", TRANSPARENT.values(), ids=TRANSPARENT)


@EACH_TRANSPARENT
def test_what_is_opaque_is_seen_as_it_is(make: Make) -> None:
    assert np.array_equal(seen(make(with_alpha(board(), 255))), board())


@EACH_TRANSPARENT
def test_what_is_transparent_shows_white(make: Make) -> None:
    alpha = np.full(board().shape[:2], 255, np.uint8)
    alpha[:16, :32] = 0
    alpha[32:, 48:] = 128
    image = seen(make(with_alpha(board(), alpha)))
    assert (image[:16, :32] == 255).all()
    assert np.array_equal(image[16:32], board()[16:32])
    half = image[40, 56].astype(int) - (127, 187, 255)  # (0, 120, 255) to one half
    assert np.abs(half).max() <= 1


@pytest.mark.parametrize("make", [png, webp, TRANSPARENT["PNG of 16 bits"], TRANSPARENT["BMP"]])
def test_alpha_that_its_writer_left_empty_is_ignored(make: Make) -> None:
    picture = with_alpha(board(), 0)
    if make is webp:
        data = encoded(".webp", picture, cv2.IMWRITE_WEBP_QUALITY, 101)
        assert seen(data).shape == board().shape, "this encoder keeps no colour where nothing is seen"
    else:
        assert np.array_equal(seen(make(picture)), board())


@pytest.mark.parametrize("fourth", [0, 255, 7])
def test_the_fourth_byte_of_a_bmp_without_masks_is_padding(fourth: int) -> None:
    assert np.array_equal(seen(bmp32(with_alpha(board(), fourth))), board())


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_that_are_dimmed_by_their_alpha_already_are_not_dimmed_again(bits: int) -> None:
    dimmed = np.array([[[0, 0, 0, 0], [64, 32, 0, 128], [10, 20, 30, 255]]], np.uint8)
    samples = dimmed if bits == 8 else dimmed.astype(np.uint16) * 257
    assert seen(tiff(samples, colours=2, t338=1))[0].tolist() == [[255, 255, 255], [127, 159, 191], [30, 20, 10]]


def test_transparent_entries_of_a_palette_show_white() -> None:
    data = palette_png([0, 1], bytes([10, 20, 30, 40, 50, 60]), alpha=b"\0\xff")
    assert seen(data)[0].tolist() == [[255, 255, 255], [60, 50, 40]]


def test_grey_with_alpha_shows_white_where_it_is_transparent() -> None:
    assert seen(png_of(2, 1, bits=8, colours=4, rows=bytes([0, 7, 0, 9, 255])))[0].tolist() == [[255] * 3, [9] * 3]


# --- turned

TURNED: dict[str, Callable[..., bytes]] = {
    "JPEG": jpeg,
    "PNG": png,
    "WebP": webp,
    "TIFF": lambda one, orientation: tiff(rgb(one), colours=2, t274=orientation),
    "PNG of 16 bits": lambda one, orientation: png(one.astype(np.uint16) * 257, orientation=orientation),
    "TIFF of 16 bits": lambda one, orientation: tiff(rgb(one).astype(np.uint16) * 257, colours=2, t274=orientation),
    "PNG with alpha": lambda one, orientation: png(with_alpha(one, 255), orientation=orientation),
    "WebP with alpha": lambda one, orientation: webp(half_hidden(one), orientation=orientation),
    "TIFF with alpha": lambda one, orientation: tiff(rgb(with_alpha(one, 255)), colours=2, t338=1, t274=orientation),
}


def half_hidden(image: Samples) -> Samples:
    """With alpha that hides nothing but what is white anyway: lossless WebP drops an alpha that is 255 everywhere."""
    picture = with_alpha(image, 255)
    picture[:2, :2] = (255, 255, 255, 254)
    return picture


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("kind", TURNED)
def test_a_picture_is_seen_as_its_orientation_says(kind: str, orientation: int) -> None:
    data = TURNED[kind](as_stored(board(), orientation), orientation=orientation)
    image = seen(data)
    assert image.shape == board().shape
    for row in range(8, 48, 16):
        for column in range(8, 64, 16):
            difference = image[row, column].astype(int) - board()[row, column]
            assert np.abs(difference).max() <= (LOSSY if kind == "JPEG" else 0), (row, column)


@pytest.mark.parametrize(
    "body",
    [b"II*\0", b"nonsense", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x09\0\0\0\0\0\0\0"],
)
def test_an_orientation_that_cannot_be_read_is_upright(body: bytes) -> None:
    assert np.array_equal(seen(with_chunk(png(with_alpha(board(), 255)), b"eXIf", body)), board())


@pytest.mark.parametrize("kind", ["JPEG", "PNG with alpha"])
def test_boxes_and_evidence_are_in_the_picture_that_a_person_sees(tmp_path: Path, kind: str) -> None:
    image = seen(TURNED[kind](as_stored(board(), 6), orientation=6))
    rows, columns = np.nonzero((image[..., 2] > 200) & (image[..., 0] < 60))  # the orange patch
    box = Box(float(columns.min()), float(rows.min()), float(np.ptp(columns) + 1), float(np.ptp(rows) + 1))
    assert dataclasses.astuple(box) == pytest.approx((48, 32, 16, 16), abs=1)
    inspection = inspected("b", verdict=Verdict.FAIL, image=image, defects=[Defect("spur", 0.9, box, "m")])
    pictures = FolderEvidence(
        tmp_path, keep="all", allowed=lambda: True, max_bytes=10**9, keep_days=30, now=NOON.timestamp
    )
    name = pictures.keep(inspection)
    assert name is not None
    kept = cv2.imread(str(tmp_path / name))
    assert kept is not None
    assert kept.shape[1] == 64
    blue = np.median(kept[-48:][4:12, 4:28].reshape(-1, 3), axis=0)  # a label may reach into it
    assert blue[0] > 200, "the blue patch is at the top left, as a person sees it"
    assert blue[2] < 100


# --- what is refused

REFUSED = {
    "JPEG with a CMYK picture: save it as RGB": jpeg_of(channels=4),
    "JPEG with 12 bits a sample: save it with 8 bits, or as PNG or TIFF": jpeg_of(channels=3, bits=12),
    "TIFF with a picture in other colours (CMYK): save it as RGB or grey": tiff(
        np.zeros((2, 2, 4), np.uint8), colours=5
    ),
    "TIFF with a picture in other colours (CIE Lab): save it as RGB or grey": tiff(
        np.zeros((2, 2, 3), np.uint8), colours=8
    ),
    "TIFF with a picture in other colours (photometric interpretation 32803): save it as RGB or grey": tiff(
        np.zeros((2, 2, 1), np.uint16), colours=32803
    ),
    "TIFF with 2 channels: save it as RGB or grey": tiff(np.zeros((2, 2, 2), np.uint8), colours=1, t338=2),
    "TIFF with 5 channels: save it as RGB or grey": tiff(np.zeros((2, 2, 5), np.uint8), colours=2),
    "TIFF with samples that are signed, fractions or of more than 16 bits: save it with 8 or 16 bits": tiff(
        np.zeros((2, 2, 1), np.float32), colours=1, t339=3
    ),
    "TIFF with 16 bits a sample of which zero is white: save it with zero as black": tiff(
        np.zeros((2, 2, 1), np.uint16), colours=0
    ),
    "TIFF with more than one page: save each as a file": tiff(np.zeros((2, 2, 1), np.uint8), colours=1, second={}),
    "WebP with an animation: save it as one picture": webp(np.zeros((2, 2, 3), np.uint8), flags=2),
    "PNG with an animation: save it as one picture": with_chunk(png(board()), b"acTL", bytes(8)),
}


@pytest.mark.parametrize(("why", "data"), REFUSED.items(), ids=REFUSED)
def test_what_would_not_be_seen_as_a_person_sees_it_is_refused_with_what_to_do(why: str, data: bytes) -> None:
    found = look(data)
    assert found.flaw is None, "it is whole, so that nobody waits for more of it"
    assert refusal(found, max_pixels=10_000) == why
    assert decode(data) is None


def test_signed_samples_are_refused() -> None:
    assert look(tiff(np.zeros((2, 2, 1), np.int16), colours=1, t339=2)).odd is not None


@pytest.mark.parametrize("subfile", [1, 4])
def test_a_reduced_copy_or_a_mask_is_no_second_page(subfile: int) -> None:
    data = tiff(rgb(board()), colours=2, second={254: subfile})
    assert np.array_equal(seen(data), board())


def test_a_page_behind_a_reduced_copy_is_a_second_page() -> None:
    """As microscopes write stacks: each picture is followed by its thumbnail."""
    thumbnail = {254: 1}
    data = tiff(rgb(board()), colours=2, second=thumbnail, more=[{}, thumbnail])
    assert look(data).odd == "TIFF with more than one page: save each as a file"
    assert decode(data) is None


@pytest.mark.parametrize(("copies", "odd"), [(29, False), (5000, True)])
def test_reduced_copies_are_looked_through_while_there_are_as_many_as_a_picture_has(copies: int, odd: bool) -> None:
    data = tiff(rgb(board()), colours=2, second={254: 1}, more=[{254: 1}] * copies)
    assert (look(data).odd is not None) is odd


def test_a_tiff_whose_directories_lead_in_a_circle_is_looked_through_once() -> None:
    data = bytearray(tiff(rgb(board()), colours=2, second={254: 1}))
    first = struct.unpack_from("<I", data, 4)[0]
    second = struct.unpack_from("<I", data, first + 2 + 12 * struct.unpack_from("<H", data, first)[0])[0]
    struct.pack_into("<I", data, second + 2 + 12 * struct.unpack_from("<H", data, second)[0], second)
    assert look(bytes(data)).odd is None


def test_a_tiff_whose_second_directory_is_not_written_yet_is_not_whole() -> None:
    data = tiff(rgb(board()), colours=2, second={254: 1})
    for length in range(len(data)):
        assert look(data[:length]).flaw is not None


def test_a_directory_of_more_parts_than_a_picture_has_is_damaged() -> None:
    parts = (1 << 20) + 1
    data = tiff(np.zeros((4, parts, 1), np.uint8), colours=1, t256=4, t257=4, t278=4)
    strips = struct.pack("<HHII", 273, 4, 1, 8)
    assert data.count(strips) == 1
    hostile = data.replace(strips, struct.pack("<HHII", 273, 4, parts, 8))
    assert look(hostile).flaw == "TIFF: damaged, it is in more parts than a picture can have"


# --- limits

HUGE = {
    "8 bits": (png_of(100, 100, bits=8, colours=2), 3),
    "grey": (png_of(100, 100, bits=8, colours=0), 3),
    "alpha": (png_of(100, 100, bits=8, colours=6), 4),
    "16 bits": (png_of(100, 100, bits=16, colours=2), 6),
    "16 bits and alpha": (png_of(100, 100, bits=16, colours=6), 8),
    "16 bits and alpha, TIFF": (tiff(np.zeros((100, 100, 4), np.uint16), colours=2), 8),
}


@pytest.mark.parametrize(("data", "pixel_bytes"), HUGE.values(), ids=HUGE)
def test_the_limit_of_pixels_is_one_of_memory(data: bytes, pixel_bytes: int) -> None:
    found = look(data)
    assert found.pixel_bytes == pixel_bytes
    enough = 10_000 * pixel_bytes // 3 + 1
    assert refusal(found, max_pixels=enough) is None
    assert refusal(found, max_pixels=enough - 2) is not None


def test_a_picture_of_too_many_pixels_is_refused_with_both_numbers() -> None:
    plain, deep = Look("PNG", 20_000, 10_000), Look("PNG", 20_000, 10_000, pixel_bytes=8)
    many = "too many pixels: 20000 x 10000 = 200.0 million"
    assert refusal(plain, max_pixels=150_000_000) == f"{many}, and 150.0 million are allowed"
    assert refusal(deep, max_pixels=150_000_000) == f"{many} of 8 bytes each, and 56.2 million are allowed"
