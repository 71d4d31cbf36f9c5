"""The ledger: every board once, on disk before anybody sees its result, with the message that is owed for it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from station.errors import LedgerError
from station.events import late, late_event
from station.ledger_file import CHECKPOINT_PAGES, Connect, LedgerFile, connect, examine, ledger_error, make_whole
from station.ledger_read import Board, counts_from, event, failed_events, latest, page, verdicts
from station.ledger_repair import finish_replacement, replace_damaged
from station.outbox import owe
from station.types import Decision, Entry, Inspection, Message, Recorded, Verdict

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """
    An open ledger, and what had to be done for it.

    *quarantined* is the folder that a damaged predecessor was moved to, or None; *damage* says what was found in it,
    empty if a crash came in between. *salvaged* is how many messages it still owed that were saved into the new one.
    """

    ledger: SqliteLedger
    quarantined: Path | None = None
    salvaged: int = 0
    damage: str = ""


def open_ledger(path: Path, *, now: Callable[[], float] = time.time) -> Opened:
    """
    Opens the ledger at *path*, or makes it. A damaged one is put into ``quarantine/TIME/`` beside it, never deleted.

    What a crash left unsealed is owed from here on. No other connection may be open. Raises LedgerTooNewError for a
    ledger of a newer station, LedgerError when there can be none.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        quarantined, salvaged, damage = finish_replacement(path, now=now), 0, ""
        found = examine(path) if path.exists() else None
        if found is not None:
            damage = found
            quarantined, salvaged = replace_damaged(path, now=now)
            log.error("ledger damaged", damage=damage, quarantined=str(quarantined), salvaged=salvaged)
        if not path.exists() or path.stat().st_size == 0:
            make_whole(path, now=now)
    except OSError as error:
        raise ledger_error(path, error) from error
    ledger = SqliteLedger(path, now=now)
    ledger.owe_unsealed()
    return Opened(ledger, quarantined, salvaged, damage)


