"""Counts of requests that several workers of one machine share, in a small file that lives as long as they do."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import floor
from pathlib import Path

from limits.storage import SlidingWindowCounterSupport, Storage
from limits.storage.base import TimestampedSlidingWindow

BUSY_S = 1.0


class SharedCounts(Storage, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    """
    A storage of the library ``limits``: what its own one in memory is to one process, for all that open *path*.

    Nothing in it must survive anything, so nothing is synced. Any thread. Raises sqlite3.Error.
    """

    STORAGE_SCHEME = None

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._now = now
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = MEMORY")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS counts (key TEXT PRIMARY KEY, count INTEGER NOT NULL, until REAL NOT NULL)"
            " WITHOUT ROWID"
        )

    @property
    def base_exceptions(self) -> type[Exception]:
        return sqlite3.Error

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        with self._alone():
            previous, previous_s, current, _ = self.get_sliding_window(key, expiry)
            if floor(previous * previous_s / expiry + current) + amount > limit:
                return False
            self.incr(self.sliding_window_keys(key, expiry, self._now())[1], 2 * expiry, amount)
            return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        now_s = self._now()
        previous_key, current_key = self.sliding_window_keys(key, expiry, now_s)
        left_s = expiry - now_s % expiry
        return self.get(previous_key), left_s, self.get(current_key), left_s + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        for one in self.sliding_window_keys(key, expiry, self._now()):
            self.clear(one)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now_s = self._now()
        self._db.execute("DELETE FROM counts WHERE until < ?", (now_s,))
        count: int = self._db.execute(
            "INSERT INTO counts VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE SET count = count + ?2 RETURNING count",
            (key, amount, now_s + expiry),
        ).fetchone()[0]
        return count

    def get(self, key: str) -> int:
        row = self._db.execute("SELECT count FROM counts WHERE key = ?", (key,)).fetchone()
        return 0 if row is None else int(row[0])

    def get_expiry(self, key: str) -> float:
        row = self._db.execute("SELECT until FROM counts WHERE key = ?", (key,)).fetchone()
        return self._now() if row is None else float(row[0])

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        return self._db.execute("DELETE FROM counts").rowcount

    def clear(self, key: str) -> None:
        self._db.execute("DELETE FROM counts WHERE key = ?", (key,))

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other thread and no other process counts meanwhile."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                self._db.execute("COMMIT")
