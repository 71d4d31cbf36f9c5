"""Picture files of every kind that cameras and editors write, made byte by byte where cv2 does not write them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from station.types import Image

Samples: TypeAlias = NDArray[Any]  # bytes, words or floats


def board() -> Image:
    """A picture, 64 x 48, of which no turn or mirror image looks alike: what a person should see."""
    image = np.full((48, 64, 3), 40, np.uint8)
    image[:16, :32] = (250, 10, 60)
    image[16:32, :16] = (20, 230, 90)
    image[32:, 48:] = (0, 120, 255)
    return image


# What the first row and the first column of the file are in the picture as it is to be shown (EXIF 2.32, 4.6.4).
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def as_stored(shown: Samples, orientation: int) -> Samples:
    """The rows and columns of a file with *orientation* that is to be seen as *shown*."""
    row, column = SIDES[orientation]
    stored = shown if row in {"top", "bottom"} else shown.swapaxes(0, 1)
    stored = stored[::-1] if row in {"bottom", "right"} else stored
    stored = stored[:, ::-1] if column in {"bottom", "right"} else stored
    return np.ascontiguousarray(stored)


def exif(orientation: int, *, order: str = "<") -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def encoded(suffix: str, samples: Samples, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, samples, options)
    assert done
    return data.tobytes()


# --- JPEG


def jpeg(samples: Samples, *, orientation: int | None = None) -> bytes:
    data = encoded(".jpg", samples, cv2.IMWRITE_JPEG_QUALITY, 98)
    return data if orientation is None else data[:2] + _segment(0xE1, b"Exif\0\0" + exif(orientation)) + data[2:]


def jpeg_of(*, channels: int, bits: int = 8) -> bytes:
    """Whole by structure; its coded data is none."""
    numbers = range(1, channels + 1)
    frame = struct.pack(">BHHB", bits, 8, 8, channels) + b"".join(bytes([one, 0x11, 0]) for one in numbers)
    scan = bytes([channels]) + b"".join(bytes([one, 0]) for one in numbers) + b"\0\x3f\0"
    return b"\xff\xd8" + _segment(0xC0, frame) + _segment(0xDA, scan) + b"\x12\x34\xff\xd9"


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


# --- PNG


def png(samples: Samples, *, orientation: int | None = None) -> bytes:
    return with_chunk(encoded(".png", samples), b"eXIf", b"" if orientation is None else exif(orientation, order=">"))


def with_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    """*data* with a chunk behind its head, or as it is if there is nothing in it."""
    return data[:33] + _chunk(kind, body) + data[33:] if body else data


def png_of(width_px: int, height_px: int, *, bits: int, colours: int, rows: bytes = b"", more: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width_px, height_px, bits, colours, 0, 0, 0)
    chunks = _chunk(b"IHDR", head) + more + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def palette_png(indices: Sequence[int], palette: bytes, *, alpha: bytes = b"") -> bytes:
    """One row."""
    more = _chunk(b"PLTE", palette) + (_chunk(b"tRNS", alpha) if alpha else b"")
    return png_of(len(indices), 1, bits=8, colours=3, rows=b"\0" + bytes(indices), more=more)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


# --- BMP


def bmp32(rows: Samples, *, masks: Sequence[int] = ()) -> bytes:
    """*rows*: height x width x 4 bytes; with *masks* (red, green, blue, alpha) in a header of version 4."""
    height, width = rows.shape[:2]
    header = 108 if masks else 40
    at = 14 + header
    body = struct.pack("<IiiHHIIiiII", header, width, -height, 1, 32, 3 if masks else 0, rows.size, 0, 0, 0, 0)
    body += struct.pack(f"<{len(masks)}I", *masks)
    return struct.pack("<2sIHHI", b"BM", at + rows.size, 0, 0, at) + body.ljust(header, b"\0") + rows.tobytes()


# --- WebP


def webp(samples: Samples, *, orientation: int | None = None, flags: int = 0) -> bytes:
    """Lossless; *flags* of the VP8X chunk, which 2 makes an animation."""
    data = encoded(".webp", samples, cv2.IMWRITE_WEBP_QUALITY, 101)
    if orientation is None and not flags:
        return data
    height, width = samples.shape[:2]
    flags |= (0x10 if samples.shape[2] == 4 else 0) | (0 if orientation is None else 8)
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + _riff(b"VP8X", bytes([flags, 0, 0, 0]) + size) + data[12:]
    return _riff(b"RIFF", body + (b"" if orientation is None else _riff(b"EXIF", exif(orientation))))


def _riff(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


# --- TIFF


def tiff(
    samples: Samples,
    *,
    colours: int,
    second: dict[int, int] | None = None,
    more: Sequence[dict[int, int]] = (),
    **tags: Any,
) -> bytes:
    """
    One strip of *samples* (height x width x channels, RGB), little-endian; *colours*: its photometric interpretation.

    *tags* are ``t338=2`` and the like, ints or tuples. *second*: the directory of another picture, of the same pixels,
    and *more* of further ones.
    """
    height, width, channels = samples.shape
    pixels = samples.tobytes()
    given = {int(name[1:]): value for name, value in tags.items()}
    fields: dict[int, Any] = {256: width, 257: height, 258: (samples.itemsize * 8,) * channels, 259: 1, 262: colours}
    fields |= {273: 8, 277: channels, 278: height, 279: len(pixels), **given}
    at = 8 + len(pixels)
    pages = [fields, *(fields | one for one in ([] if second is None else [second, *more]))]
    directories = b""
    for number, page in enumerate(pages, 1):
        directories += _directory(page, at + len(directories), following=number < len(pages))
    return b"II*\0" + struct.pack("<I", at) + pixels + directories


def _directory(fields: dict[int, Any], at: int, *, following: bool) -> bytes:
    outside_at = at + 2 + 12 * len(fields) + 4
    entries, outside = b"", b""
    for tag, value in sorted(fields.items()):
        values = value if isinstance(value, tuple) else (value,)
        code, kind = ("I", 4) if tag in {273, 279} else ("H", 3)
        packed = struct.pack(f"<{len(values)}{code}", *values)
        entries += struct.pack("<HHI", tag, kind, len(values))
        entries += packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", outside_at + len(outside))
        outside += b"" if len(packed) <= 4 else packed
    end = outside_at + len(outside)
    return struct.pack("<H", len(fields)) + entries + struct.pack("<I", end if following else 0) + outside