class SqliteLedger:
    """
    Implements ``types.Ledger``: ``record`` and ``seal`` are for one thread at a time, all else for any thread.

    *path* must hold a ledger already (``open_ledger``). *now* is the wall clock, in UNIX seconds. After a LedgerError
    nothing of that call was recorded, and the next call tries afresh.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time, connect: Connect | None = None) -> None:
        # The publisher's commits move the WAL into the file; the line, which a gate waits for, only if they do not.
        self._file = LedgerFile(path, connect=connect or partial(_connect, checkpoint_pages=4 * CHECKPOINT_PAGES))
        self._shared = LedgerFile(
            path, connect=connect or _connect
        )  # for the other threads, so that they never hold up the line
        self._now = now
        self._uuid: str | None = None
        self._first_since = (float("-inf"), 0)
        self._unsealed = False
        self._sealing: _Seal | None = None  # a seal that did not reach the disk

    @property
    def uuid(self) -> str:
        """The ledger's own name: new when it is made or replaced. Raises LedgerError."""
        if self._uuid is None:
            with self._shared.reading() as db:
                self._uuid = str(db.execute("SELECT value FROM meta WHERE key = 'uuid'").fetchone()[0])
        return self._uuid

    def record(self, inspection: Inspection, make: Callable[[Entry], Message], *, owed: bool) -> Entry:
        """
        Numbers the board and puts it on disk together with the message that *make* makes of its entry, in one commit.

        With ``owed=False`` the message waits for ``seal``. A board that is known already keeps its first entry, and
        *make* is not called. Raises LedgerError when the commit did not reach the disk, and what *make* raises: then
        nothing is recorded and no number is used.
        """
        frame, ledger, now_s = inspection.frame, self.uuid, self._now()
        with self._file.writing() as db:
            if self._unsealed:  # the line failed before it sealed the last board: seal it now, or owe what was recorded
                if self._sealing is not None:
                    _seal(db, self._sealing, now_s)
                _owe_unsealed(db, now_s)
            entry = _find(db, frame.id, ledger)
            if entry is None:
                entry = Entry(_insert(db, inspection, now_s), ledger)
                message = make(entry)
                if owed:
                    owe(db, message, made_s=now_s, owed_s=now_s, seq=entry.seq, event_id=frame.id)
                else:
                    db.execute("INSERT INTO unsealed VALUES (?, ?, ?)", (entry.seq, message.topic, message.payload))
        self._unsealed, self._sealing = not owed, None
        return entry

    def seal(self, entry: Entry, message: Message, *, amended: Decision | None = None) -> None:
        """
        Owes *message* instead of the one that ``record`` left waiting. If none waits, what is owed already stands.

        *amended* replaces the verdict and the reason on record, in the same commit.

        Raises LedgerError; the next ``record`` then does it, or the next start owes the one that waits.
        """
        if entry.ledger != self.uuid:
            return  # a board of an older ledger, known from there: its message was salvaged
        self._sealing = _Seal(entry.seq, message, amended)
        with self._file.writing() as db:
            _seal(db, self._sealing, self._now())
        self._unsealed, self._sealing = False, None

    def amend_late(self, event_id: str, why: str) -> None:
        """
        Makes a board UNKNOWN whose line was answered so, but that a crash left on record as something else.

        Its event, if it is still owed, says so too. Raises LedgerError.
        """
        with self._file.writing() as db:
            row = db.execute(
                "SELECT i.seq, i.verdict, i.reason, o.row, o.payload FROM inspections i"
                " LEFT JOIN outbox o ON o.seq = i.seq AND o.state = 'owed' WHERE i.event_id = ?",
                (event_id,),
            ).fetchone()
            if row is None or row[1] == Verdict.UNKNOWN.value:
                return
            seq, verdict, reason, owed, payload = row
            amended = late(why, Verdict(verdict), reason)
            _amend(db, seq, Verdict.UNKNOWN, amended)
            if owed is not None:
                message = late_event(bytes(payload), amended)
                db.execute(
                    "UPDATE outbox SET topic = ?, payload = ? WHERE row = ?", (message.topic, message.payload, owed)
                )

    def owe_unsealed(self) -> int:
        """Owes what was recorded but never sealed, as it was recorded; returns how many. Not while a line runs."""
        with self._file.writing() as db:
            return _owe_unsealed(db, self._now())

    def recorded(self, event_id: str) -> Recorded | None:
        """What is known of the board *event_id*, also from a ledger that was replaced; None: it is new. Any thread."""
        with self._shared.reading() as db:
            row = db.execute(
                "SELECT problem FROM inspections WHERE event_id = ?1"
                " UNION ALL SELECT problem FROM known WHERE event_id = ?1",
                (event_id,),
            ).fetchone()
        return Recorded(row[0]) if row else None

    def latest(self, limit: int) -> list[Board]:
        """The last *limit* boards, newest first, for who shows them. Any thread."""
        with self._shared.reading() as db:
            return latest(db, limit)

    def boards_after(self, event_id: str) -> int | None:
        """How many boards were recorded after that of *event_id*; None: it is not on record here. Any thread."""
        with self._shared.reading() as db:
            row = db.execute(
                "SELECT (SELECT count(*) FROM inspections WHERE seq > mine.seq)"
                " FROM inspections mine WHERE event_id = ?",
                (event_id,),
            ).fetchone()
        return None if row is None else int(row[0])

    def boards_since(self, since_s: float) -> int:
        """How many boards were recorded at *since_s* (UNIX time) or later. Any thread."""
        with self._shared.reading() as db:
            first = self._first_since_of(db, since_s)
            if first is None:
                return 0
            count = db.execute("SELECT count(*) FROM inspections WHERE seq >= ?", (first,)).fetchone()[0]
        return int(count)

    def _first_since_of(self, db: sqlite3.Connection, since_s: float) -> int | None:
        """The same question comes all day long: only the first one reads the whole ledger."""
        if self._first_since[0] != since_s:
            first = db.execute("SELECT min(seq) FROM inspections WHERE recorded_at >= ?", (since_s,)).fetchone()[0]
            if first is None:
                return None
            self._first_since = (since_s, first)
        return self._first_since[1]

    def page(self, *, limit: int, before_seq: int | None = None, verdict: str | None = None) -> list[Board]:
        """Boards for who shows them, newest first. Any thread."""
        with self._shared.reading() as db:
            return page(db, limit=limit, before_seq=before_seq, verdict=verdict)

    def event(self, event_id: str) -> bytes | None:
        """The event of a board; None: unknown, or forgotten after its retention. Any thread."""
        with self._shared.reading() as db:
            return event(db, event_id)

    def figures(self, *, since_s: float, boards: int, failed: int) -> tuple[dict[str, int], list[str], list[bytes]]:
        """Boards by verdict since a UNIX time, the last *boards* verdicts, the last *failed* of FAIL. Any thread."""
        with self._shared.reading() as db:
            first = self._first_since_of(db, since_s)
            counts = {} if first is None else counts_from(db, first)
            return counts, verdicts(db, limit=boards), failed_events(db, limit=failed)

    def notice(self, message: Message) -> bool:
        """
        Owes a message that is no inspection's (a fault). False: the disk did not take it, which is only logged.

        Any thread may call it, but not from within *make*. It never raises, since faults are noticed where nothing else
        may go wrong.
        """
        now_s = self._now()
        try:
            with self._shared.writing() as db:
                owe(db, message, made_s=now_s, owed_s=now_s)
        except LedgerError as error:
            log.error("notice lost", topic=message.topic, error=str(error))  # the text says it all
            return False
        return True

    def notices(self, topic: str) -> list[bytes]:
        """The messages on *topic* that ``notice`` owed, oldest first, as far back as they are kept. Any thread."""
        query = "SELECT payload FROM outbox WHERE seq IS NULL AND topic = ? ORDER BY made_at, row"  # seq has an index
        with self._shared.reading() as db:
            return [bytes(payload) for (payload,) in db.execute(query, (topic,))]

    def close(self) -> None:
        """Closes the file, with its WAL moved into it. The line must have ended."""
        self._shared.close()
        self._file.close()


