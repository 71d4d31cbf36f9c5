"""Every trigger on disk before it is answered: the books that must balance, and what a crash left unanswered."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from station.errors import LedgerError
from station.ledger_file import BUSY_S, LedgerFile, beside, ledger_error
from station.today import Books
from station.types import Trigger, Verdict

NAME = "triggers.db"
UNANSWERED = "unanswered"  # the station went down before it could answer, and the line was told nothing
CHUNK_ROWS = 500

# Beside the ledger, not in it: a trigger must not wait for the commit of the board before it.
TABLES = (
    """CREATE TABLE IF NOT EXISTS triggers (
 row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, at REAL NOT NULL,
 number INTEGER, board_serial TEXT, answer TEXT, answered_at REAL, recorded INTEGER NOT NULL DEFAULT 0)""",
    "CREATE INDEX IF NOT EXISTS triggers_at ON triggers (at)",
    "CREATE INDEX IF NOT EXISTS triggers_open ON triggers (row) WHERE answer IS NULL OR recorded = 0",
)


class TriggerJournal:
    """
    The triggers on disk. Any thread may call it; each call but ``books`` and ``left_open`` is one durable commit.

    *now* is the wall clock in UNIX seconds. Raises LedgerError when the file cannot be read or written.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self._file = LedgerFile(path, connect=_connect)
        self._now = now

    def arrived(self, trigger: Trigger) -> None:
        """
        From here on the station owes an answer, also after a crash.

        The same trigger again changes nothing: a disk may have taken what it said it had not.
        """
        values = (trigger.id, trigger.kind, trigger.at.timestamp(), trigger.number, trigger.board_serial)
        with self._file.writing() as db:
            db.execute(
                "INSERT INTO triggers (id, kind, at, number, board_serial) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO NOTHING",
                values,
            )

    def answered(self, trigger_id: str, verdict: Verdict) -> None:
        """The line has been told, or the attempt was made: it is not told again."""
        self._mark("answer = ?, answered_at = ?", (verdict.value, self._now()), trigger_id)

    def unanswered(self, trigger_id: str) -> None:
        self._mark(f"answer = '{UNANSWERED}', answered_at = ?", (self._now(),), trigger_id, only="answer IS NULL")

    def recorded(self, trigger_id: str) -> None:
        """The ledger holds its board."""
        self._mark("recorded = 1", (), trigger_id)

    def left_open(self) -> list[tuple[Trigger, str | None]]:
        """
        What an earlier run left without answer or record, oldest first, and the answer that the line was given.

        The monotonic time of such a trigger means nothing.
        """
        with self._file.reading() as db:
            found = db.execute(
                "SELECT id, kind, at, number, board_serial, answer FROM triggers"
                " WHERE answer IS NULL OR recorded = 0 ORDER BY row"
            ).fetchall()
        return [
            (Trigger(event_id, kind, datetime.fromtimestamp(at, timezone.utc), float("-inf"), number, serial), answer)
            for event_id, kind, at, number, serial, answer in found
        ]

    def books(self, *, since_s: float) -> Books:
        """The triggers that came at *since_s* (UNIX time) or later."""
        with self._file.reading() as db:
            row = db.execute(
                "SELECT count(*), coalesce(sum(answer IS NOT NULL AND answer != ?), 0), coalesce(sum(answer = ?), 0),"
                " coalesce(sum(recorded), 0) FROM triggers WHERE at >= ?",
                (UNANSWERED, UNANSWERED, since_s),
            ).fetchone()
        return Books(*row)

    def prune(self, *, keep_days: float, keep_newest: int = 0) -> int:
        """Forgets up to 500 triggers that are long settled, but none of the *keep_newest*; returns how many."""
        before_s = self._now() - keep_days * 86_400
        with self._file.writing() as db:
            return db.execute(
                "DELETE FROM triggers WHERE row IN (SELECT row FROM triggers"
                " WHERE at < ? AND answer IS NOT NULL AND recorded = 1"
                " AND row <= (SELECT max(row) FROM triggers) - ? LIMIT ?)",
                (before_s, keep_newest, CHUNK_ROWS),
            ).rowcount

    def close(self) -> None:
        self._file.close()

    def _mark(self, change: str, values: tuple[object, ...], trigger_id: str, *, only: str = "1") -> None:
        with self._file.writing() as db:
            db.execute(f"UPDATE triggers SET {change} WHERE id = ? AND {only}", (*values, trigger_id))  # noqa: S608  # ours


def open_journal(path: Path, *, now: Callable[[], float] = time.time) -> tuple[TriggerJournal, Path | None]:
    """
    The journal at *path*, made if it is not there; and where a damaged one was put aside, which is never deleted.

    Raises LedgerError when it can neither be used nor be put aside.
    """
    journal = TriggerJournal(path, now=now)
    try:
        journal.books(since_s=0)
        journal.left_open()
    except LedgerError as error:
        journal.close()
        if not isinstance(error.__cause__, sqlite3.DatabaseError) or isinstance(
            error.__cause__, sqlite3.OperationalError
        ):
            raise
        stamp = datetime.fromtimestamp(now(), timezone.utc).strftime("%Y-%m-%dT%H%M%SZ")
        aside = beside(path, f".damaged-{stamp}")
        try:
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    beside(path, suffix).rename(beside(aside, suffix))
        except OSError as trouble:
            raise ledger_error(path, trouble) from error
        return TriggerJournal(path, now=now), aside
    return journal, None


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.touch(mode=0o600)
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            for statement in TABLES:
                db.execute(statement)
        except BaseException:
            db.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise ledger_error(path, error) from error
    return db
