"""The ledger's SQLite file: its tables, and connections that keep their promises or say that they cannot."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from station.disk import sync_directory
from station.errors import LedgerDamagedError, LedgerError, LedgerTooNewError

VERSION = 1  # PRAGMA user_version
PAGE_BYTES = 4096
BUSY_S = (
    5.0  # every write transaction here lasts one commit or one chunk of 500 rows: longer means that something hangs
)
FULL_SYNC = 2  # what PRAGMA synchronous reads as after FULL: the WAL reaches the disk before COMMIT returns
CHECKPOINT_PAGES = 1000

# Times are UNIX seconds. AUTOINCREMENT keeps both countings: a number is never used twice, and since its counter is
# part of the transaction, what is rolled back leaves no gap. All of this must fit into page one: ledger_repair relies
# on it.
#
# Whatever becomes owed gets the next row of the outbox, so rows become visible in rising order, and a publisher that
# asks for what comes after the last row it has seen misses nothing: not what is sealed late, not what is owed again.
#
# outbox.seq is null for notices and for what was salvaged from an older ledger. The random event ids are indexed once,
# in inspections: each further index on them would cost every commit one more page of WAL.
TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE inspections (
 seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE,
 captured_at REAL NOT NULL, recorded_at REAL NOT NULL,
 verdict TEXT NOT NULL, reason TEXT NOT NULL, problem TEXT, file TEXT, board_serial TEXT)""",
    """CREATE TABLE outbox (
 row INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER UNIQUE REFERENCES inspections (seq), event_id TEXT,
 topic TEXT NOT NULL, payload BLOB NOT NULL,
 state TEXT NOT NULL CHECK (state IN ('owed', 'accepted', 'refused')), why TEXT,
 made_at REAL NOT NULL, owed_at REAL NOT NULL, settled_at REAL)""",
    "CREATE INDEX outbox_owed ON outbox (row) WHERE state = 'owed'",
    "CREATE INDEX outbox_refused ON outbox (row) WHERE state = 'refused'",
    "CREATE INDEX outbox_accepted ON outbox (settled_at) WHERE state = 'accepted'",
    """CREATE TABLE unsealed (
 seq INTEGER PRIMARY KEY REFERENCES inspections (seq), topic TEXT NOT NULL, payload BLOB NOT NULL)""",
    """CREATE TABLE known (
 event_id TEXT PRIMARY KEY, seq INTEGER NOT NULL, ledger TEXT NOT NULL, problem TEXT) WITHOUT ROWID""",
)

ADVICE = {  # by what SQLite says; its error codes are there only from Python 3.11 on
    "disk is full": "make room on its file system; nothing is lost, and it goes on by itself",
    "disk I/O error": "the disk did not take or give the data: look into the kernel log, and replace it if it is dying",
    "readonly": "the file or its file system cannot be written: check its owner, and if it was remounted read-only",
    "unable to open": "check that it exists, and that its owner is the user whom the station runs as",
    "locked": f"another process has held it for more than {BUSY_S:g} s: end that process",
    "malformed": "the file is damaged: restart the station, which puts it aside and saves what can be read",
    "not a database": "the file is damaged: restart the station, which puts it aside and saves what can be read",
}

Connect = Callable[[Path], sqlite3.Connection]


def connect(path: Path, *, checkpoint_pages: int = CHECKPOINT_PAGES) -> sqlite3.Connection:
    """
    Opens an existing ledger for writing: in WAL mode, with each COMMIT on the disk before it returns.

    *checkpoint_pages*: the commit that finds the WAL longer than that (pages of 4 KiB) also moves it into the file.
    Raises LedgerError when it cannot be opened or does not promise that, LedgerTooNewError for one of a newer station.
    """
    try:
        db = _open(path, "rw")
        try:
            _refuse_strangers(db, path)
            _promise(db, path)
            db.execute("PRAGMA foreign_keys = ON")
            db.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages:d}")
            db.execute(f"PRAGMA journal_size_limit = {8 * checkpoint_pages * PAGE_BYTES:d}")
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        raise ledger_error(path, error) from error
    return db


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Opens an existing ledger for reading; its bytes stay as they are. Raises like ``connect``."""
    if not path.exists():
        raise LedgerError(f"there is no ledger at {path}: the station makes it when it first runs; check data_dir")
    try:
        db = _open(path, "ro")
        try:
            _refuse_strangers(db, path)
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        raise ledger_error(path, error) from error
    return db


def create(path: Path, *, now: Callable[[], float] = time.time) -> None:
    """Makes an empty ledger under a new UUID, for its owner only. A file there must be empty. Raises LedgerError."""
    try:
        os.close(
            os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        )  # SQLite gives -wal and -shm the same mode
        with closing(_open(path, "rw")) as db:
            db.execute(f"PRAGMA page_size = {PAGE_BYTES:d}")
            _promise(db, path)
            with _transaction(db):
                for statement in TABLES:
                    db.execute(statement)
                meta = [("uuid", str(uuid.uuid4())), ("created_at", str(now()))]
                db.executemany("INSERT INTO meta VALUES (?, ?)", meta)
                db.execute(f"PRAGMA user_version = {VERSION:d}")
        sync_directory(path.parent)
    except (sqlite3.Error, OSError) as error:
        raise ledger_error(path, error) from error


def make_whole(path: Path, *, now: Callable[[], float] = time.time) -> None:
    """
    Makes an empty ledger that is whole or not there, whenever the power fails. Raises LedgerError, OSError.

    SQLite makes a file in steps, with a journal beside it: half of it could not even be looked at.
    """
    making = beside(path, ".making")
    for leftover in (making, *(beside(making, suffix) for suffix in ("-journal", "-wal", "-shm"))):
        leftover.unlink(missing_ok=True)
    create(making, now=now)
    making.rename(path)
    sync_directory(path.parent)


def examine(path: Path) -> str | None:
    """
    What is damaged in the ledger at *path*, or None. Its bytes stay as they are.

    Raises LedgerTooNewError for a ledger of a newer station, LedgerError when the file cannot be read at all.
    """
    if path.stat().st_size == 0:
        # SQLite would take it for new and delete the WAL, which may hold everything.
        wal = beside(path, "-wal")
        return "the file is empty but its WAL is not" if wal.exists() and wal.stat().st_size else None
    try:
        with closing(_open(path, "ro")) as db:
            version = _version(db)
            _refuse_newer(version, path)
            if version == 0:
                tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
                return "it holds tables that are no ledger's" if tables else None
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        if not is_damage(error):
            raise ledger_error(path, error) from error
        return str(error)
    return None if found == "ok" else str(found)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file's content is wrong, and not the disk, the rights or a lock in the way."""
    return type(error) is sqlite3.DatabaseError  # SQLITE_CORRUPT and SQLITE_NOTADB; all else has a class of its own


