"""Pictures of boards in all states of repair, and a line that takes them."""

from __future__ import annotations

import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from station.sources.folder import FolderSource
from station.types import Frame, Recorded

PATIENCE_S = 60.0  # a limit for a slow machine, not a measure


def picture(number: int = 0, *, suffix: str = ".png", side_px: int = 24, progressive: bool = False) -> bytes:
    """An encoded picture that tells its number: the value of its middle pixel (exactly where nothing is lost)."""
    image = np.full((side_px, side_px + 8, 3), number % 256, np.uint8)
    image[:2] = np.random.default_rng(number).integers(0, 255, image[:2].shape, np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1] if progressive else []
    done, encoded = cv2.imencode(suffix, image, options)
    assert done
    return encoded.tobytes()


def png_head(width_px: int, height_px: int) -> bytes:
    """A whole PNG by structure that claims any size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def drop(inbox: Path, name: str, data: bytes) -> Path:
    """Writes a file as a camera does: opened under its name, written, closed."""
    path = inbox / name
    path.write_bytes(data)
    return path


class Clock:
    """A monotonic clock that moves when it is told to, and counts how often it was read since."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now_s

    def advance(self, by_s: float) -> None:
        self.now_s += by_s


class Line:
    """What a line does with a source, one step at a time; *ledger* is what it has recorded."""

    def __init__(self, source: FolderSource, ledger: dict[str, Recorded], backlog: list[int]) -> None:
        self.stop = threading.Event()
        self.ledger = ledger
        self.backlog = backlog
        self.frames = source.frames(self.stop)

    def take(self) -> Frame:
        """The next frame, not recorded yet."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            frame = next(self.frames)
            if frame is not None:
                return frame
            assert time.monotonic() < deadline_s, "no frame came"

    def inspect(self) -> Frame:
        """Takes the next frame and records it."""
        frame = self.take()
        assert frame.id not in self.ledger, "a board was inspected twice"
        self.ledger[frame.id] = Recorded(frame.problem)
        return frame

    def idle(self, turns: int = 10) -> None:
        """Asks for more, which settles the last board, and sees that there is none."""
        for _ in range(turns):
            frame = next(self.frames)
            assert frame is None, f"unexpected frame of {frame.file if frame else None}"

    def idle_until(self, condition: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            self.idle(1)
            assert time.monotonic() < deadline_s, "the condition did not come true"

    def begin(self) -> None:
        """Until the first scan is over: what is dropped from now on is found by hints or later scans."""
        self.idle_until(lambda: self.backlog)

    def rest(self, clock: Clock) -> None:
        """Idle until the source has looked at everything, several times, at what *clock* says now."""
        clock.reads = 0
        self.idle_until(lambda: clock.reads >= 30)


@contextmanager
def line_on(inbox: Path, ledger: dict[str, Recorded] | None = None, **options: Any) -> Iterator[Line]:
    """A line that pulls from a folder source with *options*, closed at the end."""
    ledger = {} if ledger is None else ledger
    backlog: list[int] = []
    defaults = {
        "after": "move",
        "recorded": ledger.get,
        "in_flight": inbox.with_name("in-flight.json"),
        "on_backlog": backlog.append,
    }
    line = Line(FolderSource(inbox, **{**defaults, **options}), ledger, backlog)
    try:
        yield line
    finally:
        line.frames.close()


def files_below(inbox: Path, *, hidden: bool = False) -> set[str]:
    """The names (as far as they are text) of all files below the inbox."""
    found = {str(path.relative_to(inbox)) for path in inbox.rglob("*") if not path.is_dir() or path.is_symlink()}
    return found if hidden else {name for name in found if not name.rpartition("/")[2].startswith(".")}


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # counts, no paths
