"""Damage inside a compressed TIFF is seen, which the decoder would leave black: a black part has no defects."""

from __future__ import annotations

import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from station.picture import decode, look
from station.tiff import directory_of
from station.tiff_parts import holds_all
from tests.odd_pictures import Samples, encoded, tiff

NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS = 1, 5, 8, 32946, 32773
COMPRESSIONS = [NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS]


def flat_and_busy(height: int = 200, width: int = 160) -> NDArray[np.uint8]:
    """Long runs above, noise below: LZW clears its table several times."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, ::7] = (200, 90, 40)
    image[height // 2 :] = np.random.default_rng(1).integers(0, 256, (height - height // 2, width, 3), np.uint8)
    return image


def stored(image: Samples, compression: int, *options: int) -> bytes:
    return encoded(".tiff", image, cv2.IMWRITE_TIFF_COMPRESSION, compression, *options)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("rows", [1, 7, 200, 1000])
@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_whole_is_decoded(compression: int, rows: int, deep: bool, channels: int) -> None:
    image: Samples = flat_and_busy()[..., :channels].squeeze()
    data = stored(image.astype(np.uint16) * 257 if deep else image, compression, cv2.IMWRITE_TIFF_ROWSPERSTRIP, rows)
    assert look(data).odd is None
    decoded = decode(data)
    assert decoded is not None
    assert np.array_equal(decoded[..., :channels].squeeze(), image)


@pytest.mark.parametrize("compression", [LZW, DEFLATE, PACKBITS])
@pytest.mark.parametrize("rows", [7, 200])
@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x80"])
def test_a_part_that_was_overwritten_is_no_picture(compression: int, rows: int, fill: bytes) -> None:
    whole = stored(flat_and_busy(), compression, cv2.IMWRITE_TIFF_ROWSPERSTRIP, rows)
    for offset, count in directory_of(whole).parts[:: max(1, 20 // rows)]:
        damaged = bytearray(whole)
        damaged[offset + count // 3 : offset + count] = fill * (count - count // 3)
        assert look(bytes(damaged)).flaw is None, "its structure is whole"
        assert decode(bytes(damaged)) is None


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_parts_that_are_too_short_or_too_few_are_no_picture(compression: int) -> None:
    image = np.full((8, 8, 1), 7, np.uint8)
    packed = {NONE: bytes(63), LZW: b"\x80\x40\x40", PACKBITS: b"\x02\x07\x07\x07"}.get(
        compression, zlib.compress(bytes(63))
    )
    data = bytearray(tiff(image, colours=1, t259=compression, t279=len(packed)))
    data[8 : 8 + len(packed)] = packed
    assert decode(bytes(data)) is None
    few = tiff(image, colours=1, t257=16, t278=8)
    assert look(few).flaw is None
    assert decode(few) is None


def test_nothing_is_expanded_beyond_what_a_part_is_for() -> None:
    """A bomb: 30 MB of zeros, said to be 64 pixels."""
    packed = zlib.compress(bytes(30_000_000))
    data = tiff(np.zeros((len(packed), 1, 1), np.uint8), colours=1, t256=8, t257=8, t278=8, t259=DEFLATE)
    data = data.replace(bytes(len(packed)), packed)
    tracemalloc.start()
    try:
        assert not holds_all(data)
        assert tracemalloc.get_traced_memory()[1] < 70_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("compression", "name"),
    [(4, "CCITT"), (7, "JPEG"), (34925, "LZMA"), (50000, "Zstandard"), (1234, "compression 1234")],
)
def test_a_compression_whose_damage_would_not_be_seen_is_refused(compression: int, name: str) -> None:
    data = tiff(np.zeros((8, 8, 1), np.uint8), colours=1, t259=compression)
    why = f"a compression whose damage would not be seen ({name}): save it uncompressed, with Deflate, or as PNG"
    assert look(data).odd == f"TIFF with {why}"
    assert decode(data) is None


def test_compressed_samples_in_an_unusual_order_are_refused() -> None:
    for colours, bit_order in ((2, 2), (6, 1)):
        data = tiff(np.zeros((8, 8, 3), np.uint8), colours=colours, t259=LZW, t266=bit_order)
        assert "in an unusual order" in str(look(data).odd)
