"""A damaged ledger is put aside, and what it owed is saved."""

from __future__ import annotations

import json
import shutil
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from station import ledger_repair
from station.disk import sync_directory
from station.ledger import open_ledger
from station.ledger_file import PAGE_BYTES, create, examine
from station.outbox import SqliteOutbox
from station.types import Entry, Message, Recorded
from tests.boards import board, message_of

NOW_S = 1_795_435_200.0  # 2026-11-23T12:00:00Z
BOARDS = 400


class Old:
    """A ledger that has seen some life: what it owes, and which boards it knows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.boards: dict[str, Entry] = {}
        self.owed: set[str] = set()

    def live(self, *, close: bool = True) -> None:
        ledger = open_ledger(self.path).ledger
        outbox = SqliteOutbox(self.path)
        for turn in range(BOARDS):
            inspection = board(problem="truncated" if turn == 0 else None)
            self.boards[inspection.frame.id] = ledger.record(
                inspection, message_of(inspection), owed=turn != BOARDS - 1
            )
        rows = [one.row for one in outbox.owed(after=0, limit=BOARDS)]
        outbox.settle(rows[:100], [(row, "not authorized") for row in rows[100:110]])
        self.owed = set(list(self.boards)[100:])
        if close:
            outbox.close()
            ledger.close()

    def write(self, offset: int, content: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(content)

    @property
    def pages(self) -> int:
        return self.path.stat().st_size // PAGE_BYTES


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Old:
    made = Old(tmp_path_factory.mktemp("model") / "ledger.db")
    made.live()
    return made


@pytest.fixture
def old(model: Old, tmp_path: Path) -> Old:
    """A copy of the model, since making one takes hundreds of commits."""
    mine = Old(tmp_path / "ledger.db")
    shutil.copyfile(model.path, mine.path)
    mine.boards, mine.owed = model.boards, model.owed
    return mine


def owed_now(path: Path) -> list[str]:
    with closing(SqliteOutbox(path)) as outbox:
        return [json.loads(one.message.payload)["event_id"] for one in outbox.owed(after=0, limit=10_000)]


def zeroed_header(old: Old) -> None:
    old.write(0, bytes(100))


def zeroed_first_page(old: Old) -> None:
    old.write(0, bytes(PAGE_BYTES))


def text_over_the_start(old: Old) -> None:
    old.write(0, b"not a database " * 200)


@pytest.mark.parametrize("damage", [zeroed_header, zeroed_first_page, text_over_the_start])
def test_a_lost_first_page_costs_nothing_that_is_owed(old: Old, damage: Callable[[Old], None]) -> None:
    damage(old)
    damaged = old.path.read_bytes()
    opened = open_ledger(old.path, now=lambda: NOW_S)
    with closing(opened.ledger) as ledger:
        assert opened.quarantined == old.path.parent / "quarantine" / "2026-11-23T120000Z"
        assert (opened.quarantined / "ledger.db").read_bytes() == damaged
        assert opened.salvaged == len(old.owed)
        assert set(owed_now(old.path)) == old.owed
        assert all(ledger.recorded(event_id) is not None for event_id in old.boards)
        assert ledger.recorded(next(iter(old.boards))) == Recorded("truncated")
    assert {one.name for one in old.path.parent.iterdir()} == {"ledger.db", "quarantine"}


def test_the_new_ledger_counts_anew_under_its_own_name(old: Old) -> None:
    zeroed_header(old)
    known = next(iter(old.boards))
    with closing(open_ledger(old.path).ledger) as ledger:
        inspection = board()
        entry = ledger.record(inspection, message_of(inspection), owed=True)
        assert entry == Entry(1, ledger.uuid)
        assert ledger.uuid != old.boards[known].ledger
        again = board(known)
        assert ledger.record(again, message_of(again), owed=False) == old.boards[known]
        ledger.seal(old.boards[known], Message("inspection/pass", b"{}"))
        assert len(owed_now(old.path)) == len(old.owed) + 1


def test_garbage_in_the_middle_costs_only_what_it_hit(old: Old) -> None:
    garbage = bytes(range(256)) * (2 * PAGE_BYTES // 256)
    old.write(old.pages // 2 * PAGE_BYTES, garbage)
    opened = open_ledger(old.path)
    with closing(opened.ledger):
        assert opened.quarantined is not None
        saved = set(owed_now(old.path))
        assert saved <= old.owed
        assert len(saved) >= len(old.owed) - 40
        assert opened.salvaged == len(saved)


def test_a_lost_page_of_the_boards_that_are_known_costs_only_those_that_it_held(old: Old) -> None:
    """It cost all of them: a station that only reads its inbox would have judged the whole folder again."""
    known = [str(uuid.UUID(int=number * 2**112 + 4711)) for number in range(5000)]
    with closing(sqlite3.connect(old.path)) as db, db:
        db.executemany("INSERT INTO known VALUES (?, 1, 'L', NULL)", [(one,) for one in known])
    with closing(sqlite3.connect(old.path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    old.write(old.path.read_bytes().index(known[2500].encode()) // PAGE_BYTES * PAGE_BYTES, b"\xee" * PAGE_BYTES)
    opened = open_ledger(old.path)
    with closing(opened.ledger) as ledger:
        assert opened.quarantined is not None
        lost = [one for one in known if ledger.recorded(one) is None]
    assert known[2500] in lost
    assert len(lost) < 100


@pytest.mark.parametrize("page", range(1, 12))
def test_any_lost_page_is_survived(old: Old, page: int) -> None:
    old.write(page * PAGE_BYTES, bytes(PAGE_BYTES))
    opened = open_ledger(old.path)
    with closing(opened.ledger) as ledger:
        inspection = board()
        ledger.record(inspection, message_of(inspection), owed=True)
        assert inspection.frame.id in owed_now(old.path)
    assert examine(old.path) is None


def test_a_truncated_file_gives_what_is_left(old: Old) -> None:
    content = old.path.read_bytes()
    old.path.write_bytes(content[: old.pages * 2 // 3 * PAGE_BYTES])
    opened = open_ledger(old.path)
    with closing(opened.ledger):
        assert opened.quarantined is not None
        assert len(owed_now(old.path)) > len(old.owed) // 4


def test_a_file_of_something_else_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"a letter home")
    opened = open_ledger(path)
    with closing(opened.ledger):
        assert opened.quarantined is not None
        assert (opened.quarantined / "ledger.db").read_bytes() == b"a letter home"
        assert (opened.salvaged, owed_now(path)) == (0, [])


def test_an_emptied_file_is_saved_from_its_write_ahead_log(tmp_path: Path) -> None:
    source = Old(tmp_path / "running.db")
    source.live(close=False)  # its WAL holds everything: nothing has been moved into the file yet
    path = tmp_path / "data" / "ledger.db"
    path.parent.mkdir()
    path.touch()
    shutil.copyfile(source.path.with_name("running.db-wal"), path.with_name("ledger.db-wal"))
    opened = open_ledger(path)
    with closing(opened.ledger):
        assert opened.quarantined is not None
        assert set(owed_now(path)) == source.owed


def test_a_write_ahead_log_without_its_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.with_name("ledger.db-wal").write_bytes(b"what was left")
    opened = open_ledger(path)
    with closing(opened.ledger):
        assert opened.quarantined is not None
        assert (opened.quarantined / "ledger.db-wal").read_bytes() == b"what was left"


def test_a_second_quarantine_in_the_same_second_overwrites_nothing(old: Old) -> None:
    for name in ("2026-11-23T120000Z", "2026-11-23T120000Z~2"):
        zeroed_header(old)
        opened = open_ledger(old.path, now=lambda: NOW_S)
        opened.ledger.close()
        assert opened.quarantined == old.path.parent / "quarantine" / name
        assert set(owed_now(old.path)) == old.owed
    with closing(open_ledger(old.path).ledger) as ledger:
        assert all(ledger.recorded(event_id) is not None for event_id in old.boards)


def test_a_payload_that_no_longer_parses_is_not_owed(old: Old) -> None:
    with closing(open_ledger(old.path).ledger) as ledger:
        assert ledger.notice(Message("fault", b'{"cut'))
    zeroed_header(old)
    opened = open_ledger(old.path)
    opened.ledger.close()
    assert opened.salvaged == len(old.owed)


class PowerCutError(Exception):
    """Stands for the moment at which the power went."""


def test_what_an_interrupted_repair_left_does_no_harm(old: Old) -> None:
    zeroed_header(old)
    for name in ("ledger.db.making", "ledger.db.making-wal", "ledger.db.salvage", "ledger.db.salvage-wal"):
        old.path.with_name(name).write_bytes(b"half of it")
    open_ledger(old.path).ledger.close()
    assert set(owed_now(old.path)) == old.owed
    assert {one.name for one in old.path.parent.iterdir()} == {"ledger.db", "quarantine"}


LAST_STEP = 20  # after which nothing is left to be cut


@pytest.mark.parametrize("step", range(1, LAST_STEP + 1))
def test_a_power_cut_during_the_repair_loses_nothing(old: Old, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    zeroed_header(old)
    left = step

    def or_die(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **more: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise PowerCutError
            return real(*args, **more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", or_die(Path.rename))
        patch.setattr(Path, "mkdir", or_die(Path.mkdir))
        patch.setattr(ledger_repair, "sync_directory", or_die(sync_directory))
        patch.setattr(ledger_repair, "create", or_die(create))
        patch.setattr(ledger_repair, "_copy_rows", or_die(ledger_repair._copy_rows))
        try:
            open_ledger(old.path).ledger.close()
        except PowerCutError:
            assert step < LAST_STEP, "there may be more steps than are tried"
    with closing(open_ledger(old.path).ledger) as ledger:
        assert set(owed_now(old.path)) == old.owed
        assert all(ledger.recorded(event_id) is not None for event_id in old.boards)
    assert {one.name for one in old.path.parent.iterdir()} == {"ledger.db", "quarantine"}


def test_page_one_holds_the_whole_schema(tmp_path: Path) -> None:
    create(tmp_path / "ledger.db")
    leaf_of_a_table = 0x0D
    assert (tmp_path / "ledger.db").read_bytes()[100] == leaf_of_a_table
