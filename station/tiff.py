"""Reads the directories of TIFF 6.0, BigTIFF and EXIF, believing no length in them. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from station.header import FlawError, Header

_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # BYTE, SHORT, LONG, IFD, LONG8, IFD8
_BYTES = {2: 1, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 17: 8}  # all others: text, ratios, floats
_WIDTH, _HEIGHT, _BITS, _COLOURS, _ORIENTATION, _CHANNELS = 256, 257, 258, 262, 274, 277
_SUBFILE, _EXTRA, _FORMAT = 254, 338, 339
_COMPRESSION, _BIT_ORDER, _STRIP_ROWS, _PLANES, _TILE_WIDTH, _TILE_HEIGHT = 259, 266, 278, 284, 322, 323
_PARTS = ((273, 279), (324, 325))  # offsets and byte counts: of strips, of tiles
_WANTED = frozenset(
    {_WIDTH, _HEIGHT, _BITS, _COLOURS, _ORIENTATION, _CHANNELS}
    | {_COMPRESSION, _BIT_ORDER, _STRIP_ROWS, _PLANES, _TILE_WIDTH, _TILE_HEIGHT}
    | {_SUBFILE, _EXTRA, _FORMAT, *(tag for pair in _PARTS for tag in pair)}
)
_MOST_PARTS = 1 << 20  # 16 x 16 pixels each make 268 million
_MOST_COPIES = 30  # each has half of the last one's sides, or is its mask; a file must not keep us busy with more
_NEXT = 0  # no tag: where the next directory is
_WHITE_IS_ZERO, _PLAIN_COLOURS = 0, frozenset({0, 1, 2, 3, 6})  # grey either way, RGB, palette, YCbCr

_PLAIN = 1
_CHECKED = frozenset({_PLAIN, 5, 8, 32946, 32773})  # and LZW, Deflate by either number, PackBits: see tiff_parts
_COMPRESSIONS = {
    2: "CCITT",
    3: "CCITT",
    4: "CCITT",
    6: "JPEG",
    7: "JPEG",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
}
_YCBCR, _REVERSED, _APART = 6, 2, 2

_Fields: TypeAlias = dict[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Directory:
    """
    How the first picture of a TIFF is stored.

    *parts*: offset and byte count of each strip, or tile; *part_size*: columns and rows of one. Of *channels* together;
    where each channel lies apart it is 1, and *parts_a_plane* of them make one channel.
    """

    compression: int
    height: int
    bits: int
    channels: int
    tiled: bool
    part_size: tuple[int, int]
    parts: tuple[tuple[int, int], ...]
    parts_a_plane: int
    parts_needed: int


def walk_tiff(data: bytes) -> Header:
    """There is no end mark, so the parts that the first directory names must lie within the file. Raises FlawError."""
    order = "<" if data[:2] == b"II" else ">"
    big = int.from_bytes(data[2:4], "little" if order == "<" else "big") == 43
    try:
        fields = _fields(data, order, big=big)
        odd_others = _odd_others(_others(data, order, big=big, first=fields))
    except struct.error:
        raise FlawError("truncated, its directory lies beyond its end") from None
    parts = [(offset, count) for pair in _PARTS for offset, count in _pairs(fields, *pair)]
    if not parts:
        raise FlawError("damaged, its directory names no picture")
    end = max(offset + count for offset, count in parts)
    if end > len(data) or any(not offset or not count for offset, count in parts):  # zero: reserved, not yet written
        raise FlawError(f"truncated, {len(data)} of {end} bytes")
    bits = max(fields.get(_BITS, (1,)), default=1)
    return Header(
        _first(fields, _WIDTH, 0),
        _first(fields, _HEIGHT, 0),
        bits=max(8, bits),
        alpha=_first(fields, _CHANNELS, 1) == 4,
        # By the file (1: associated; 0, which says nothing, is read as that) or by libtiff, which does so with 8 bits.
        premultiplied=bits <= 8 or _first(fields, _EXTRA, 0) != 2,
        odd=_odd_first(fields, bits) or _odd_compression(fields) or odd_others,
    )


def directory_of(data: bytes) -> Directory:
    """Raises FlawError and struct.error for what ``walk_tiff`` finds no fault in, and yet cannot be."""
    order = "<" if data[:2] == b"II" else ">"
    fields = _fields(data, order, big=int.from_bytes(data[2:4], "little" if order == "<" else "big") == 43)
    width, height = _first(fields, _WIDTH, 0), _first(fields, _HEIGHT, 0)
    tiled = _PARTS[1][0] in fields
    if tiled:
        size = (_first(fields, _TILE_WIDTH, 0), _first(fields, _TILE_HEIGHT, 0))
    else:
        size = (width, min(_first(fields, _STRIP_ROWS, height), height))
    if min(size) <= 0:
        raise FlawError("damaged, its parts have no size")
    channels = _first(fields, _CHANNELS, 1)
    planes = channels if _first(fields, _PLANES, 1) == _APART else 1
    a_plane = -(-width // size[0]) * -(-height // size[1])
    return Directory(
        compression=_first(fields, _COMPRESSION, _PLAIN),
        height=height,
        bits=max(fields.get(_BITS, (1,)), default=1),
        channels=channels // planes,
        tiled=tiled,
        part_size=size,
        parts=tuple(_pairs(fields, *_PARTS[tiled])),
        parts_a_plane=a_plane,
        parts_needed=a_plane * planes,
    )


def exif_orientation(exif: bytes) -> int:
    """EXIF's 1 to 8; 1, upright, where it does not say otherwise. EXIF is a TIFF without a picture."""
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        turned = _first(_fields(exif, "<" if exif[:2] == b"II" else ">", big=False), _ORIENTATION, 1)
    except (struct.error, FlawError):
        return 1
    return turned if 1 <= turned <= 8 else 1