def beside(path: Path, suffix: str) -> Path:
    """The file that SQLite keeps beside *path*: ``-wal`` or ``-shm``."""
    return path.with_name(path.name + suffix)


def ledger_error(path: Path, error: Exception) -> LedgerError:
    """*error* of SQLite or the system, with the file it happened to and what to do."""
    text = str(error)
    advice = next((advice for sign, advice in ADVICE.items() if sign in text), None)
    kind = LedgerDamagedError if isinstance(error, sqlite3.Error) and is_damage(error) else LedgerError
    return kind(f"ledger {path}: {text}" + (f"; {advice}" if advice else ""))


class LedgerFile:
    """
    One connection to the ledger, opened when first needed and anew after an error. It locks: any thread may use it.

    After an error of SQLite nothing is known about what the connection has in memory (a failed fsync drops what it was
    to write), so it is closed, and the next use reads from the disk.
    """

    def __init__(self, path: Path, *, connect: Connect = connect) -> None:
        self.path = path
        self._connect = connect
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._held: list[tuple[int, int] | None] = []

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on the disk when it ends; an exception undoes all of it. Raises LedgerError."""
        with self._using() as db:
            if self._held != self._there():
                # SQLite would go on in files that no name leads to any more, and all of it would be gone with us. To
                # close all connections in order still moves a WAL that was deleted into the ledger.
                raise LedgerDamagedError(
                    f"ledger {self.path}: it, or its WAL, was deleted or replaced while the station had it open:"
                    " stop the station before you change its data folder"
                )
            with _transaction(db):
                yield db

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for single statements. Raises LedgerError."""
        with self._using() as db:
            yield db

    def close(self) -> None:
        """Closes the connection; SQLite moves the WAL into the file with the last one. The next use opens it again."""
        with self._lock:
            self._drop()

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._db is None:
                self._db = self._connect(self.path)
                self._held = self._there()
            try:
                yield self._db
            except sqlite3.Error as error:
                self._drop()
                raise ledger_error(self.path, error) from error

    def _there(self) -> list[tuple[int, int] | None]:
        """Which files are the ledger and its WAL, by device and inode; None where there is none."""
        return [_identity(one) for one in (self.path, beside(self.path, "-wal"))]

    def _drop(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")  # a deferred one could find itself unable to write half way
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with suppress(sqlite3.Error):  # SQLite may have undone it already; the first error is the one to tell
                db.execute("ROLLBACK")
        raise


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _open(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{quote(os.fsencode(path))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)


def _promise(db: sqlite3.Connection, path: Path) -> None:
    journal = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if journal != "wal":
        raise LedgerError(
            f"ledger {path}: its file system does not allow write-ahead logging (journal mode {journal}):"
            " put data_dir on a local disk, not on a network share"
        )
    db.execute("PRAGMA synchronous = FULL")
    synchronous = db.execute("PRAGMA synchronous").fetchone()[0]
    if synchronous != FULL_SYNC:
        raise LedgerError(f"ledger {path}: this SQLite does not sync its commits (synchronous = {synchronous})")


def _refuse_strangers(db: sqlite3.Connection, path: Path) -> None:
    version = _version(db)
    _refuse_newer(version, path)
    if version == 0:
        raise LedgerError(f"{path} is no ledger: check data_dir")


def _refuse_newer(version: int, path: Path) -> None:
    if version > VERSION:
        raise LedgerTooNewError(
            f"the ledger {path} was made by a newer station (version {version}, this one knows {VERSION}):"
            " install that version again, or move the file away; it was left as it is"
        )


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
