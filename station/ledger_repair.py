"""Replaces a damaged ledger: saves what reads, puts the old file aside, and never deletes it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog

from station.disk import sync_directory
from station.ledger_file import PAGE_BYTES, LedgerFile, beside, create
from station.outbox import owe
from station.types import Message

log = structlog.get_logger(__name__)

QUARANTINE = "quarantine"
STEP_ROWS = 500
KEYS = {"outbox": "row", "meta": "NULL", "known": "NULL"}  # how rows are numbered, where it is not by seq
ROWS_PER_PAGE = 100  # more than there are
PREFIX = 4  # hexadecimal digits of an event id: two or three of many thousand boards have the same
LAST_LETTER = "\U0010ffff"
# Look-ups of single rows in damaged pages: some seconds. A damaged root would otherwise take hours.
TRIES = 200_000


def replace_damaged(path: Path, *, now: Callable[[], float] = time.time) -> tuple[Path, int]:
    """
    Puts a fresh ledger in the place of the damaged one; returns the old one's folder and how many messages were saved.

    Saved are the messages that were owed, refused or unsealed, which are owed as they are, and which boards are known.
    A crash half way loses nothing: until the new ledger is complete the old one stays where it is, and
    ``finish_replacement`` does the rest. Raises LedgerError or OSError.
    """
    making, copy = beside(path, ".making"), beside(path, ".salvage")
    for leftover in (*_files(making), *_files(copy)):
        leftover.unlink()  # of an attempt that a crash ended
    create(making, now=now)
    salvaged = _salvage(path, making, copy, now_s=now())
    making.rename(_ready(path))
    sync_directory(path.parent)
    folder = finish_replacement(path, now=now)
    assert folder is not None  # noqa: S101  # the damaged file was there to be moved
    return folder, salvaged


def finish_replacement(path: Path, *, now: Callable[[], float] = time.time) -> Path | None:
    """
    Moves an old ledger into quarantine if a new one is ready, and a WAL that has lost its file. None: nothing to do.

    Raises OSError.
    """
    ready = _ready(path)
    if not ready.exists() and (path.exists() or not _files(path)):
        return None
    folder = _new_folder(path.parent / QUARANTINE, now())
    # The WAL must not be left to the new file, which SQLite would write it into.
    for old in _files(path):
        old.rename(folder / old.name)
    sync_directory(folder)
    if ready.exists():
        ready.rename(path)
    sync_directory(path.parent)
    return folder


def _ready(path: Path) -> Path:
    return beside(path, ".ready")


def _files(path: Path) -> list[Path]:
    return [one for one in (path, beside(path, "-wal"), beside(path, "-shm")) if one.exists()]


def _new_folder(parent: Path, now_s: float) -> Path:
    stamp = datetime.fromtimestamp(now_s, timezone.utc).strftime("%Y-%m-%dT%H%M%SZ")
    count = 1
    while True:
        folder = parent / (stamp if count == 1 else f"{stamp}~{count}")
        if not folder.exists():
            folder.mkdir(parents=True)
            sync_directory(parent)
            sync_directory(parent.parent)
            return folder
        count += 1


def _salvage(damaged: Path, fresh: Path, copy: Path, *, now_s: float) -> int:
    file = LedgerFile(fresh)
    try:
        with closing(_open_somehow(damaged, fresh, copy)) as old, file.writing() as new:
            return _copy_rows(old, new, now_s=now_s)
    except OSError as error:
        if error.errno != errno.EIO:  # no room for the copy: wait for it, and do not leave behind what is owed
            raise
        log.error("damaged ledger unreadable", error=str(error))  # the text says it all
        return 0
    finally:
        file.close()
        for leftover in _files(copy):
            leftover.unlink()


def _open_somehow(damaged: Path, fresh: Path, copy: Path) -> sqlite3.Connection:
    """The damaged ledger for reading; if not even its first page reads, a copy of it with the first page of *fresh*."""
    if damaged.stat().st_size:
        db = _open(damaged, "ro")
        try:
            db.execute("SELECT count(*) FROM inspections WHERE seq = 0").fetchone()
        except sqlite3.Error:
            db.close()
        else:
            return db
    # Page one holds the header and where each table begins: the same in every ledger of a version.
    with fresh.open("rb") as file:
        first = bytearray(file.read(PAGE_BYTES))
    first[28:40] = bytes(12)  # but not its length and its free pages: without them SQLite goes by the size of the file
    shutil.copyfile(damaged, copy)
    if beside(damaged, "-wal").exists():
        shutil.copyfile(beside(damaged, "-wal"), beside(copy, "-wal"))
    with copy.open("r+b") as file:
        file.write(first)
    return _open(copy, "rw")


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode={mode}", uri=True, isolation_level=None)


def _copy_rows(old: sqlite3.Connection, new: sqlite3.Connection, *, now_s: float) -> int:
    """Copies what reads from *old* to *new*, within the transaction of *new*; returns how many messages it owes."""
    ledger = next((str(value) for _, key, value in _rows(old, "meta", "key, value") if key == "uuid"), "")
    boards: dict[int, str] = {}
    for seq, event_id, problem in _rows(old, "inspections", "event_id, problem"):
        if isinstance(event_id, str):
            boards[seq] = event_id
            _know(new, event_id, seq, ledger, problem)
    for _, event_id, seq, its_ledger, problem in _rows(old, "known", "event_id, seq, ledger, problem"):
        if isinstance(event_id, str) and isinstance(seq, int):
            _know(new, event_id, seq, str(its_ledger), problem)
    salvaged = 0
    for _, seq, event_id, topic, payload, state, made_s in _rows(
        old, "outbox", "seq, event_id, topic, payload, state, made_at"
    ):
        if state == "accepted" or not _is_message(topic, payload):
            continue
        if event_id is not None and seq is not None:
            _know(new, event_id, seq, ledger, None)  # its inspection may lie in a damaged page
        its_s = made_s if isinstance(made_s, float) else now_s
        owe(new, Message(topic, payload), made_s=its_s, owed_s=now_s, event_id=event_id)
        salvaged += 1
    for seq, topic, payload in _rows(old, "unsealed", "topic, payload"):
        if _is_message(topic, payload):
            owe(new, Message(topic, payload), made_s=now_s, owed_s=now_s, event_id=boards.get(seq))
            salvaged += 1
    return salvaged


def _know(db: sqlite3.Connection, event_id: str, seq: int, ledger: str, problem: object) -> None:
    values = (event_id, seq, ledger, problem if isinstance(problem, str) else None)
    db.execute("INSERT OR IGNORE INTO known VALUES (?, ?, ?, ?)", values)


def _is_message(topic: object, payload: object) -> bool:
    """SQLite checks how its pages hang together, not what is in them: what no longer parses helps no consumer."""
    if not isinstance(topic, str) or not isinstance(payload, bytes):
        return False
    try:
        json.loads(payload)
    except ValueError:
        return False
    return True


def _rows(db: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """(number, *columns) of each row that reads, in order; where a stretch does not read, row by row."""
    number = KEYS.get(table, "seq")
    select = f"SELECT {number}, {columns} FROM {table}"  # noqa: S608  # our own names
    if number == "NULL":  # no row numbers
        key = "event_id" if table == "known" else "key"
        yield from _by_prefix(db, f"{select} WHERE {key} >= ? AND {key} < ?", "")
        return
    last, done, tries = _last(db, table, number), 0, TRIES
    while True:
        try:
            page = db.execute(f"{select} WHERE {number} > ? ORDER BY {number} LIMIT {STEP_ROWS:d}", (done,)).fetchall()
        except sqlite3.DatabaseError as error:  # noqa: PERF203  # the damage begins anywhere
            log.warning("damaged rows", table=table, after=done, error=str(error))
            if done >= last or tries <= 0:
                return
            for one in range(done + 1, done + STEP_ROWS + 1):
                with suppress(sqlite3.DatabaseError):
                    yield from db.execute(f"{select} WHERE {number} = ?", (one,)).fetchall()
            done, tries = done + STEP_ROWS, tries - STEP_ROWS
        else:
            yield from page
            if len(page) < STEP_ROWS:
                return
            done = page[-1][0]


def _by_prefix(db: sqlite3.Connection, select: str, prefix: str) -> Iterator[tuple[Any, ...]]:
    """The rows whose keys begin with *prefix*; where these do not read, those of each longer prefix that do."""
    try:
        rows = db.execute(select, (prefix, prefix + LAST_LETTER)).fetchall()
    except sqlite3.DatabaseError:
        if len(prefix) < PREFIX:
            for digit in "0123456789abcdef":
                yield from _by_prefix(db, select, prefix + digit)
    else:
        yield from rows


def _last(db: sqlite3.Connection, table: str, number: str) -> int:
    """The highest row number of *table* by whatever still tells it."""
    found = [0]
    for query in (
        f"SELECT max({number}) FROM {table}",  # noqa: S608  # our own names
        f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'",  # noqa: S608
        "SELECT max(seq) FROM sqlite_sequence",
    ):
        with suppress(sqlite3.DatabaseError):
            found += [row[0] for row in db.execute(query) if isinstance(row[0], int)]
    if not any(found):
        with suppress(sqlite3.DatabaseError):
            found.append(db.execute("PRAGMA page_count").fetchone()[0] * ROWS_PER_PAGE)
    return max(found)
