"""Reads the ledger for people: its boards, in either order, and how it stands."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

PAGE_ROWS = 1000  # each page is a read of its own: a long one would keep the WAL of a running station from being reused

SELECT = """
SELECT i.seq, i.event_id, i.captured_at, i.recorded_at, i.verdict, i.reason, i.problem, i.file, i.board_serial,
 CASE WHEN u.seq IS NOT NULL THEN 'unsealed' WHEN o.state IS NULL THEN 'forgotten'
  WHEN o.state = 'accepted' THEN 'acknowledged' ELSE o.state END, o.why, o.settled_at,
 coalesce(o.payload, u.payload)
 FROM inspections i LEFT JOIN outbox o ON o.seq = i.seq LEFT JOIN unsealed u ON u.seq = i.seq"""


@dataclass(frozen=True, slots=True)
class Board:
    """
    One board of the ledger; all times are UTC.

    *delivery* is how far its message is: ``unsealed`` (not owed yet), ``owed``, ``acknowledged``, ``refused`` (*why* is
    the broker's reason), or ``forgotten`` after its retention. *settled_at* is when the broker answered.
    *trigger_number* is what a trigger called it. Only its event knows that: a board whose event is forgotten has none,
    as one that was not triggered.
    """

    seq: int
    event_id: str
    captured_at: datetime
    recorded_at: datetime
    verdict: str
    reason: str
    problem: str | None
    file: str | None
    board_serial: str | None
    delivery: str
    why: str | None
    settled_at: datetime | None
    trigger_number: int | None


@dataclass(frozen=True, slots=True)
class Totals:
    """What the ledger holds: its UUID, when it was made (UTC), boards by verdict, the last number given (0: none)."""

    ledger: str
    created_at: datetime
    boards: dict[str, int]
    last_seq: int


def totals(db: sqlite3.Connection) -> Totals:
    """Counts the whole ledger: a second or so for a million boards. Raises sqlite3.Error."""
    meta = dict(db.execute("SELECT key, value FROM meta"))
    return Totals(
        ledger=meta["uuid"],
        created_at=_utc(float(meta["created_at"])),
        boards=dict(db.execute("SELECT verdict, count(*) FROM inspections GROUP BY verdict ORDER BY verdict")),
        last_seq=last_seq(db),
    )


def last_seq(db: sqlite3.Connection) -> int:
    """The last number given to a board, 0 before the first, at once for any ledger. Raises sqlite3.Error."""
    last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'inspections'").fetchone()
    return int(last[0]) if last else 0


def count_since(db: sqlite3.Connection, since_s: float) -> int:
    """How many boards were recorded at *since_s* (UNIX time) or later. Raises sqlite3.Error."""
    return int(db.execute("SELECT count(*) FROM inspections WHERE recorded_at >= ?", (since_s,)).fetchone()[0])


def latest(db: sqlite3.Connection, limit: int) -> list[Board]:
    """The last *limit* boards, newest first. Raises sqlite3.Error."""
    return [_board(row) for row in db.execute(f"{SELECT} ORDER BY i.seq DESC LIMIT ?", (limit,)).fetchall()]


def page(db: sqlite3.Connection, *, limit: int, before_seq: int | None, verdict: str | None) -> list[Board]:
    """Up to *limit* boards, newest first, numbered below *before_seq* and of *verdict*. Raises sqlite3.Error."""
    query = f"{SELECT} WHERE (?1 IS NULL OR i.seq < ?1) AND (?2 IS NULL OR i.verdict = ?2) ORDER BY i.seq DESC LIMIT ?3"
    return [_board(row) for row in db.execute(query, (before_seq, verdict, limit)).fetchall()]


def event(db: sqlite3.Connection, event_id: str) -> bytes | None:
    """The event of a board as it was, or is to be, published; None: unknown, or forgotten. Raises sqlite3.Error."""
    row = db.execute(
        "SELECT coalesce(o.payload, u.payload) FROM inspections i LEFT JOIN outbox o ON o.seq = i.seq"
        " LEFT JOIN unsealed u ON u.seq = i.seq WHERE i.event_id = ?",
        (event_id,),
    ).fetchone()
    return None if row is None or row[0] is None else bytes(row[0])


def verdicts(db: sqlite3.Connection, *, limit: int) -> list[str]:
    """The verdicts of the last *limit* boards, newest first. Raises sqlite3.Error."""
    return [one for (one,) in db.execute("SELECT verdict FROM inspections ORDER BY seq DESC LIMIT ?", (limit,))]


def counts_from(db: sqlite3.Connection, first: int) -> dict[str, int]:
    """Boards by verdict, from number *first* on. Raises sqlite3.Error."""
    rows = db.execute("SELECT verdict, count(*) FROM inspections WHERE seq >= ? GROUP BY verdict", (first,))
    return dict(rows.fetchall())


def failed_events(db: sqlite3.Connection, *, limit: int) -> list[bytes]:
    """The events of the last boards that failed, newest first, at most *limit*. Raises sqlite3.Error."""
    rows = db.execute(
        "SELECT o.payload FROM inspections i JOIN outbox o ON o.seq = i.seq WHERE i.verdict = 'fail'"
        " ORDER BY i.seq DESC LIMIT ?",
        (limit,),
    )
    return [bytes(payload) for (payload,) in rows]


def every(db: sqlite3.Connection) -> Iterator[Board]:
    """All boards, oldest first, up to the newest there is when it ends. Raises sqlite3.Error."""
    after = 0
    while True:
        page = db.execute(f"{SELECT} WHERE i.seq > ? ORDER BY i.seq LIMIT ?", (after, PAGE_ROWS)).fetchall()
        yield from map(_board, page)
        if len(page) < PAGE_ROWS:
            return
        after = page[-1][0]


def _trigger_number(payload: bytes | None) -> int | None:
    if payload is None:
        return None
    number = (json.loads(payload).get("trigger") or {}).get("number")
    return None if number is None else int(number)


def _board(row: tuple[Any, ...]) -> Board:
    seq, event_id, captured_s, recorded_s, verdict, reason, problem, file, board_serial, *rest = row
    delivery, why, settled_s, payload = rest
    return Board(
        seq=seq,
        event_id=event_id,
        captured_at=_utc(captured_s),
        recorded_at=_utc(recorded_s),
        verdict=verdict,
        reason=reason,
        problem=problem,
        file=file,
        board_serial=board_serial,
        delivery=delivery,
        why=why,
        settled_at=None if settled_s is None else _utc(settled_s),
        trigger_number=_trigger_number(payload),
    )


def _utc(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, timezone.utc)
