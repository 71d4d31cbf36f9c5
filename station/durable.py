"""
Files that are whole or not there, and moves that overwrite nothing, whatever happens meanwhile.

A new file is written under a name of its own beside its place, and takes that at once. What a power cut leaves of such
a draft is a hidden file that nobody reads.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from station.disk import sync_directory

DRAFT = ".part-"  # how the names of drafts begin

_AT_FDCWD = -100
_NOREPLACE = 1
# In glibc since 2.28 and in musl since 1.2.4; older ones have only what follows without it.
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)

# What file systems answer that do not know the flag (NFS, old FAT), or that have no hard links (FAT, some shares).
_NO_FLAG = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK})


def replace_file(
    path: Path, content: bytes, *, synced: bool = True, private: bool = False, adopted: bool = False
) -> None:
    """
    Puts *content* in *path*'s place; it is on the disk when this returns. Raises OSError.

    Not *synced*: after a power cut the file may be empty or gone, which its readers have to bear. *private*: for its
    owner's eyes alone. *adopted*: what commands write for the service, see ``adopt``.
    """
    with _draft(path, content, synced=synced, private=private, adopted=adopted) as draft:
        draft.replace(path)
    if synced:
        sync_directory(path.parent)


def read_kept(path: Path) -> dict[str, Any]:
    """The JSON document at *path*; empty if there is none, or it is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def write_kept(path: Path, document: dict[str, Any], *, private: bool = False, adopted: bool = False) -> None:
    """As ``replace_file``, for a small JSON document."""
    replace_file(path, json.dumps(document).encode(), private=private, adopted=adopted)


def keep_secret(path: Path, text: str) -> None:
    """
    Makes *path* with *text* for the owner's eyes alone, unless it is there already: the first one wins. Raises OSError.

    It is whole when it is there: an empty secret, as a power cut leaves it, would stop every start from then on.
    """
    with _draft(path, text.encode(), synced=True, private=True, adopted=True) as draft:
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    sync_directory(path.parent)


def write_synced(path: Path, text: str) -> None:
    """Writes the file, whose bytes (not its name) have reached the disk when this returns. Raises OSError."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def draft_of(path: Path) -> Path:
    """A name beside *path* that nobody else uses."""
    return path.with_name(f"{DRAFT}{os.urandom(8).hex()}")


def adopt(path: Path, *, like: Path | None = None) -> None:
    """
    Gives what root made to the owner of *like* (None: of its folder).

    What root puts into a service's folder has to be the service's, which reads it and writes beside it. Raises OSError.
    """
    if os.geteuid() == 0:
        owner = (like or path.parent).stat()
        os.chown(path, owner.st_uid, owner.st_gid)


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


@contextmanager
def _draft(path: Path, content: bytes, *, synced: bool, private: bool, adopted: bool) -> Iterator[Path]:
    """A file with *content* beside *path*, to be renamed within the block; it is deleted if that fails."""
    draft = draft_of(path)
    try:
        mode = 0o600 if private else 0o644
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            if adopted:
                adopt(draft)
            file.write(content)
            file.flush()
            if synced:
                os.fsync(file.fileno())
        yield draft
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _same(one: Path, other: Path) -> bool:
    first, second = one.lstat(), other.lstat()
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
