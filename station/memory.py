"""Keeps the process small: glibc by itself keeps memory for every thread, and what building a network has used."""

from __future__ import annotations

import ctypes
import gc

M_ARENA_MAX = -8  # mallopt(3)

_libc = ctypes.CDLL(None)


def share_one_heap() -> None:
    """
    All threads allocate from one heap. Before any thread is started.

    The station's threads hardly allocate at the same time; a heap for each costs 8 MB at the peak. Without glibc:
    nothing.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """Returns freed memory to the system: 12 MB after a network has been built. Without glibc: nothing."""
    gc.collect()
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