_connect = connect  # SqliteLedger has an argument of that name


@dataclass(frozen=True, slots=True)
class _Seal:
    """What ``seal`` is to do about board *seq*."""

    seq: int
    message: Message
    amended: Decision | None


def _seal(db: sqlite3.Connection, wanted: _Seal, now_s: float) -> None:
    if not db.execute("DELETE FROM unsealed WHERE seq = ?", (wanted.seq,)).rowcount:
        return
    row = db.execute("SELECT event_id, recorded_at FROM inspections WHERE seq = ?", (wanted.seq,)).fetchone()
    owe(db, wanted.message, made_s=row[1], owed_s=now_s, seq=wanted.seq, event_id=row[0])
    if wanted.amended is not None:
        _amend(db, wanted.seq, wanted.amended.verdict, wanted.amended.reason)


def _amend(db: sqlite3.Connection, seq: int, verdict: Verdict, reason: str) -> None:
    db.execute("UPDATE inspections SET verdict = ?, reason = ? WHERE seq = ?", (verdict.value, reason, seq))


def _find(db: sqlite3.Connection, event_id: str, ledger: str) -> Entry | None:
    row = db.execute("SELECT seq FROM inspections WHERE event_id = ?", (event_id,)).fetchone()
    if row:
        return Entry(row[0], ledger)
    row = db.execute("SELECT seq, ledger FROM known WHERE event_id = ?", (event_id,)).fetchone()
    return Entry(*row) if row else None


def _insert(db: sqlite3.Connection, inspection: Inspection, now_s: float) -> int:
    frame, decision = inspection.frame, inspection.decision
    values = (
        frame.id,
        frame.captured_at.timestamp(),
        now_s,
        decision.verdict.value,
        decision.reason,
        frame.problem,
        frame.file,
        frame.board_serial,
    )
    seq = db.execute("INSERT INTO inspections VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", values).lastrowid
    assert seq is not None  # noqa: S101  # an INSERT into a rowid table always has one
    return seq


def _owe_unsealed(db: sqlite3.Connection, now_s: float) -> int:
    rows = db.execute(
        "SELECT seq, event_id, topic, payload, recorded_at FROM unsealed JOIN inspections USING (seq) ORDER BY seq"
    ).fetchall()
    for seq, event_id, topic, payload, recorded_s in rows:
        owe(db, Message(topic, payload), made_s=recorded_s, owed_s=now_s, seq=seq, event_id=event_id)
    db.execute("DELETE FROM unsealed")
    return len(rows)
