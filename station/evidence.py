"""Pictures as evidence: what was seen and found on a board, drawn, whole on disk, and cleared away in time."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import structlog

from station.disk import make_directory, sync_directory
from station.drawing import drawn
from station.types import Image, Inspection, Verdict

log = structlog.get_logger(__name__)

# Quality 95 doubles the bytes and shows nothing more; colour at half the resolution saves a fifth of the time.
JPEG = [
    *(cv2.IMWRITE_JPEG_QUALITY, 85),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
]
WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
WARN_AGAIN_S = 3600.0
STEP_FILES = 200  # one sweep looks at or deletes so many: some ms of the thread that also feeds the watchdog
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class FolderEvidence:
    """
    Implements ``types.Evidence``: ``FOLDER/YYYY-MM-DD/EVENT_ID.jpg``, by the UTC date of capture.

    ``keep`` is for one thread at a time, ``sweep`` for one other.
    *allowed* says whether the disk has room for pictures. *max_bytes* and *keep_days* bound what ``sweep`` leaves;
    the latter only while *clock_synced* says that the time is known.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: Literal["all", "rejects", "none"],
        allowed: Callable[[], bool],
        max_bytes: int,
        keep_days: float,
        clock_synced: Callable[[], bool] = lambda: True,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._allowed = allowed
        self._max_bytes = max_bytes
        self._keep_days = keep_days
        self._clock_synced = clock_synced
        self._now = now
        self._monotonic = monotonic
        self._canvas: Image = np.empty((0, 0, 3), np.uint8)
        self._warned_s: dict[str, float] = {}
        self._round: Iterator[int] = iter(())
        self._bytes_by_day: dict[str, int] = {}

    def keep(self, inspection: Inspection) -> str | None:
        """
        Draws and writes the picture; returns its name below the folder once it is on the disk.

        None: not wanted, no picture, no room. A disk or memory in trouble is a warning and None: evidence never stops
        the line.
        """
        image, verdict = inspection.frame.image, inspection.decision.verdict
        wanted = self._keep == "all" or (self._keep == "rejects" and verdict is not Verdict.PASS)
        if not wanted or image is None or not self._allowed():
            return None
        day = inspection.frame.captured_at.astimezone(timezone.utc).strftime("%Y-%m-%d")
        name = f"{inspection.frame.id}.jpg"
        try:
            self._canvas = drawn(image, inspection.decision, into=self._canvas)
            _write(self._folder / day, name, _jpeg(self._canvas))
        except OSError as error:
            self._warn(error.strerror or str(error), f"{day}/{name}")
            return None
        except MemoryError as error:
            self._warn(f"too little memory: {error}", f"{day}/{name}")
            return None
        except cv2.error as error:  # a picture of a size that JPEG does not have
            self._warn(error.err or str(error), f"{day}/{name}")
            return None
        return f"{day}/{name}"

    def sweep(self) -> int:
        """
        One small step of clearing away what is too old or too much, oldest first; returns how many files it deleted.

        Call it about once a second. Whatever stands in the way is a warning.
        """
        try:
            deleted = next(self._round, None)
            if deleted is None:
                self._round = self._sweeping()
                deleted = next(self._round, 0)
        except OSError as error:
            self._round = iter(())
            self._warn(error.strerror or str(error), str(self._folder))
            return 0
        return deleted

    def _warn(self, what: str, name: str) -> None:
        now_s = self._monotonic()
        if now_s - self._warned_s.get(what, float("-inf")) >= WARN_AGAIN_S:
            self._warned_s[what] = now_s
            log.warning("evidence in trouble", error=what, file=name)

    def _sweeping(self) -> Iterator[int]:
        """One round over the folder, in steps; each yield is what a step deleted."""
        days = self._days()
        # By a clock that nobody has set, everything may be old: what is too much still goes.
        for day in [day for day in days if self._is_old(day)] if self._clock_synced() else []:
            yield from self._clear(day, max_bytes=None)
            days.remove(day)
        # Nobody writes into a day that is two days gone: it is measured once, and then only the last two are.
        for day in days:
            if day not in self._bytes_by_day or day in days[-2:]:
                yield from self._measure(day)
        self._bytes_by_day = {day: self._bytes_by_day[day] for day in days}
        for day in days:
            surplus = sum(self._bytes_by_day.values()) - self._max_bytes
            if surplus <= 0:
                break
            yield from self._clear(day, max_bytes=surplus)

    def _days(self) -> list[str]:
        if not self._folder.exists():
            return []
        with os.scandir(self._folder) as entries:
            return sorted(one.name for one in entries if DAY.fullmatch(one.name) and one.is_dir(follow_symlinks=False))

    def _is_old(self, day: str) -> bool:
        """Its youngest picture, of the last second of that day, is older than *keep_days*."""
        try:
            ended_s = datetime.strptime(f"{day}+0000", "%Y-%m-%d%z").timestamp() + 86_400
        except ValueError:  # 2026-13-45 is none of ours
            return False
        return ended_s < self._now() - self._keep_days * 86_400

    def _measure(self, day: str) -> Iterator[int]:
        size = 0
        for count, (_, _, file_bytes) in enumerate(self._pictures(day), start=1):
            size += file_bytes
            if count % STEP_FILES == 0:
                yield 0
        self._bytes_by_day[day] = size

    def _clear(self, day: str, *, max_bytes: int | None) -> Iterator[int]:
        """Deletes the oldest of *day* until *max_bytes* are gone; None: all of them, and the day."""
        found: list[tuple[float, Path, int]] = []
        for one in self._pictures(day):
            found.append(one)
            if len(found) % STEP_FILES == 0:
                yield 0
        gone_bytes, deleted = 0, 0
        for _, path, file_bytes in sorted(found):
            if max_bytes is not None and gone_bytes >= max_bytes:
                break
            path.unlink(missing_ok=True)
            gone_bytes += file_bytes
            deleted += 1
            if deleted == STEP_FILES:
                yield deleted
                deleted = 0
        self._bytes_by_day[day] = max(0, self._bytes_by_day.get(day, 0) - gone_bytes)
        with suppress(OSError):  # not empty: what is left is not ours, or was written just now
            (self._folder / day).rmdir()
        yield deleted

    def _pictures(self, day: str) -> Iterator[tuple[float, Path, int]]:
        """(modification time, path, bytes) of each picture of *day*, and of what a crash left half written."""
        with os.scandir(self._folder / day) as entries:
            for one in entries:
                if one.name.endswith((".jpg", ".tmp")) and one.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # it has just got its name
                        found = one.stat(follow_symlinks=False)
                        yield found.st_mtime, Path(one.path), found.st_size


def _jpeg(canvas: Image) -> memoryview:
    ok, encoded = cv2.imencode(".jpg", canvas, JPEG)
    if not ok:
        raise OSError(0, "the picture could not be encoded")
    return encoded.reshape(-1).data


def _write(folder: Path, name: str, content: memoryview) -> None:
    """
    Writes *content* under a name that is there only when all of it is on the disk. Raises OSError.

    Plain system calls: through pathlib and a buffered file it takes twice the CPU time, once a board.
    """
    temporary = f"{folder}/.{name}.tmp"
    try:
        try:
            descriptor = os.open(temporary, WRITE_NEW, 0o666)
        except FileNotFoundError:
            make_directory(folder)
            descriptor = os.open(temporary, WRITE_NEW, 0o666)
        try:
            while content:  # a disk that fills up takes a part, and refuses the rest
                content = content[os.write(descriptor, content) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, f"{folder}/{name}")  # noqa: PTH104  # see above
        sync_directory(folder)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108  # see above
        raise