def _odd_first(fields: _Fields, bits: int) -> str | None:
    colours, channels = _first(fields, _COLOURS, 1), _first(fields, _CHANNELS, 1)
    if colours not in _PLAIN_COLOURS:
        kind = {5: "CMYK", 8: "CIE Lab"}.get(colours, f"photometric interpretation {colours}")
        return f"a picture in other colours ({kind}): save it as RGB or grey"
    if channels not in {1, 3, 4}:
        return f"{channels} channels: save it as RGB or grey"
    if bits > 16 or any(one not in {1, 4} for one in fields.get(_FORMAT, ())):  # unsigned, or not said
        return "samples that are signed, fractions or of more than 16 bits: save it with 8 or 16 bits"
    if bits > 8 and colours == _WHITE_IS_ZERO:
        return f"{bits} bits a sample of which zero is white: save it with zero as black"
    return None


def _odd_compression(fields: _Fields) -> str | None:
    """Where nobody could tell what is damaged: the decoder leaves that black, and a black part has no defects."""
    compression, colours = _first(fields, _COMPRESSION, _PLAIN), _first(fields, _COLOURS, 1)
    if compression not in _CHECKED:
        kind = _COMPRESSIONS.get(compression, f"compression {compression}")
        return f"a compression whose damage would not be seen ({kind}): save it uncompressed, with Deflate, or as PNG"
    if compression != _PLAIN and (colours == _YCBCR or _first(fields, _BIT_ORDER, 1) == _REVERSED):
        return "compressed samples in an unusual order: save it uncompressed, or as PNG"
    return None


def _others(data: bytes, order: str, *, big: bool, first: _Fields) -> Iterator[_Fields]:
    """The directories behind the *first* one, once each. Raises struct.error as ``_fields`` does."""
    (at,) = first[_NEXT]
    seen = set[int]()
    while at and at not in seen:
        seen.add(at)
        fields = _fields(data, order, big=big, directory=at)
        yield fields
        (at,) = fields[_NEXT]


def _odd_others(others: Iterator[_Fields]) -> str | None:
    """Others in the file are fine as reduced copies or masks of the first; another picture would not be seen."""
    if any(number == _MOST_COPIES or not _first(one, _SUBFILE, 0) & 5 for number, one in enumerate(others)):
        return "more than one page: save each as a file"
    return None


def _first(fields: _Fields, tag: int, absent: int) -> int:
    return next(iter(fields.get(tag, ())), absent)


def _pairs(fields: _Fields, offsets: int, counts: int) -> Iterator[tuple[int, int]]:
    if len(fields.get(offsets, ())) != len(fields.get(counts, ())):
        raise FlawError("damaged, its directory contradicts itself")
    return zip(fields.get(offsets, ()), fields.get(counts, ()), strict=True)


def _fields(data: bytes, order: str, *, big: bool, directory: int | None = None) -> _Fields:
    """
    The whole numbers by tag that the first directory holds, or the one at *directory*.

    Raises struct.error where it leads beyond the end of the data.
    """
    pointer, counter, entry_bytes, inline_bytes = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    if directory is None:
        (directory,) = struct.unpack_from(order + pointer, data, 8 if big else 4)
    if not directory:  # writers fill this in last
        raise FlawError("truncated, it has no directory yet")
    (entries,) = struct.unpack_from(order + counter, data, directory)
    at = directory + struct.calcsize(counter)
    fields: _Fields = {}
    for _ in range(entries):
        tag, kind, count = struct.unpack_from(order + "HH" + pointer, data, at)
        code = _WHOLE.get(kind)
        value_bytes = count * (struct.calcsize(code) if code else _BYTES.get(kind, 0))
        value_at = at + entry_bytes - inline_bytes
        if value_bytes > inline_bytes:
            (value_at,) = struct.unpack_from(order + pointer, data, value_at)
        if value_at + value_bytes > len(data):  # before a hostile count is believed
            raise struct.error
        if code and tag in _WANTED and tag not in fields:
            if count > _MOST_PARTS:
                raise FlawError("damaged, it is in more parts than a picture can have")
            fields[tag] = struct.unpack_from(f"{order}{count}{code}", data, value_at)
        at += entry_bytes
    fields[_NEXT] = struct.unpack_from(order + pointer, data, at)  # the last part of the directory
    return fields
