"""A copy of the ledger while the station writes it, and what a copy must become before it is written to itself."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from station.errors import LedgerDamagedError, LedgerError
from station.ledger_file import LedgerFile, connect_to_read, examine, ledger_error


def copy_ledger(path: Path, target: Path) -> None:
    """
    Copies the ledger at *path*, as it is at one moment, into the new file *target*, for its owner only.

    A station may go on writing meanwhile. Raises LedgerError, LedgerDamagedError where the copy does not read.
    """
    target.touch(mode=0o600, exist_ok=False)
    try:
        with closing(connect_to_read(path)) as source, closing(sqlite3.connect(target)) as made:
            source.backup(made)  # in one step: a reader of a WAL keeps nobody from writing, and sees one moment
            made.execute("PRAGMA journal_mode = DELETE")  # one file, without a WAL beside it
    except sqlite3.Error as error:
        raise ledger_error(path, error) from error
    damage = examine(target)
    if damage is not None:
        raise LedgerDamagedError(f"ledger {path}: {damage}: restart the station, which saves what can be read")


def renew(path: Path, *, now: Callable[[], float] = time.time) -> str:
    """
    Gives the copy at *path* a UUID of its own, and returns it. Its boards and what it owes stay, its counting goes on.

    The original may have gone on counting after the copy was made: under one UUID two boards would have one number.
    Raises LedgerError.
    """
    damage = examine(path)
    if damage is not None:
        raise LedgerError(f"the ledger in this backup is damaged: {damage}")
    fresh, file = str(uuid.uuid4()), LedgerFile(path)
    try:
        with file.writing() as db:
            (old,) = db.execute("SELECT value FROM meta WHERE key = 'uuid'").fetchone()
            meta = [("uuid", fresh), ("restored_from", old), ("restored_at", str(now()))]
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta)
    finally:
        file.close()
    return fresh
