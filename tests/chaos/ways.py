"""How people and programs put a file into a folder: each way yields wherever something may happen in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def at_once(path: Path, data: bytes) -> Iterator[None]:
    path.write_bytes(data)
    yield


def slowly(path: Path, data: bytes) -> Iterator[None]:
    """In pieces, over a while, under its own name."""
    with path.open("wb", buffering=0) as out:
        for start in range(0, len(data), len(data) // 5):
            out.write(data[start : start + len(data) // 5])
            yield


def renamed(path: Path, data: bytes) -> Iterator[None]:
    hidden = path.with_name(f".{path.name}.tmp")
    hidden.write_bytes(data)
    yield
    hidden.rename(path)


def copied_over(path: Path, data: bytes) -> Iterator[None]:
    """A copy that broke off, and then the same copy once more."""
    path.write_bytes(data[: len(data) // 2])
    yield
    path.write_bytes(data)
