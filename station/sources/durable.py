"""Moves and writes that a power cut cannot undo, and that never overwrite anything."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from station.disk import sync_directory

_AT_FDCWD = -100
_NOREPLACE = 1
# In glibc since 2.28 and in musl since 1.2.4; older ones have only what follows without it.
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)

# What file systems answer that do not know the flag (NFS, old FAT), or that have no hard links (FAT, some shares).
_NO_FLAG = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK})


def rename_exclusive(source: Path, target: Path) -> None:
    """Renames, or raises FileExistsError and leaves both as they are. A symbolic link is moved, not followed."""
    if _renameat2 is not None:
        if _renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in _NO_FLAG:
            raise OSError(code, os.strerror(code), str(source), None, str(target))
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        if not _same(source, target):
            raise
        source.unlink()  # both are one file: a crash came between the two halves of an earlier attempt
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        source.rename(target)  # the last resort has a gap, but only people put files where the station moves them
    else:
        source.unlink()


def write_whole(path: Path, text: str) -> None:
    """Replaces the file's text: after a crash the old or the new one is there, whole. A neighbour is used to write."""
    draft = path.with_name(f"{path.name}.tmp")
    write_synced(draft, text)
    draft.replace(path)
    sync_directory(path.parent)


def write_synced(path: Path, text: str) -> None:
    """Writes the file, whose bytes (not its name) have reached the disk when this returns."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _same(one: Path, other: Path) -> bool:
    first, second = one.lstat(), other.lstat()
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
