"""Lines out of a stream of bytes, whatever comes."""

from __future__ import annotations

import random

import pytest

from station.framing import Lines


@pytest.mark.parametrize(
    ("terminator", "stream", "expected"),
    [
        (b"\r", b"T1\rT2\r", [b"T1", b"T2"]),
        (b"\r", b"T1\r\nT2\r\n", [b"T1", b"T2"]),
        (b"\n", b"T1\r\nT2\n", [b"T1", b"T2"]),
        (b"\r\n", b"T1\r\nT\r2\r\n", [b"T1", b"T\r2"]),
        (b"\r", b"\r\r\n\rT1\r", [b"T1"]),
        (b"\r", b"T1", []),
    ],
)
@pytest.mark.parametrize("piece", [1, 2, 100])
def test_lines_are_whole_however_they_come(terminator: bytes, stream: bytes, expected: list[bytes], piece: int) -> None:
    lines = Lines(terminator, max_bytes=16)
    found = [line for at in range(0, len(stream), piece) for line in lines.feed(stream[at : at + piece])]
    assert found == expected
    assert (lines.counts.bytes, lines.counts.lines) == (len(stream), len(expected))


@pytest.mark.parametrize("piece", [1, 7, 1000])
@pytest.mark.parametrize("terminator", [b"\r", b"\r\n"])
def test_a_line_that_is_too_long_is_dropped_to_its_end_and_the_next_is_whole(terminator: bytes, piece: int) -> None:
    lines = Lines(terminator, max_bytes=16)
    stream = b"x" * 100 + terminator + b"T1" + terminator + b"y" * 17 + terminator + b"T2" + terminator
    found = [line for at in range(0, len(stream), piece) for line in lines.feed(stream[at : at + piece])]
    assert found == [b"T1", b"T2"]
    assert lines.counts.overlong == 2


def test_what_never_ends_takes_no_memory() -> None:
    lines = Lines(b"\r", max_bytes=16)
    for _ in range(1000):
        assert lines.feed(b"noise" * 100) == []
    assert len(lines._kept) <= 16
    assert lines.counts.overlong == 1


def test_after_a_new_beginning_half_a_line_is_forgotten() -> None:
    lines = Lines(b"\r", max_bytes=16)
    lines.feed(b"T1")
    lines.clear()
    assert lines.feed(b"7\r") == [b"7"]


def test_half_a_line_before_a_silence_is_noise_and_what_comes_next_is_a_line_of_its_own() -> None:
    lines = Lines(b"\r", max_bytes=16)
    lines.feed(b"T1")
    lines.silence()
    lines.silence()
    assert lines.feed(b"T6\r") == [b"T6"]
    assert lines.counts.noise == 1


@pytest.mark.parametrize(("terminator", "stream"), [(b"\r", b"T1\r\n"), (b"\n", b"T1\r\n"), (b"\r\n", b"T1\r\n")])
def test_a_silence_between_lines_is_no_noise(terminator: bytes, stream: bytes) -> None:
    lines = Lines(terminator, max_bytes=16)
    assert lines.feed(stream) == [b"T1"]
    lines.silence()
    assert lines.feed(stream) == [b"T1"]
    assert lines.counts.noise == 0


def test_a_line_that_is_too_long_ends_with_a_silence() -> None:
    lines = Lines(b"\r", max_bytes=16)
    lines.feed(b"x" * 100)
    lines.silence()
    assert lines.feed(b"T1\r") == [b"T1"]
    assert (lines.counts.overlong, lines.counts.noise) == (1, 0)


@pytest.mark.parametrize("seed", range(10))
def test_any_bytes_in_any_pieces_give_the_same_lines(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # no secret
    stream = bytes(chance.choice(b"T0123\r\n\xff\x00") for _ in range(3000))
    terminator = chance.choice([b"\r", b"\n", b"\r\n"])
    whole = Lines(terminator, max_bytes=8)
    expected = whole.feed(stream)
    pieces = Lines(terminator, max_bytes=8)
    found, at = [], 0
    while at < len(stream):
        step = chance.randrange(1, 20)
        found += pieces.feed(stream[at : at + step])
        at += step
    assert found == expected
