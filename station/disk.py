"""How much room the disks have left, and what that still allows."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from enum import Enum
from operator import itemgetter
from pathlib import Path
from typing import Protocol

RISE = 1.05  # free space must pass a floor by 5 % before more is allowed again: one deleted file must not make it flap
NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})
CACHE_S = 1.0  # the line asks before every board; the answer of the last second is good enough


class Room(Enum):
    """What the free space allows: everything, everything but pictures, or no board at all."""

    PLENTY = "plenty"
    NO_EVIDENCE = "no evidence"
    FULL = "full"


class Statvfs(Protocol):
    """The part of ``os.statvfs_result`` that is looked at."""

    @property
    def f_bavail(self) -> int: ...
    @property
    def f_frsize(self) -> int: ...
    @property
    def f_files(self) -> int: ...
    @property
    def f_favail(self) -> int: ...


def room(free_bytes: int, *, evidence_floor_bytes: int, stop_floor_bytes: int, before: Room = Room.PLENTY) -> Room:
    """What *free_bytes* allow, given what was allowed *before*: down at a floor, up only 5 % above it. Pure."""
    stop_at = stop_floor_bytes * (RISE if before is Room.FULL else 1.0)
    if free_bytes < stop_at:
        return Room.FULL
    spare_at = evidence_floor_bytes * (1.0 if before is Room.PLENTY else RISE)
    return Room.NO_EVIDENCE if free_bytes < spare_at else Room.PLENTY


class Disks:
    """
    The room on the file systems of several paths: the fullest one counts. Any thread may ask.

    A path that cannot be asked (an inbox that is not mounted) does not count; when none can be asked there is no room.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        evidence_floor_bytes: int,
        stop_floor_bytes: int,
        monotonic: Callable[[], float] = time.monotonic,
        statvfs: Callable[[Path], Statvfs] = os.statvfs,
    ) -> None:
        self._paths = tuple(paths)
        self._evidence_floor_bytes = evidence_floor_bytes
        self._stop_floor_bytes = stop_floor_bytes
        self._monotonic = monotonic
        self._statvfs = statvfs
        self._lock = threading.Lock()
        self._asked_s = float("-inf")
        self._free_bytes = 0
        self._fullest: Path | None = None
        self._room = Room.PLENTY

    def room(self) -> Room:
        """What the free space allows, at most a second old."""
        with self._lock:
            self._ask()
            return self._room

    def free_bytes(self) -> int:
        """Free bytes on the fullest file system, at most a second old."""
        with self._lock:
            self._ask()
            return self._free_bytes

    def fullest(self) -> Path | None:
        """The path whose file system has the least room, as ``free_bytes`` found it; None: no path can be asked."""
        with self._lock:
            self._ask()
            return self._fullest

    def _ask(self) -> None:
        now_s = self._monotonic()
        if now_s - self._asked_s < CACHE_S:
            return
        self._asked_s = now_s
        self._free_bytes, self._fullest = min(self._answers(), key=itemgetter(0), default=(0, None))
        self._room = room(
            self._free_bytes,
            evidence_floor_bytes=self._evidence_floor_bytes,
            stop_floor_bytes=self._stop_floor_bytes,
            before=self._room,
        )

    def _answers(self) -> Iterator[tuple[int, Path]]:
        for path in self._paths:
            with suppress(OSError):  # what hangs on this path will say so itself
                yield free_bytes(path, statvfs=self._statvfs), path


def free_bytes(path: Path, *, statvfs: Callable[[Path], Statvfs] = os.statvfs) -> int:
    """What an ordinary user may still write below *path*, in bytes; 0 when no file can be made. Raises OSError."""
    found = statvfs(path)
    if found.f_files and not found.f_favail:  # no inodes left; btrfs and the like have no such number and say 0 of 0
        return 0
    return found.f_bavail * found.f_frsize


def sync_directory(path: Path) -> None:
    """
    Makes the names in *path* durable: a file's own fsync does not promise its name. Raises OSError.

    What was renamed into, out of or within it has reached the disk when this returns.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:  # some shares cannot sync a folder: then their server's word is all there is
            raise
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Makes the folder, and those above it, so that they will be there after a power cut. Raises OSError."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with suppress(FileExistsError):
        path.mkdir()
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    sync_directory(path.parent)
