"""Runs loops as a station does: each in a thread, until they are asked to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def running(*loops: Callable[[threading.Event], None]) -> Iterator[None]:
    """Inside it *loops* turn; leaving it asks them to stop, and fails the test if one does not."""
    stop = threading.Event()
    threads = [threading.Thread(target=one, args=(stop,)) for one in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
