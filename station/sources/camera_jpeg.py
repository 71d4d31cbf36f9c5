"""
Decodes a camera's JPEG strictly, in the camera's own process: what a cable lost is seen, and never judged.

FFmpeg and cv2 fill what a damaged picture lacks with grey, or with that part of an earlier one: it has no defects.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import simplejpeg  # type: ignore[import-untyped]  # it has no stubs

JPEG_CODECS = (b"MJPG", b"MJPE", b"JPEG")  # as drivers and FFmpeg name it, in capitals
PADDING = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker")
PADDING_BYTES = 16  # a webcam fills up to its next unit; more is left over where it lost its place in the data
START, END = b"\xff\xd8", b"\xff\xd9"
SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xda-\xfe]")
RESTART = re.compile(rb"\xff([\xd0-\xd7])")


class DamagedError(Exception):
    """Raised when something of a picture is missing or wrong."""


def is_jpeg(fourcc: float) -> bool:
    """Whether that is motion JPEG, by what ``cv2.CAP_PROP_FOURCC`` gives."""
    return (int(fourcc) & 0xFFFFFFFF).to_bytes(4, "little").upper() in JPEG_CODECS


def decode(data: bytes) -> Any:
    """
    Height x width x 3, uint8 BGR. What lies before its start and behind its end is no matter. Raises DamagedError.

    libjpeg complains once, of the first thing that it meets. Cheap webcams pad between the marks of every picture, so
    that this is all that it says, and nothing of what is missing behind it: such padding is looked at by ourselves.
    """
    data = data[max(0, data.find(START)) :]
    try:
        return _strictly(data)
    except DamagedError as error:
        if not PADDING.search(str(error)):
            raise
    data, restarts = _without_padding(data)
    try:
        return _strictly(data)
    except DamagedError as error:
        found = PADDING.search(str(error))
        if found is None or int(found[1]) >= PADDING_BYTES or not _is_whole(data, restarts):
            raise
    return simplejpeg.decode_jpeg(data, colorspace="BGR", strict=False)


def _strictly(data: bytes) -> Any:
    try:
        return simplejpeg.decode_jpeg(data, colorspace="BGR", strict=True)
    except (ValueError, MemoryError) as error:
        raise DamagedError(str(error)) from None


def _without_padding(data: bytes) -> tuple[bytes, int]:
    """The picture with nothing between the segments of its head, and how many restart marks its data has."""
    parts, at = [START], len(START)
    interval = units = 0
    while found := SEGMENT.search(data, at):
        at = found.end()
        end = at + int.from_bytes(data[at : at + 2], "big")
        parts.append(data[at - 2 : end])
        match data[at - 1], end <= len(data):
            case 0xDA, True:
                return b"".join(parts) + data[end:], (units - 1) // interval if interval else 0
            case 0xDD, True:
                interval = int.from_bytes(data[at + 2 : at + 4], "big")
            case ((0xC0 | 0xC1), True):
                units = _units(data[at + 3 : end])
        at = end
    raise DamagedError("it ends within its head")


def _units(frame: bytes) -> int:
    """Of how many units (MCU) the data is, by a frame header behind its precision (ITU T.81, B.2.2 and A.2)."""
    if len(frame) < 6 or len(frame) < 5 + 3 * frame[4]:
        raise DamagedError("its head is wrong")
    height_px, width_px, channels = struct.unpack_from(">HHB", frame)
    factors = frame[6 : 5 + 3 * channels : 3] if channels > 1 else b"\x11"
    across, down = (8 * max(1, *(one >> shift & 15 for one in factors)) for shift in (4, 0))
    return int(-(-width_px // across) * -(-height_px // down))


def _is_whole(data: bytes, restarts: int) -> bool:
    """Whether its end is there, and each of its restart marks in its turn."""
    begin = data.find(b"\xff\xda")
    end = data.find(END, begin)
    marks = [found[1][0] for found in RESTART.finditer(data, begin, max(begin, end))]
    return end >= 0 and marks == [0xD0 + number % 8 for number in range(restarts)]
