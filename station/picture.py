"""Judges what the bytes of an image file are from their structure alone, and decodes them. Pure but for the decoder."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from station.types import Image

KINDS = "JPEG, PNG, BMP, TIFF or WebP"

# Damaged files are this module's business: what the decoder thinks of them is noise on a service's stderr.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True, slots=True)
class Look:
    """
    What the bytes of a file say of themselves.

    *kind* is None for what is no known image. *flaw* says what is missing or wrong, None for a whole file: its header
    gives a size and its last part is there. *hopeless*: no byte that may follow could make an image of it.
    """

    kind: str | None
    width_px: int = 0
    height_px: int = 0
    flaw: str | None = None
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class _Size:
    width_px: int
    height_px: int


class _FlawError(Exception):
    """Raised when a walk through a file meets what is missing or wrong; its text is the flaw."""


def look(data: bytes) -> Look:
    """
    Looks at a whole file or at what there is of it. Nothing is decoded, and no length in the file is believed.

    Decoders accept truncated files (the rest of the board is then grey), so the end is looked for here.
    """
    for kind, signatures, walk in _WALKS:
        if any(_starts(data, signature) for signature in signatures):
            try:
                size = walk(data)
            except _FlawError as flaw:
                return Look(kind, flaw=f"{kind}: {flaw}")
            if size.width_px <= 0 or size.height_px <= 0:
                return Look(kind, flaw=f"damaged {kind}: it says it is {size.width_px} x {size.height_px} pixels")
            return Look(kind, size.width_px, size.height_px)
    return _no_image(data)


def decode(data: bytes) -> Image | None:
    """
    The picture as height x width x 3, BGR, uint8, turned as its EXIF orientation says; None if the decoder refuses it.

    Alpha is dropped, grey is spread, and 16 bits become 8. Only for what ``look`` found whole and of a bearable size:
    the decoder is native code, and allocates what the header asks for. Of damage within the coded data libjpeg and
    libpng may still say a line on stderr, which no setting of cv2 reaches.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    if image is None or image.ndim != 3 or image.dtype != np.uint8:
        return None
    return image.astype(np.uint8, copy=False)


def _starts(data: bytes, signature: bytes) -> bool:
    """A dot in the signature stands for any byte, as in RIFF....WEBP."""
    if len(data) < len(signature):
        return False
    return all(want in (0x2E, got) for want, got in zip(signature, data, strict=False))


def _no_image(data: bytes) -> Look:
    head = data[:16]
    if not head:
        return Look(None, flaw="empty file")
    if not any(head):  # a writer may reserve its space with zeros before it writes
        return Look(None, flaw="nothing but zeros at its beginning")
    begun = any(
        len(head) < len(signature) and _starts(head, signature[: len(head)])
        for _, signatures, _ in _WALKS
        for signature in signatures
    )
    return Look(None, flaw=f"not an image: {KINDS} expected", hopeless=not begun)


# --- JPEG (ITU T.81, annex B): segments FF xx length ..., then entropy-coded data in which FF is always FF 00

_SIZE_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOF0..15 without DHT, JPG, DAC
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RST0..7, SOI: no length follows
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # FF 00 is data, FF D0..D7 a restart, FF FF filling


def _walk_jpeg(data: bytes) -> _Size:
    size: _Size | None = None
    scans = 0
    at = 2
    while True:
        # From the start of a segment this finds it at once; after a scan's header it skips the coded data; and where
        # a segment does not end at a marker it does what decoders do. An EOI within a segment (the thumbnail's) is
        # never met, since segments are stepped over.
        found = _NEXT_MARKER.search(data, at)
        if found is None:
            raise _FlawError("truncated, no end-of-image mark")
        at = found.end()
        marker = data[at - 1]
        if marker == 0xD9:
            if size is None or not scans:
                raise _FlawError("damaged, it ends without a picture")
            return size
        if marker in _BARE_MARKERS:
            continue
        if marker in _SIZE_MARKERS and size is None and at + 7 <= len(data):
            height_px, width_px = struct.unpack_from(">HH", data, at + 3)
            size = _Size(width_px, height_px)
        scans += marker == 0xDA
        if at + 2 > len(data):
            raise _FlawError("truncated, no end-of-image mark")
        at += max(2, int.from_bytes(data[at : at + 2], "big"))


# --- PNG (RFC 2083): chunks of length, type, data, CRC


def _walk_png(data: bytes) -> _Size:
    size: _Size | None = None
    pixels = False
    view = memoryview(data)  # slices of it are free, and the CRC runs over every byte
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise _FlawError(f"damaged, wrong check sum of {kind.decode('latin-1')!r}")
        if kind == b"IHDR" and length >= 8:
            size = _Size(*struct.unpack_from(">II", data, at + 8))
        pixels = pixels or kind == b"IDAT"
        if kind == b"IEND":
            if size is None or not pixels:
                raise _FlawError("damaged, it ends without a picture")
            return size
        at = end
    raise _FlawError("truncated, no IEND chunk")


# --- BMP: a file header of 14 bytes, an information header, perhaps a palette, rows padded to four bytes

_PLAIN = frozenset({0, 3, 6})  # BI_RGB, BI_BITFIELDS, BI_ALPHABITFIELDS: rows can be counted


