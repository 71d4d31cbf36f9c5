"""The wish that the station stop, which a signal may bring at any moment."""

from __future__ import annotations

import os
import select
from contextlib import suppress


class StopSignal:
    """
    Is ``set`` by a signal's handler, and waited for by the thread that it interrupts; once, and for good.

    ``threading.Event`` is no such thing: its ``set`` takes a lock, which that very thread may hold as a part of its
    ``wait``, and then it stands still for ever. ``queue.SimpleQueue`` takes none, but its ``get`` forgets its timeout
    when that is over before it began to wait (CPython 3.11).
    """

    def __init__(self) -> None:
        self._set = False
        self._ours, self._theirs = os.pipe()
        os.set_blocking(self._theirs, False)

    def set(self) -> None:
        self._set = True
        with suppress(BlockingIOError):  # full of earlier ones, which will do
            os.write(self._theirs, b"\0")

    def is_set(self) -> bool:
        return self._set

    def wait(self, within_s: float) -> bool:
        """Whether it is set, at the latest after *within_s*."""
        if not self._set:
            select.select([self._ours], [], [], within_s)
        return self._set
