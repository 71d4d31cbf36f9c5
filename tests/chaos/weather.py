"""The weather over one station: its disk fills up or fails, its clock jumps, by a library that is preloaded into it."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("weather.c")
LAYOUT = struct.Struct("=iiqq")  # struct weather: write_errno, sync_errno, clock_s, struck


class Weather:
    """In a ``with``; *environment* is what the station must be started with. *over* is the folder whose files fail."""

    def __init__(self, folder: Path, *, over: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "weather").open("w+b")
        self._file.write(bytes(LAYOUT.size))
        self._file.flush()
        self._shared = mmap.mmap(self._file.fileno(), LAYOUT.size)
        self.environment = {
            "LD_PRELOAD": str(_build(folder)),
            "CHAOS_WEATHER": str(folder / "weather"),
            "CHAOS_FOLDER": str(over.resolve()),
        }

    def __enter__(self) -> Weather:
        return self

    def __exit__(self, *_: object) -> None:
        self._shared.close()
        self._file.close()

    @property
    def struck(self) -> int:
        """How many calls were refused so far."""
        return int(LAYOUT.unpack(self._shared[:])[3])

    @property
    def clock_s(self) -> int:
        return int(LAYOUT.unpack(self._shared[:])[2])

    def disk(self, *, write_errno: int = 0, sync_errno: int = 0) -> None:
        """From now on writes and syncs end so; 0: they succeed."""
        struct.pack_into("=ii", self._shared, 0, write_errno, sync_errno)

    def clock(self, ahead_s: int) -> None:
        """From now on the wall clock is *ahead_s* ahead of the machine's."""
        struct.pack_into("=q", self._shared, 8, ahead_s)


def _build(folder: Path) -> Path:
    library = folder / "weather.so"
    subprocess.run([compiler(), "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


def compiler() -> str:
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        pytest.fail("a C compiler is missing: install gcc and libc6-dev (scripts/test and scripts/chaos do)")
    return found
