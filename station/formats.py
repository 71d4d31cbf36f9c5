"""What the bytes of an image file say of the picture in it, read without decoding it: size, depth, alpha. Pure."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import replace

from station.header import FlawError, Header
from station.tiff import exif_orientation, walk_tiff

KINDS = "JPEG, PNG, BMP, TIFF or WebP"


class NoImageError(Exception):
    """Raised for what is no known image; *hopeless*: and no byte that may follow could make one of it."""

    def __init__(self, flaw: str, *, hopeless: bool = False) -> None:
        super().__init__(flaw)
        self.hopeless = hopeless


def kind_of(data: bytes) -> str:
    """JPEG, PNG, BMP, TIFF or WebP, by the first bytes. Raises NoImageError."""
    for kind, signatures in _SIGNATURES.items():
        if any(_starts(data, signature) for signature in signatures):
            return kind
    head = data[:16]
    if not head:
        raise NoImageError("empty file")
    if not any(head):  # a writer may reserve its space with zeros before it writes
        raise NoImageError("nothing but zeros at its beginning")
    begun = any(
        len(head) < len(signature) and _starts(head, signature[: len(head)])
        for signatures in _SIGNATURES.values()
        for signature in signatures
    )
    raise NoImageError(f"not an image: {KINDS} expected", hopeless=not begun)


def read_header(data: bytes, kind: str) -> Header:
    """
    Walks through a file of that *kind*; no length in it is believed. Raises FlawError if it is not whole.

    Decoders accept truncated files (the rest of the board is then grey), so the end is looked for here.
    """
    return _WALKS[kind](data)


def _starts(data: bytes, signature: bytes) -> bool:
    """A dot in the signature stands for any byte, as in RIFF....WEBP."""
    if len(data) < len(signature):
        return False
    return all(want in (0x2E, got) for want, got in zip(signature, data, strict=False))


# --- JPEG (ITU T.81, annex B): segments FF xx length ..., then entropy-coded data in which FF is always FF 00

_SIZE_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOF0..15 without DHT, JPG, DAC
_MAX_SCANS = 100  # encoders make ten of a progressive picture; thousands keep a decoder busy for a minute
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RST0..7, SOI: no length follows
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # FF 00 is data, FF D0..D7 a restart, FF FF filling


def _walk_jpeg(data: bytes) -> Header:
    size: Header | None = None
    scans = 0
    orientation = 0  # none was told
    at = 2
    while True:
        # From the start of a segment this finds it at once; after a scan's header it skips the coded data; and where
        # a segment does not end at a marker it does what decoders do. An EOI within a segment (the thumbnail's) is
        # never met, since segments are stepped over.
        found = _NEXT_MARKER.search(data, at)
        if found is None:
            raise FlawError("truncated, no end-of-image mark")
        at = found.end()
        marker = data[at - 1]
        if marker == 0xD9:
            if size is None or not scans:
                raise FlawError("damaged, it ends without a picture")
            odd = f"{scans} scans, which take very long to decode: save it anew" if scans > _MAX_SCANS else size.odd
            return replace(size, orientation=orientation or 1, odd=odd)
        if marker in _BARE_MARKERS:
            continue
        if marker in _SIZE_MARKERS and size is None and at + 8 <= len(data):
            bits, height_px, width_px, channels = struct.unpack_from(">BHHB", data, at + 2)
            size = Header(width_px, height_px, odd=_odd_jpeg(bits, channels))
        scans += marker == 0xDA
        if at + 2 > len(data):
            raise FlawError("truncated, no end-of-image mark")
        length = max(2, int.from_bytes(data[at : at + 2], "big"))
        if marker == 0xE1 and not orientation and data.startswith(b"Exif\0\0", at + 2):
            orientation = exif_orientation(data[at + 8 : at + length])
        at += length


def _odd_jpeg(bits: int, channels: int) -> str | None:
    if channels == 4:  # decoders disagree on whether its inks are inverted
        return "a CMYK picture: save it as RGB"
    return None if bits == 8 else f"{bits} bits a sample: save it with 8 bits, or as PNG or TIFF"


# --- PNG (RFC 2083): chunks of length, type, data, CRC


def _walk_png(data: bytes) -> Header:
    head: Header | None = None
    pixels = False
    view = memoryview(data)  # slices of it are free, and the CRC runs over every byte
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise FlawError(f"damaged, wrong check sum of {kind.decode('latin-1')!r}")
        if kind == b"IHDR" and length >= 10:
            width_px, height_px, bits, colours = struct.unpack_from(">IIBB", data, at + 8)
            head = Header(width_px, height_px, 16 if bits == 16 else 8, alpha=bool(colours & 4))
        elif kind == b"tRNS" and head is not None:
            head = replace(head, alpha=True)
        elif kind == b"eXIf" and head is not None:
            head = replace(head, orientation=exif_orientation(data[at + 8 : end - 4]))
        elif kind == b"acTL" and head is not None:
            head = replace(head, odd="an animation: save it as one picture")
        pixels = pixels or kind == b"IDAT"
        if kind == b"IEND":
            if head is None or not pixels:
                raise FlawError("damaged, it ends without a picture")
            return head
        at = end
    raise FlawError("truncated, no IEND chunk")


# --- BMP: a file header of 14 bytes, an information header, perhaps a palette, rows padded to four bytes

_PLAIN = frozenset({0, 3, 6})  # BI_RGB, BI_BITFIELDS, BI_ALPHABITFIELDS: rows can be counted


def _walk_bmp(data: bytes) -> Header:
    if len(data) < 26:
        raise FlawError("truncated header")
    file_bytes, pixels_at, header_bytes = struct.unpack_from("<I4xII", data, 2)
    if header_bytes == 12:
        width_px, height_px, bits = struct.unpack_from("<HH2xH", data, 18)
        compression = coded_bytes = 0
    elif len(data) < 38:
        raise FlawError("truncated header")
    else:
        width_px, height_px, bits, compression, coded_bytes = struct.unpack_from("<ii2xHII", data, 18)
    height_px = abs(height_px)  # negative: the rows come top down
    if compression in _PLAIN:
        # Counted, and not read from the file size field: writers leave that at zero or wrong.
        needed = pixels_at + (max(width_px, 0) * bits + 31) // 32 * 4 * height_px
    else:
        needed = pixels_at + coded_bytes if coded_bytes else file_bytes
    if len(data) < max(needed, pixels_at + 1):
        raise FlawError(f"truncated, {len(data)} of {needed} bytes")
    # In a 32-bit one without masks the fourth byte is padding, and left at anything.
    masked = compression == 3 and bits == 32 and header_bytes >= 56
    alpha = masked and any(data[66:70])  # the mask of alpha, after those of red, green and blue
    return Header(width_px, height_px, alpha=alpha)


# --- WebP (RFC 9649): one RIFF container whose size is in its head


def _walk_webp(data: bytes) -> Header:
    needed = int.from_bytes(data[4:8], "little") + 8
    if len(data) < max(needed, 30):
        raise FlawError(f"truncated, {len(data)} of {needed} bytes")
    chunk = data[12:16]
    if chunk == b"VP8X":
        width_px, height_px = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        odd = "an animation: save it as one picture" if data[20] & 0x02 else None
        return Header(width_px, height_px, alpha=bool(data[20] & 0x10), orientation=_webp_orientation(data), odd=odd)
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return Header((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, alpha=bool(bits >> 28 & 1))
    if chunk == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width_px, height_px = struct.unpack_from("<HH", data, 26)
        return Header(width_px & 0x3FFF, height_px & 0x3FFF)
    raise FlawError("damaged, it begins with no picture")


def _webp_orientation(data: bytes) -> int:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            return exif_orientation(data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return 1


_SIGNATURES = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0"),
    "WebP": (b"RIFF....WEBP",),
}
_WALKS = {"JPEG": _walk_jpeg, "PNG": _walk_png, "BMP": _walk_bmp, "TIFF": walk_tiff, "WebP": _walk_webp}
