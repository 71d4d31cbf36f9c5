"""A camera's JPEG: what is whole is decoded, whatever cheap cameras put between its marks; what lacks a part is not."""

from __future__ import annotations

import random
import re

import cv2
import numpy as np
import pytest

from station.sources.camera_jpeg import DamagedError, decode, is_jpeg
from tests.mjpeg_server import cut

END = b"\xff\xd9"


def jpeg(*options: int, channels: int = 3) -> bytes:
    """Of a picture with much to be said in every row, so that what is cut out of its data is missing."""
    noise = np.random.default_rng(1).integers(0, 256, (24, 32, channels), np.uint8)
    ok, data = cv2.imencode(".jpg", cv2.resize(noise, (320, 240)), list(options))
    assert ok
    return data.tobytes()


PLAIN = jpeg()
RESTARTED = jpeg(cv2.IMWRITE_JPEG_RST_INTERVAL, 20)  # a mark behind each row of units, as webcams have it


def middle(data: bytes) -> int:
    return (data.index(b"\xff\xda") + len(data)) // 2


def padded(data: bytes, *, padding: bytes = b"\0\0\0") -> bytes:
    """As cheap webcams do it: before each restart mark and the end."""
    at = data.index(b"\xff\xda")
    return data[:at] + re.sub(rb"(\xff[\xd0-\xd7\xd9])", rb"%s\1" % padding, data[at:])


def padded_head(data: bytes) -> bytes:
    at = data.index(b"\xff\xdb")
    return data[:at] + b"\0" + data[at:]


def without(data: bytes, length: int, at: int | None = None) -> bytes:
    at = middle(data) if at is None else at
    return data[:at] + data[at + length :]


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        RESTARTED,
        jpeg(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        PLAIN + b"\0" * 500,
        PLAIN + END,
        b"\r\n" + PLAIN,
        padded(PLAIN),
        padded(RESTARTED),
        padded_head(PLAIN),
        padded_head(padded(RESTARTED)),
    ],
)
def test_a_whole_picture_is_decoded_whatever_lies_around_and_between_its_marks(data: bytes) -> None:
    at = data.index(b"\xff\xd8")
    assert (decode(data) == cv2.imdecode(np.frombuffer(data[at:], np.uint8), cv2.IMREAD_COLOR)).all()


def test_a_grey_picture_becomes_colour() -> None:
    assert decode(jpeg(channels=1)).shape == (240, 320, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        PLAIN[:100],
        cut(PLAIN),
        cut(PLAIN) + END,
        cut(PLAIN) + PLAIN,
        PLAIN[:-2],
        without(PLAIN, 1000),
        without(RESTARTED, 1000),
        cut(padded(RESTARTED)),
        cut(padded(RESTARTED)) + END,
        padded(RESTARTED)[:-2],
        without(padded(RESTARTED), 1000),
        padded_head(cut(PLAIN) + END),
        padded_head(without(PLAIN, 1000)),
        padded_head(PLAIN)[:200],
        padded(PLAIN, padding=b"\0" * 40),
        padded_head(PLAIN[: PLAIN.index(b"\xff\xc0") + 8]) + END,
        jpeg(cv2.IMWRITE_JPEG_PROGRESSIVE, 1)[:-3000] + END,
    ],
)
def test_a_picture_that_lacks_a_part_is_damaged_with_an_end_mark_or_without(data: bytes) -> None:
    with pytest.raises(DamagedError):
        decode(data)


@pytest.mark.parametrize("data", [PLAIN, RESTARTED, padded(PLAIN), padded_head(PLAIN)])
def test_a_lost_usb_packet_is_seen_wherever_it_was(data: bytes) -> None:
    chance = random.Random(1)  # noqa: S311  # it keeps no secret
    begin = data.index(b"\xff\xda") + 14
    for _ in range(300):
        with pytest.raises(DamagedError):
            decode(without(data, 512, chance.randrange(begin, len(data) - 514)))


@pytest.mark.parametrize(
    ("name", "is_one"), [(b"MJPG", True), (b"mjpe", True), (b"JPEG", True), (b"h264", False), (b"YUYV", False)]
)
def test_what_drivers_and_ffmpeg_call_motion_jpeg(name: bytes, is_one: bool) -> None:
    assert is_jpeg(float(int.from_bytes(name, "little"))) is is_one
    assert not is_jpeg(-1.0)
