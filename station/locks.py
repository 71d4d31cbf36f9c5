"""Locks on files and folders (flock), which end with the process that holds them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def hold(path: Path, flags: int = os.O_RDONLY, *, mode: int = 0o666, wait: bool = False) -> int:
    """
    Locks *path* until the descriptor that is returned is closed; *flags* and *mode*: how it is opened, or made.

    Raises BlockingIOError while somebody else holds it, unless it may *wait*; OSError where it cannot be opened or its
    file system has no locks.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Waits for whoever holds *path*, and holds it; False: its file system has no locks. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield _waited_for(descriptor)
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool | None:
    """Whether somebody holds *path*; None: that cannot be told."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask at a time see no third
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def _waited_for(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True
