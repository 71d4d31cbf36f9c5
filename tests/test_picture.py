from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from station.assets import SAMPLES
from station.errors import NoPictureError, PictureError
from station.picture import decode, look, read, refusal
from tests.sources.boards import picture, png_head

SUFFIXES = (".jpg", ".png", ".bmp", ".tiff", ".webp")


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".jpg", "JPEG"), (".png", "PNG"), (".bmp", "BMP"), (".tiff", "TIFF"), (".webp", "WebP")]
)
def test_a_whole_picture_is_known_by_its_content_and_tells_its_size(suffix: str, kind: str) -> None:
    found = look(picture(7, suffix=suffix))
    assert (found.kind, found.flaw, found.width_px, found.height_px) == (kind, None, 32, 24)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_is_not_whole_at_any_shorter_length(suffix: str) -> None:
    data = picture(7, suffix=suffix)
    for length in range(len(data)):
        found = look(data[:length])
        assert found.flaw is not None, f"whole at {length} of {len(data)} bytes"
        assert not found.hopeless, f"given up at {length} of {len(data)} bytes"


@pytest.mark.parametrize("file", sorted(SAMPLES.glob("fail-*")), ids=lambda one: one.name)
@pytest.mark.parametrize("share", [0.15, 0.3, 0.5, 0.95])
def test_a_jpeg_that_lacks_a_part_and_ends_well_is_not_filled_up_with_grey(file: Path, share: float) -> None:
    data = file.read_bytes()
    cut = data[: int(len(data) * share)] + b"\xff\xd9"
    assert look(cut).flaw is None, "its structure does not tell"
    assert decode(cut) is None


def test_bytes_after_the_end_do_not_keep_a_jpeg_from_being_decoded() -> None:
    assert decode(picture(7, suffix=".jpg") + b"\0trailer of some camera") is not None


def test_a_progressive_jpeg_is_whole_only_after_its_last_scan() -> None:
    data = picture(7, suffix=".jpg", progressive=True, side_px=64)
    assert data.count(b"\xff\xda") > 1
    assert look(data).flaw is None
    second_scan = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    assert look(data[:second_scan]).flaw == "JPEG: truncated, no end-of-image mark"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bytes_after_the_end_are_allowed(suffix: str) -> None:
    assert look(picture(7, suffix=suffix) + b"\0trailer of some camera\xff\xd9").flaw is None


def with_thumbnail(data: bytes) -> bytes:
    """Puts an EXIF-like segment with a whole JPEG in it behind the start-of-image mark."""
    body = b"Exif\0\0" + picture(1, suffix=".jpg")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def test_the_end_mark_of_a_thumbnail_is_not_that_of_the_picture() -> None:
    data = with_thumbnail(picture(7, suffix=".jpg", side_px=64))
    whole = look(data)
    assert (whole.flaw, whole.height_px) == (None, 64)
    assert data[:-2].count(b"\xff\xd9") == 1
    assert look(data[:-2]).flaw == "JPEG: truncated, no end-of-image mark"


def test_a_truncated_jpeg_that_ends_in_a_restart_mark_or_a_stuffed_byte_is_not_whole() -> None:
    data = picture(7, suffix=".jpg")
    assert look(data[:-2] + b"\xff\xd0").flaw is not None
    assert look(data[:-2] + b"\xff\x00\xd9").flaw is not None


