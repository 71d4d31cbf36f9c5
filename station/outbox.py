"""What is owed to the broker: read in order, settled by its answers, owed again on request."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from station.ledger_file import Connect, LedgerFile, connect
from station.types import Message, Owed

CHUNK_ROWS = 500  # a transaction of that many rows takes some ms: the line, which waits for it, does not notice

COLUMNS = "seq, event_id, topic, payload, state, why, made_at, owed_at, settled_at"
INSERT = f"INSERT INTO outbox ({COLUMNS}) VALUES (?, ?, ?, ?, 'owed', NULL, ?, ?, NULL)"  # noqa: S608  # constants


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages are owed, for how long the first of them has been (0 if none), and how many were refused."""

    owed: int
    oldest_age_s: float
    refused: int


class SqliteOutbox:
    """
    Implements ``types.Outbox`` on the ledger's file, through a connection of its own.

    Any thread may call it (it locks), but only the publish thread should settle: it alone knows what was sent. *now* is
    the wall clock, in UNIX seconds. Everything raises LedgerError when the file cannot be read or written, and changes
    nothing then. Owed rows leave only by ``settle``, and refused ones only by being owed again.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time, connect: Connect = connect) -> None:
        self._file = LedgerFile(path, connect=connect)
        self._now = now

    def owed(self, *, after: int, limit: int) -> list[Owed]:
        """
        The next *limit* owed messages whose row is above *after*, oldest first.

        Whatever becomes owed later, also by a replay from another process, gets a row above all existing ones: whoever
        goes on from the last row seen misses nothing.
        """
        with self._file.reading() as db:
            found = db.execute(
                "SELECT row, topic, payload FROM outbox WHERE state = 'owed' AND row > ? ORDER BY row LIMIT ?",
                (after, limit),
            ).fetchall()
        return [Owed(row, Message(topic, payload)) for row, topic, payload in found]

    def settle(self, accepted: list[int], refused: list[tuple[int, str]]) -> None:
        """Marks rows as accepted, or as set aside with the broker's reason, in one commit. Other rows are ignored."""
        if not accepted and not refused:
            return
        now_s = self._now()
        with self._file.writing() as db:
            db.executemany(
                "UPDATE outbox SET state = 'accepted', why = NULL, settled_at = ? WHERE row = ? AND state = 'owed'",
                [(now_s, row) for row in accepted],
            )
            db.executemany(
                "UPDATE outbox SET state = 'refused', why = ?, settled_at = ? WHERE row = ? AND state = 'owed'",
                [(why, now_s, row) for row, why in refused],
            )

    def offer_refused_again(self) -> int:
        """Owes what was set aside once more, as new rows at the end; returns how many."""
        return owe_again(self._file, "state = 'refused'", (), now=self._now)

    def depth(self) -> Depth:
        """How much waits, cheap enough to be asked every second."""
        with self._file.reading() as db:
            owed = _count(db, "SELECT count(*) FROM outbox INDEXED BY outbox_owed WHERE state = 'owed'")
            refused = _count(db, "SELECT count(*) FROM outbox INDEXED BY outbox_refused WHERE state = 'refused'")
            first = db.execute("SELECT owed_at FROM outbox WHERE state = 'owed' ORDER BY row LIMIT 1").fetchone()
        # The wall clock may have been set back since.
        return Depth(owed, max(0.0, self._now() - first[0]) if first else 0.0, refused)

    def prune(self, *, keep_days: float, keep_ids: bool = False, keep_newest: int = 0) -> int:
        """
        Forgets up to 500 messages, with their boards, that were accepted more than *keep_days* ago; returns how many.

        *keep_ids* keeps the boards and forgets only the messages, for a source that leaves its files in place and would
        inspect them again. What is owed or refused stays, however old, and so do the *keep_newest* last ones: by a
        clock that nobody has set, everything may look old. Call it again while it returns more than 0.
        """
        before_s = self._now() - keep_days * 86_400
        with self._file.writing() as db:
            gone = db.execute(
                "SELECT row, seq FROM outbox WHERE state = 'accepted' AND settled_at < ?"
                " AND row <= (SELECT max(row) FROM outbox) - ? ORDER BY settled_at LIMIT ?",
                (before_s, keep_newest, CHUNK_ROWS),
            ).fetchall()
            db.executemany("DELETE FROM outbox WHERE row = ?", [(row,) for row, _ in gone])
            if not keep_ids:
                seqs = [(seq,) for _, seq in gone if seq is not None]
                db.executemany("DELETE FROM inspections WHERE seq = ?", seqs)
        return len(gone)

    def close(self) -> None:
        """Closes the connection. Close it before the ledger, whose end tidies up."""
        self._file.close()


def owe(
    db: sqlite3.Connection,
    message: Message,
    *,
    made_s: float,
    owed_s: float,
    seq: int | None = None,
    event_id: str | None = None,
) -> None:
    """Adds one owed message at the end, within the caller's transaction."""
    db.execute(INSERT, (seq, event_id, message.topic, message.payload, made_s, owed_s))


def owe_again(
    file: LedgerFile,
    which: str,
    values: tuple[object, ...],
    *,
    now: Callable[[], float],
    on_progress: Callable[[int], None] = lambda _rows: None,
) -> int:
    """
    Owes settled rows once more, with the same bytes, as new rows at the end; returns how many.

    *which* is an SQL condition on the outbox, with *values* for its question marks. It works in short transactions,
    beside a station that runs; *on_progress* gets the number of rows after each.
    """
    with file.reading() as db:
        # What is moved to the end may be accepted again before this ends: it must not be met a second time.
        last = db.execute("SELECT coalesce(max(row), 0) FROM outbox").fetchone()[0]
    query = (
        f"SELECT row, seq, event_id, topic, payload, made_at FROM outbox"  # noqa: S608  # conditions are ours, values bound
        f" WHERE state != 'owed' AND ({which}) AND row > ? AND row <= ? ORDER BY row LIMIT {CHUNK_ROWS:d}"
    )
    done, cursor = 0, 0
    while True:
        with file.writing() as db:
            rows = db.execute(query, (*values, cursor, last)).fetchall()
            db.executemany("DELETE FROM outbox WHERE row = ?", [row[:1] for row in rows])
            now_s = now()
            db.executemany(INSERT, [(*row[1:], now_s) for row in rows])
        if not rows:
            return done
        done, cursor = done + len(rows), rows[-1][0]
        on_progress(len(rows))


def _count(db: sqlite3.Connection, query: str) -> int:
    return int(db.execute(query).fetchone()[0])
