"""Board pictures in every format that is taken, and what becomes of them when somebody meddles with their bytes."""

from __future__ import annotations

import random
import struct
import zlib

import cv2
import numpy as np

from tests.daemon import picture

HUGE = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFF, 0x7FFFFFFF, 0xFFFFFFFF)


def seeds() -> list[tuple[str, bytes]]:
    """(kind, bytes) of whole pictures: JPEG, PNG, BMP, TIFF and WebP, in several of their ways."""
    colour = cv2.resize(picture(1), (96, 72))
    grey = colour[:, :, 1]
    deep = grey.astype(np.uint16) * 200
    clear = np.dstack([colour, grey])

    def made(suffix: str, image: object, *options: int) -> bytes:
        ok, data = cv2.imencode(suffix, np.asarray(image), list(options))
        assert ok
        return data.tobytes()

    return [
        ("jpeg", made(".jpg", colour)),
        ("jpeg", made(".jpg", colour, cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 4)),
        ("jpeg", made(".jpg", grey, cv2.IMWRITE_JPEG_QUALITY, 40)),
        ("png", made(".png", colour)),
        ("png", made(".png", deep)),
        ("png", made(".png", clear)),
        ("png", made(".png", (grey > 40).astype(np.uint8) * 255, cv2.IMWRITE_PNG_BILEVEL, 1)),
        ("bmp", made(".bmp", colour)),
        ("bmp", made(".bmp", clear)),
        ("tiff", made(".tiff", colour)),
        ("tiff", made(".tiff", deep, cv2.IMWRITE_TIFF_COMPRESSION, 8)),
        ("tiff", made(".tiff", grey, cv2.IMWRITE_TIFF_COMPRESSION, 1)),
        ("webp", made(".webp", colour)),
        ("webp", made(".webp", clear, cv2.IMWRITE_WEBP_QUALITY, 101)),
    ]


def mutant(whole: list[tuple[str, bytes]], number: int) -> tuple[str, bytes]:
    """The *number*-th mutant: always the same for the same *whole*."""
    chance = random.Random(number)  # noqa: S311  # a replay, no secret
    kind, data = chance.choice(whole)
    mutated = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        _meddle(mutated, chance, whole)
    if kind == "png" and chance.random() < 0.8:  # else nearly all of them end at a checksum, and not in the decoder
        _reseal(mutated)
    return kind, bytes(mutated)


def _reseal(data: bytearray) -> None:
    """Gives the chunks of a PNG their right checksums, as far as they can still be told apart."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


def _meddle(data: bytearray, chance: random.Random, whole: list[tuple[str, bytes]]) -> None:
    if len(data) < 16:
        return
    # Most of what a decoder believes stands at the beginning.
    at = chance.randrange(min(len(data), 200)) if chance.random() < 0.6 else chance.randrange(len(data))
    match chance.randrange(8):
        case 0:
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            data[at] = chance.choice((0, 0x7F, 0x80, 0xFF))
        case 2:
            code = chance.choice((">H", "<H", ">I", "<I"))
            struct.pack_into(
                code, data, min(at, len(data) - 4), chance.choice(HUGE) & (0xFFFF if code[1] == "H" else -1)
            )
        case 3:
            del data[at:]
        case 4:
            del data[at : at + chance.randrange(1, 64)]
        case 5:
            data[at:at] = chance.randbytes(chance.randrange(1, 64))
        case 6:
            piece = data[at : at + chance.randrange(2, 400)]
            data[at:at] = piece * chance.choice((1, 2, 50))
        case _:
            other = chance.choice(whole)[1]
            start = chance.randrange(len(other))
            data[at : at + 100] = other[start : start + chance.randrange(1, 200)]