def _walk_bmp(data: bytes) -> _Size:
    if len(data) < 26:
        raise _FlawError("truncated header")
    file_bytes, pixels_at, header_bytes = struct.unpack_from("<I4xII", data, 2)
    if header_bytes == 12:
        width_px, height_px, bits = struct.unpack_from("<HH2xH", data, 18)
        compression = coded_bytes = 0
    elif len(data) < 38:
        raise _FlawError("truncated header")
    else:
        width_px, height_px, bits, compression, coded_bytes = struct.unpack_from("<ii2xHII", data, 18)
    height_px = abs(height_px)  # negative: the rows come top down
    if compression in _PLAIN:
        # Counted, and not read from the file size field: writers leave that at zero or wrong.
        needed = pixels_at + (max(width_px, 0) * bits + 31) // 32 * 4 * height_px
    else:
        needed = pixels_at + coded_bytes if coded_bytes else file_bytes
    if len(data) < max(needed, pixels_at + 1):
        raise _FlawError(f"truncated, {len(data)} of {needed} bytes")
    return _Size(width_px, height_px)


# --- TIFF 6.0 and BigTIFF: no end mark, so that the parts that the first directory names must lie within the file

_TIFF_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # BYTE, SHORT, LONG, IFD, LONG8, IFD8
_TIFF_BYTES = {2: 1, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 17: 8}  # all others: text, ratios, floats
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_PARTS = ((273, 279), (324, 325))  # offsets and byte counts: of strips, of tiles
_TIFF_WANTED = frozenset({_TIFF_WIDTH, _TIFF_HEIGHT, *(tag for pair in _TIFF_PARTS for tag in pair)})


def _walk_tiff(data: bytes) -> _Size:
    order = "<" if data[:2] == b"II" else ">"
    big = int.from_bytes(data[2:4], "little" if order == "<" else "big") == 43
    try:
        fields = dict(_tiff_fields(data, order, big=big))
    except struct.error:
        raise _FlawError("truncated, its directory lies beyond its end") from None
    parts = [(offset, count) for pair in _TIFF_PARTS for offset, count in _pairs(fields, *pair)]
    if not parts:
        raise _FlawError("damaged, its directory names no picture")
    end = max(offset + count for offset, count in parts)
    if end > len(data) or any(not offset or not count for offset, count in parts):  # zero: reserved, not yet written
        raise _FlawError(f"truncated, {len(data)} of {end} bytes")
    return _Size(next(iter(fields.get(_TIFF_WIDTH, ())), 0), next(iter(fields.get(_TIFF_HEIGHT, ())), 0))


def _pairs(fields: dict[int, tuple[int, ...]], offsets: int, counts: int) -> Iterator[tuple[int, int]]:
    if len(fields.get(offsets, ())) != len(fields.get(counts, ())):
        raise _FlawError("damaged, its directory contradicts itself")
    return zip(fields.get(offsets, ()), fields.get(counts, ()), strict=True)


def _tiff_fields(data: bytes, order: str, *, big: bool) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The directory's whole numbers by tag. Raises struct.error where it leads beyond the end of the data."""
    pointer, counter, entry_bytes, inline_bytes = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    (directory,) = struct.unpack_from(order + pointer, data, 8 if big else 4)
    if not directory:  # writers fill this in last
        raise _FlawError("truncated, it has no directory yet")
    (entries,) = struct.unpack_from(order + counter, data, directory)
    at = directory + struct.calcsize(counter)
    for _ in range(entries):
        tag, kind, count = struct.unpack_from(order + "HH" + pointer, data, at)
        code = _TIFF_WHOLE.get(kind)
        value_bytes = count * (struct.calcsize(code) if code else _TIFF_BYTES.get(kind, 0))
        value_at = at + entry_bytes - inline_bytes
        if value_bytes > inline_bytes:
            (value_at,) = struct.unpack_from(order + pointer, data, value_at)
        if value_at + value_bytes > len(data):  # before a hostile count is believed
            raise struct.error
        if code and tag in _TIFF_WANTED:
            yield tag, struct.unpack_from(f"{order}{count}{code}", data, value_at)
        at += entry_bytes
    struct.unpack_from(order + pointer, data, at)  # where the next directory would be: the last part of this one


# --- WebP (RFC 9649): one RIFF container whose size is in its head


def _walk_webp(data: bytes) -> _Size:
    needed = int.from_bytes(data[4:8], "little") + 8
    if len(data) < max(needed, 30):
        raise _FlawError(f"truncated, {len(data)} of {needed} bytes")
    chunk = data[12:16]
    if chunk == b"VP8X":
        return _Size(int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1)
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return _Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if chunk == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width_px, height_px = struct.unpack_from("<HH", data, 26)
        return _Size(width_px & 0x3FFF, height_px & 0x3FFF)
    raise _FlawError("damaged, it begins with no picture")


_WALKS = (
    ("JPEG", (b"\xff\xd8\xff",), _walk_jpeg),
    ("PNG", (b"\x89PNG\r\n\x1a\n",), _walk_png),
    ("BMP", (b"BM",), _walk_bmp),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0"), _walk_tiff),
    ("WebP", (b"RIFF....WEBP",), _walk_webp),
)