def test_a_jpeg_of_thousands_of_scans_does_not_keep_the_decoder_busy_for_a_minute() -> None:
    ok, encoded = cv2.imencode(".jpg", np.full((64, 64, 3), 90, np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert ok
    whole = encoded.tobytes()
    last = whole.rindex(b"\xff\xda")
    scan = whole[last:-2]
    few, many = (whole[:-2] + scan * count + b"\xff\xd9" for count in (20, 2000))
    assert refusal(look(few), max_pixels=10**6) is None
    assert "scans, which take very long to decode" in str(refusal(look(many), max_pixels=10**6))
    assert decode(many) is None


def test_a_file_is_read_or_it_is_said_what_is_wrong_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = picture(7)
    whole = decode(data)
    assert whole is not None
    assert np.array_equal(read(data), whole)
    for wrong, words in (
        (data[:-20], "PNG: truncated"),
        (png_head(20_000, 20_000), "too many pixels: 20000 x 20000"),
        (png_head(32, 24), "PNG: the decoder refused it"),
        (b"hello", "not an image: JPEG, PNG"),
    ):
        with pytest.raises(PictureError, match=words) as caught:
            read(wrong)
        assert isinstance(caught.value, NoPictureError) == (wrong == b"hello")
    with pytest.raises(PictureError, match="too many pixels"):
        read(data, max_pixels=32 * 24 - 1)
    levels = np.full((24, 32), 0x0FFF, np.uint16)
    assert read(cv2.imencode(".png", levels)[1].tobytes(), depth_bits=12).min() == 255
    monkeypatch.setattr("station.picture.decode", lambda *_, **__: pytest.fail("it must not be decoded"))
    with pytest.raises(PictureError, match="too many pixels"):
        read(png_head(20_000, 20_000))


def test_a_jpeg_that_ends_without_a_picture_is_damaged() -> None:
    assert look(b"\xff\xd8\xff\xd9").flaw == "JPEG: damaged, it ends without a picture"


def test_a_changed_byte_in_a_png_is_noticed() -> None:
    data = bytearray(picture(7))
    data[60] ^= 1
    assert "wrong check sum" in str(look(bytes(data)).flaw)


def test_the_size_of_a_bomb_is_read_without_decoding_it() -> None:
    found = look(png_head(60_000, 50_000))
    assert (found.flaw, found.width_px, found.height_px) == (None, 60_000, 50_000)


def test_a_picture_without_extent_is_damaged() -> None:
    assert look(png_head(0, 10)).flaw == "damaged PNG: it says it is 0 x 10 pixels"


def test_a_bmp_is_measured_by_its_rows_since_writers_leave_its_size_field_empty() -> None:
    data = picture(7, suffix=".bmp")
    emptied = data[:2] + bytes(4) + data[6:]
    assert look(emptied).flaw is None
    assert look(emptied[:-1]).flaw is not None


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_is_read_in_either_byte_order(order: str) -> None:
    pixels = bytes(range(12))
    tags = [(256, 3, 4), (257, 3, 3), (258, 3, 8), (273, 4, 8), (279, 4, 12)]
    entries = b"".join(
        struct.pack(order + "HHI", tag, kind, 1) + struct.pack(order + ("HH" if kind == 3 else "I"), *values)
        for tag, kind, value in tags
        for values in [(value, 0) if kind == 3 else (value,)]
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(pixels))
    data = head + pixels + struct.pack(order + "H", len(tags)) + entries + bytes(4)
    found = look(data)
    assert (found.flaw, found.width_px, found.height_px) == (None, 4, 3)
    assert look(data[:8]).flaw is not None


def test_a_tiff_whose_directory_is_not_written_yet_or_leads_astray_is_not_whole() -> None:
    data = picture(7, suffix=".tiff")
    for directory in (0, 2**31, len(data) - 1):
        assert look(data[:4] + struct.pack("<I", directory) + data[8:]).flaw is not None


def test_a_hostile_tiff_count_costs_nothing() -> None:
    entry = struct.pack("<HHII", 273, 4, 2**32 - 1, 0)
    assert look(b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)).flaw is not None


def test_what_is_no_image_is_hopeless_and_what_may_become_one_is_not() -> None:
    assert look(b"Dear line, ...").hopeless
    assert look(b"GIF89a").hopeless
    assert not look(b"").hopeless
    assert not look(bytes(4096)).hopeless, "a writer may reserve its space with zeros"
    assert not look(b"\x89PN").hopeless
    assert look(bytes(4096)).flaw is not None


def test_a_decoded_picture_has_three_channels_of_eight_bits_whatever_it_had() -> None:
    assert decode(picture(9)) is not None
    for image in (np.zeros((4, 5), np.uint8), np.zeros((4, 5, 4), np.uint8), np.zeros((4, 5, 3), np.uint16)):
        _, encoded = cv2.imencode(".png", image)
        decoded = decode(encoded.tobytes())
        assert decoded is not None
        assert decoded.shape == (4, 5, 3)
        assert decoded.dtype == np.dtype(np.uint8)


def test_a_picture_is_turned_as_its_exif_orientation_says() -> None:
    body = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4)
    data = picture(7, suffix=".jpg")
    turned = decode(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])
    assert turned is not None
    assert turned.shape == (32, 24, 3)


def test_what_the_decoder_refuses_is_no_picture_and_no_exception() -> None:
    assert decode(b"no image") is None
    assert decode(picture(7)[:40]) is None
