"""``station ledger``: what was inspected and what is owed to the broker, also while the station runs."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import IO

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from station.commands.plain import plain
from station.disk import free_bytes
from station.errors import ConfigError, StationError
from station.events import utc_text
from station.ledger_file import LedgerFile, beside, connect_to_read, ledger_error
from station.ledger_read import Board, Totals, count_since, every, last_seq, latest, totals
from station.outbox import Depth, SqliteOutbox, owe_again
from station.terminal import board_name, counted, shown
from station.today import Books, Today, today
from station.trigger_journal import NAME, TriggerJournal

FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
)  # how a cell begins that a spreadsheet program would run (OWASP, CSV injection)
COLOURS = {"pass": "green", "fail": "red", "unknown": "yellow"}
DELIVERED = {"acknowledged": "yes", "forgotten": "yes", "owed": "owed", "unsealed": "owed", "refused": "no"}
HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Status:
    """
    How a ledger stands: what it holds and owes, its bytes on disk with the WAL, and those still free there.

    *today* are the figures since midnight, with the triggers where there are any.
    """

    totals: Totals
    depth: Depth
    size_bytes: int
    free_bytes: int
    today: Today


@dataclass(frozen=True, slots=True)
class Selection:
    """
    Which messages to send again: made in *since* .. *until*, of boards numbered *seqs* (first, last), only refused.

    What is not given does not limit. All limits are inclusive.
    """

    since: datetime | None = None
    until: datetime | None = None
    seqs: tuple[int, int] | None = None
    refused: bool = False


def status(path: Path, *, now: Callable[[], float] = time.time) -> Status:
    """How the ledger at *path* stands. Raises LedgerError."""
    outbox = SqliteOutbox(path, now=now, connect=connect_to_read)
    with _reading(path) as db, closing(outbox):
        held, depth = totals(db), outbox.depth()
        figures = today(
            datetime.fromtimestamp(now(), timezone.utc), boards_since=partial(count_since, db), books=_books(path)
        )
    files = (path, beside(path, "-wal"))
    size = sum(one.stat().st_size for one in files if one.exists())
    return Status(held, depth, size, free_bytes(path.parent), figures)


def print_status(path: Path, *, as_json: bool, console: Console, now: Callable[[], float] = time.time) -> None:
    """Prints ``status`` for a person, or as one JSON document. Raises LedgerError."""
    found = status(path, now=now)
    held, depth = found.totals, found.depth
    if as_json:
        _print_json(console, asdict(found))
        return
    table = Table.grid(padding=(0, 2))
    boards = ", ".join(f"{count} {verdict}" for verdict, count in held.boards.items()) or "none"
    oldest = f", the oldest for {_span(depth.oldest_age_s)}" if depth.owed else ""
    for name, value in (
        ("ledger", held.ledger),
        ("made", utc_text(held.created_at)),
        ("boards", boards),
        ("today", f"{found.today.boards} boards"),
        *([("triggers", _balance(found.today.triggers))] if found.today.triggers is not None else []),
        ("last seq", str(held.last_seq)),
        ("owed", f"{depth.owed}{oldest}"),
        ("refused", str(depth.refused)),
        ("size", _size(found.size_bytes)),
        ("free disk", _size(found.free_bytes)),
    ):
        table.add_row(name, value)
    console.print(table)


def _books(path: Path) -> Callable[[float], Books] | None:
    """The books of the triggers that lie beside the ledger; None: nothing has triggered here."""
    journal = path.with_name(NAME)
    if not journal.exists():
        return None

    def books(since_s: float) -> Books:
        with closing(TriggerJournal(journal)) as open_:
            return open_.books(since_s=since_s)

    return books


def _balance(books: Books) -> str:
    """The sum that must come out even: what came, and what became of it."""
    open_ = books.seen - books.answered - books.unanswered
    text = f"{books.seen} seen, {books.answered} answered, {books.recorded} recorded"
    if books.unanswered:
        text += f"; {books.unanswered} unanswered when the station went down"
    return text + (f"; {open_} under way" if open_ else "")


def print_boards(
    path: Path, *, limit: int, as_json: bool, console: Console, now: Callable[[], float] = time.time
) -> None:
    """
    Prints the last *limit* boards, newest last, a line each, in local time; on a terminal it is cut to its width.

    As JSON it is all of each board, one a line, in UTC. Raises LedgerError.
    """
    with _reading(path) as db:
        boards = latest(db, limit)[::-1]
    if as_json:
        for board in boards:
            _print_json(console, asdict(board))
        return
    width = console.width if console.file.isatty() else None  # a program at the other end wants all of it
    for row in _rows(boards, width=width, today=datetime.fromtimestamp(now()).astimezone()):
        console.print(row, soft_wrap=True)
    for why, count in Counter(board.why for board in boards if board.delivery == "refused").items():
        said = f"not delivered: the broker refused {counted(count, 'event')} ({why}): station ledger replay --refused"
        console.print(plain(said), soft_wrap=True)


def replay(
    path: Path,
    which: Selection,
    *,
    now: Callable[[], float] = time.time,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """
    Owes the boards that the broker has acknowledged or refused once more, with the same event ids; returns how many.

    A station that runs sends them within a second, after what it owes already. Raises LedgerError, StationError if the
    numbers were never given, and ConfigError if nothing limits what to send, or *since* is later than *until*.
    """
    if which == Selection():
        raise ConfigError("say what to send again: --since, --until, --seq or --refused")
    if which.since is not None and which.until is not None and which.since > which.until:
        since, until = (f"{one:%Y-%m-%dT%H:%M:%S}" for one in (which.since, which.until))
        raise ConfigError(f"--since {since} is later than --until {until}: exchange them")
    # Boards only: a fault of last week, told once more, would be taken for one of today.
    conditions: list[tuple[str, tuple[object, ...]]] = [("topic LIKE 'inspection/%'", ())]
    if which.since is not None:
        conditions.append(("made_at >= ?", (which.since.timestamp(),)))
    if which.until is not None:
        conditions.append(("made_at <= ?", (which.until.timestamp(),)))
    if which.seqs is not None:
        conditions.append(("seq BETWEEN ? AND ?", which.seqs))
    if which.refused:
        conditions.append(("state = 'refused'", ()))
    where = " AND ".join(text for text, _ in conditions)
    values = tuple(value for _, part in conditions for value in part)
    with _reading(path) as db:  # it says better than a writer that there is no ledger
        last = last_seq(db)
    if which.seqs is not None and which.seqs[0] > last:
        raise StationError(f"there is no board with number {which.seqs[0]}: the last is {last}")
    with closing(LedgerFile(path)) as file:
        return owe_again(file, where, values, now=now, on_progress=on_progress or (lambda _rows: None))


def export(path: Path, target: Path, *, force: bool, console: Console | None = None) -> int:
    """
    Writes one row a board to the CSV file *target*, oldest first; returns how many. The file is whole or not there.

    ``-`` is stdout. *console* shows the progress, on a terminal. Raises LedgerError, and StationError if *target*
    cannot be written, or is there already and *force* is not given.
    """
    if str(target) == "-":
        return _write(path, sys.stdout, None)
    if target.exists() and not force:
        raise StationError(f"{target} is there already: give another name, or --force to replace it")
    part = target.with_name(target.name + ".part")
    try:
        with part.open("w", newline="", encoding="utf-8") as file:
            written = _write(path, file, console)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StationError(f"cannot write {target}: {error.strerror or error}") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return written


def _write(path: Path, file: IO[str], console: Console | None) -> int:
    written = 0
    with _reading(path) as db:
        count = db.execute("SELECT count(*) FROM inspections").fetchone()[0]
        writer = csv.writer(file)
        writer.writerow([one.name for one in fields(Board)])
        with _progress(console, count) as advance:
            for board in every(db):
                writer.writerow([_cell(getattr(board, one.name)) for one in fields(Board)])
                advance()
                written += 1
    return written


def _rows(boards: list[Board], *, width: int | None, today: datetime) -> Iterator[Text]:
    """A heading and a line a board, uncut without *width*; the reason comes last, as it is what may be cut first."""
    times = [board.recorded_at.astimezone(today.tzinfo) for board in boards]
    form = "%H:%M:%S" if all(one.date() == today.date() for one in times) else "%Y-%m-%d %H:%M:%S"
    lines = [("seq", f"time {today:%Z}", "verdict", "delivered", "board", "reason")]
    for board, at in zip(boards, times, strict=True):
        name = shown(board_name(board.board_serial or board.file, board.trigger_number))
        delivered = DELIVERED.get(board.delivery, board.delivery)
        lines.append((str(board.seq), at.strftime(form), board.verdict, delivered, name, shown(board.reason)))
    widths = [max(cell_len(line[column]) for line in lines) for column in range(5)]
    if width is not None:
        widths[4] = min(widths[4], max(16, width * 3 // 10))
    for line in lines:
        cells = [Text(cell, COLOURS.get(cell, "") if column == 2 else "") for column, cell in enumerate(line)]
        for cell, cell_width in zip(cells, widths, strict=False):
            cell.truncate(cell_width, overflow="ellipsis", pad=True)
        row = Text("  ").join(cells)
        if width is not None:
            row.truncate(width, overflow="ellipsis")
        yield row


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect_to_read(path)) as db:
        try:
            yield db
        except sqlite3.Error as error:
            raise ledger_error(path, error) from error


@contextmanager
def _progress(console: Console | None, total: int) -> Iterator[Callable[[], None]]:
    if console is None or not console.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("boards", total=total)
        yield partial(progress.advance, task)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return utc_text(value)
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _print_json(console: Console, document: dict[str, object]) -> None:
    text = json.dumps(document, ensure_ascii=False, default=_json_value)
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _json_value(value: object) -> str:
    if isinstance(value, datetime):
        return utc_text(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def _span(seconds: float) -> str:
    return f"{seconds / HOUR_S:.1f} h" if seconds >= HOUR_S else f"{seconds:.0f} s"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
