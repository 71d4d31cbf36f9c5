"""
Do the strips or tiles of a TIFF hold what they must? Pure.

The decoder leaves black what a damaged one lacks, and says nothing: a black part of a board has no defects.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from station.header import FlawError
from station.tiff import Directory, directory_of

CHUNK = 65_536  # bytes expanded at a time: they become 68 MB at most, and none is kept
CLEAR, END, FIRST = 256, 257, 258  # LZW's codes that are no strings, and its first string
MOST_CODES = 4096 - FIRST + 2  # between two Clears: all strings that 12 bits can name, and the Clear

# Of each code after a Clear: how many bits it has, and where it begins. TIFF changes the width one code early (TIFF
# 6.0, section 13); the first code makes no string.
_FREE = FIRST + np.maximum(np.arange(MOST_CODES) - 1, 0)
_BITS = 9 + (_FREE >= 511).astype(np.int64) + (_FREE >= 1023) + (_FREE >= 2047)
_BEGINS = np.concatenate([[0], np.cumsum(_BITS)[:-1]])


@dataclass(frozen=True, slots=True)
class _Part:
    """A strip or a tile as it lies in the file, and how many bytes it has to make: a last strip may be whole."""

    packed: memoryview
    least: int
    most: int


def holds_all(data: bytes) -> bool:
    """
    Whether each part of the first picture in a TIFF, for which ``look`` knows no flaw, expands to the pixels it is for.

    Deflate has a checksum, and LZW and PackBits must come out at the right length. It takes 0.1 s for a megabyte of
    LZW, half of that at most for the others, and keeps nothing of what it expands.
    """
    try:
        directory = directory_of(data)
    except (struct.error, FlawError):
        return False
    expand = _EXPAND.get(directory.compression)
    parts = list(_parts(data, directory))
    return expand is not None and len(parts) == directory.parts_needed and all(map(expand, parts))


def _parts(data: bytes, directory: Directory) -> Iterator[_Part]:
    view = memoryview(data)
    across, down = directory.part_size
    row_bytes = -(-across * directory.bits * directory.channels // 8)
    most = row_bytes * down
    for number, (offset, count) in enumerate(directory.parts[: directory.parts_needed]):
        rows = down
        if not directory.tiled:
            rows = min(down, directory.height - number % directory.parts_a_plane * down)
        yield _Part(view[offset : offset + count], row_bytes * rows, most)


def _plain(part: _Part) -> bool:
    return len(part.packed) >= part.least


def _inflates(part: _Part) -> bool:
    expander, made = zlib.decompressobj(), 0
    try:
        for at in range(0, len(part.packed), CHUNK):
            made += len(expander.decompress(part.packed[at : at + CHUNK]))
            if expander.eof or made > part.most:
                break
    except zlib.error:
        return False
    return expander.eof and made in (part.least, part.most)


def _unpacks(part: _Part) -> bool:
    """PackBits: a byte below 128 announces so many others and one more; one above, how often the next is repeated."""
    packed, at, made = part.packed, 0, 0
    while at < len(packed) and made <= part.most:
        told = packed[at]
        if told < 128:
            made += told + 1
            at += told + 2
        else:
            made += 257 - told if told > 128 else 0
            at += 2 if told > 128 else 1
    return at == len(packed) and made in (part.least, part.most)


def _unzips(part: _Part) -> bool:
    """LZW: only the lengths of the strings are followed."""
    packed = np.concatenate([np.frombuffer(part.packed, np.uint8), np.zeros(3, np.uint8)])
    bits, at, made = len(part.packed) * 8, 0, 0
    if _codes(packed, 0, 1)[:1].tolist() != [CLEAR]:  # so it begins; another order of bits or an overwritten part
        return False
    at = 9
    while at < bits and made <= part.most:
        fitting = int(np.searchsorted(_BEGINS + _BITS, bits - at, side="right"))
        codes = _codes(packed, at, fitting)
        ends = np.flatnonzero((codes == CLEAR) | (codes == END))
        end = int(ends[0]) if ends.size else len(codes)
        strings = codes[:end]
        known = FIRST + np.arange(end)  # of strings, once the code is read: it may name the one that it completes
        known[:1] = CLEAR
        if (strings >= known).any():
            return False
        made += _length(strings.tolist())
        if end == len(codes):  # no END, and no room for more: some writers leave it away
            return len(codes) < MOST_CODES and made in (part.least, part.most)
        if codes[end] == END:
            break
        at += int(_BEGINS[end] + _BITS[end])
    return made in (part.least, part.most)


def _codes(packed: NDArray[np.uint8], at: int, count: int) -> NDArray[np.int64]:
    """The next *count* codes after a Clear, from bit *at* on. *packed* has three bytes more than its bits need."""
    begins, bits = at + _BEGINS[:count], _BITS[:count]
    byte = begins >> 3
    three = (packed[byte].astype(np.int64) << 16) | (packed[byte + 1].astype(np.int64) << 8) | packed[byte + 2]
    codes: NDArray[np.int64] = (three >> (24 - (begins & 7) - bits)) & ((1 << bits) - 1)
    return codes


def _length(codes: list[int]) -> int:
    """Of all strings that *codes*, which follow a Clear, stand for."""
    lengths = [1] * FIRST
    made = before = 0
    for code in codes:
        if before:
            lengths.append(before + 1)
        before = lengths[code]
        made += before
    return made


_EXPAND: dict[int, Callable[[_Part], bool]] = {1: _plain, 5: _unzips, 8: _inflates, 32946: _inflates, 32773: _unpacks}
