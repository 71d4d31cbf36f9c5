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

from station.disk import sync_directory
from station.types import Image, Inspection, Judged, Verdict

log = structlog.get_logger(__name__)

JPEG_QUALITY = 85  # 95 doubles the bytes and shows nothing more
WARN_AGAIN_S = 3600.0
STEP_FILES = 200  # one sweep looks at or deletes so many: some ms of the thread that also feeds the watchdog
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")

FONT = cv2.FONT_HERSHEY_SIMPLEX
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
BAR = {
    Verdict.PASS: (60, 130, 30),
    Verdict.FAIL: (40, 30, 190),
    Verdict.UNKNOWN: (0, 110, 190),
}  # BGR; white reads on all
COUNTS, BELOW, HIDDEN = (60, 60, 255), (0, 200, 255), (190, 190, 190)


class FolderEvidence:
    """
    Implements ``types.Evidence``: ``FOLDER/YYYY-MM-DD/EVENT_ID.jpg``, by the UTC date of capture.

    ``keep`` is for one thread at a time, ``sweep`` for one other.
    *allowed* says whether the disk has room for pictures. *max_bytes* and *keep_days* bound what ``sweep`` leaves.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: Literal["all", "rejects", "none"],
        allowed: Callable[[], bool],
        max_bytes: int,
        keep_days: float,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._allowed = allowed
        self._max_bytes = max_bytes
        self._keep_days = keep_days
        self._now = now
        self._monotonic = monotonic
        self._canvas: Image = np.empty((0, 0, 3), np.uint8)
        self._warned_s: dict[str, float] = {}
        self._round: Iterator[int] = iter(())
        self._bytes_by_day: dict[str, int] = {}

    def keep(self, inspection: Inspection) -> str | None:
        """
        Draws and writes the picture; returns its name below the folder once it is on the disk.

        None: not wanted, no picture, no room. A disk in trouble is a warning and None: evidence never stops the line.
        """
        image, verdict = inspection.frame.image, inspection.decision.verdict
        wanted = self._keep == "all" or (self._keep == "rejects" and verdict is not Verdict.PASS)
        if not wanted or image is None or not self._allowed():
            return None
        day = inspection.frame.captured_at.astimezone(timezone.utc).strftime("%Y-%m-%d")
        name = f"{day}/{inspection.frame.id}.jpg"
        try:
            canvas = self._canvas_for(image)
            draw(inspection, canvas)
            _write(self._folder / name, _jpeg(canvas))
        except OSError as error:
            self._warn(error.strerror or str(error), name)
            return None
        except cv2.error as error:  # a picture of a size that JPEG does not have
            self._warn(error.err or str(error), name)
            return None
        return name

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

    def _canvas_for(self, image: Image) -> Image:
        height, width = image.shape[:2]
        shape = (height + _bar_px(width), width, 3)
        if self._canvas.shape != shape:
            self._canvas = np.empty(shape, np.uint8)
        np.copyto(self._canvas[-height:], image)
        return self._canvas

    def _warn(self, what: str, name: str) -> None:
        now_s = self._monotonic()
        if now_s - self._warned_s.get(what, float("-inf")) >= WARN_AGAIN_S:
            self._warned_s[what] = now_s
            log.warning("evidence in trouble", error=what, file=name)

    def _sweeping(self) -> Iterator[int]:
        """One round over the folder, in steps; each yield is what a step deleted."""
        days = self._days()
        for day in [day for day in days if self._is_old(day)]:
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


def draw(inspection: Inspection, canvas: Image) -> None:
    """
    Draws boxes, labels and the verdict onto *canvas*: (bar + height) x width x 3, BGR, the picture in its lower part.

    Lines have a dark rim and labels a dark plate, so that they show on any board.
    """
    bar = _bar_px(canvas.shape[1])
    decision = inspection.decision
    for hidden in decision.suppressed:
        _mark(canvas, Judged(hidden.defect, counts=False), HIDDEN)
    for judged in reversed(decision.defects):  # the worst last, on top
        _mark(canvas, judged, COUNTS if judged.counts else BELOW)
    canvas[:bar] = BAR[decision.verdict]
    text = f"{decision.verdict.name}  {decision.reason}"
    _text(canvas, text, (bar // 4, bar - bar // 3), bar, WHITE)


def _mark(canvas: Image, judged: Judged, colour: tuple[int, int, int]) -> None:
    height, width = canvas.shape[:2]
    bar = _bar_px(width)
    box, thin = judged.defect.box, max(1, bar // 24)
    left, right = _px(box.x, width - 1), _px(box.x + box.width, width - 1)
    top, bottom = bar + _px(box.y, height - bar - 1), bar + _px(box.y + box.height, height - bar - 1)
    cv2.rectangle(canvas, (left, top), (right, bottom), BLACK, thin * 3)
    cv2.rectangle(canvas, (left, top), (right, bottom), colour, thin)
    label = f"{judged.defect.label} {judged.defect.confidence:.2f}"
    # Above the box; below it where the verdict's bar would be hit.
    _text(canvas, label, (left, top - bar // 4 if top > 2 * bar else bottom + bar), bar, colour, plate=True)


def _text(
    canvas: Image, text: str, at: tuple[int, int], bar: int, colour: tuple[int, int, int], *, plate: bool = False
) -> None:
    """Writes *text* with its baseline from *at*, moved so that it lies in the picture, on a dark plate if wanted."""
    plain, scale, thin = text.encode("ascii", "replace").decode(), bar / 48, max(1, bar // 24)
    (width, height), below = cv2.getTextSize(plain, FONT, scale, thin)
    left, baseline = max(0, min(at[0], canvas.shape[1] - width)), min(at[1], canvas.shape[0] - below)
    if plate:
        cv2.rectangle(canvas, (left, baseline - height - 1), (left + width, baseline + below // 2), BLACK, cv2.FILLED)
    cv2.putText(canvas, plain, (left, baseline), FONT, scale, colour, thin)


def _bar_px(width: int) -> int:
    """The height of the verdict bar, by which all drawing is scaled."""
    return max(16, width // 27)


def _px(value: float, most: int) -> int:
    return int(min(max(0.0, value), most))  # in this order a NaN becomes 0


def _jpeg(canvas: Image) -> bytes:
    ok, encoded = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise OSError(0, "the picture could not be encoded")
    return encoded.tobytes()


def _write(path: Path, content: bytes) -> None:
    """Writes *content* under a name that is there only when all of it is on the disk. Raises OSError."""
    temporary = path.with_name(f".{path.stem}.tmp")
    try:
        try:
            file = temporary.open("wb")
        except FileNotFoundError:
            _make_folder(path.parent)
            file = temporary.open("wb")
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_directory(path.parent)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _make_folder(path: Path) -> None:
    """Makes *path* and what is missing above it, durably."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_directory(one.parent)
