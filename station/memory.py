"""Keeps the process small: glibc by itself keeps memory for every thread, and what building a network has used."""

from __future__ import annotations

import ctypes
import gc
import importlib
import sys

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


def leave_out_rich() -> None:
    """
    Has structlog do without rich and pygments: 5 MB, for tracebacks of a kind that we do not print.

    Before anything imports structlog; who imports rich afterwards gets it.
    """
    if {"structlog", "rich"} & sys.modules.keys():
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # None: importing it raises ImportError
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]


def give_back() -> None:
    """Returns freed memory to the system: 12 MB after a network has been built. Without glibc: nothing."""
    gc.collect()
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
