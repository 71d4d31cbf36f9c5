"""The books of the triggers: durable, balanced, and never deleted."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import pytest

from station.errors import LedgerError
from station.today import Books
from station.trigger_journal import TriggerJournal, open_journal
from station.types import Trigger, Verdict

NOON_S = datetime(2026, 11, 23, 12, tzinfo=timezone.utc).timestamp()


def trigger(number: int, *, at_s: float = NOON_S) -> Trigger:
    return Trigger(f"id-{number}", "serial", datetime.fromtimestamp(at_s, timezone.utc), 5.0, number, f"SN{number}")


def test_what_was_answered_and_recorded_balances_and_what_was_not_is_left_open(tmp_path: Path) -> None:
    with closing(TriggerJournal(tmp_path / "triggers.db")) as journal:
        for number in range(4):
            journal.arrived(trigger(number))
        for number in (0, 1):
            journal.answered(f"id-{number}", Verdict.PASS)
        journal.recorded("id-0")
        assert journal.books(since_s=NOON_S) == Books(seen=4, answered=2, unanswered=0, recorded=1)
    with closing(TriggerJournal(tmp_path / "triggers.db")) as journal:  # after a crash
        left = journal.left_open()
        assert [(one.id, one.number, one.board_serial, one.kind, answer) for one, answer in left] == [
            (f"id-{number}", number, f"SN{number}", "serial", "pass" if number == 1 else None) for number in (1, 2, 3)
        ]
        assert left[0][0].at == trigger(1).at
        for one, _ in left:
            journal.unanswered(one.id)
            journal.recorded(one.id)
        assert journal.left_open() == []
        assert journal.books(since_s=NOON_S) == Books(seen=4, answered=2, unanswered=2, recorded=4)


def test_an_answer_that_was_given_is_not_made_into_none(tmp_path: Path) -> None:
    with closing(TriggerJournal(tmp_path / "triggers.db")) as journal:
        journal.arrived(trigger(1))
        journal.answered("id-1", Verdict.FAIL)
        journal.unanswered("id-1")
        assert journal.books(since_s=0).answered == 1


def test_the_books_of_a_day_leave_out_the_day_before(tmp_path: Path) -> None:
    with closing(TriggerJournal(tmp_path / "triggers.db")) as journal:
        journal.arrived(trigger(1, at_s=NOON_S - 1))
        journal.arrived(trigger(2))
        assert journal.books(since_s=NOON_S).seen == 1


def test_only_what_is_long_settled_is_forgotten(tmp_path: Path) -> None:
    with closing(TriggerJournal(tmp_path / "triggers.db", now=lambda: NOON_S)) as journal:
        for number, days in ((1, 100), (2, 100), (3, 1)):
            journal.arrived(trigger(number, at_s=NOON_S - days * 86_400))
        for number in (1, 3):
            journal.answered(f"id-{number}", Verdict.PASS)
            journal.recorded(f"id-{number}")
        assert journal.prune(keep_days=90, keep_newest=3) == 0
        assert journal.prune(keep_days=90) == 1
        assert [one.number for one, _ in journal.left_open()] == [2]
        assert journal.books(since_s=0).seen == 2


def test_every_commit_is_on_the_disk_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "triggers.db"
    with closing(TriggerJournal(path)) as journal:
        journal.arrived(trigger(1))
        with journal._file.reading() as db:
            assert db.execute("PRAGMA synchronous").fetchone()[0] == 2
            assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert path.stat().st_mode & 0o077 == 0


def test_a_damaged_journal_is_put_aside_and_a_new_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "triggers.db"
    path.write_bytes(b"no database at all" * 1000)
    journal, aside = open_journal(path, now=lambda: NOON_S)
    with closing(journal):
        journal.arrived(trigger(1))
        assert journal.books(since_s=0).seen == 1
    assert aside is not None
    assert aside.read_bytes().startswith(b"no database at all")


def test_a_sound_journal_stays_where_it_is(tmp_path: Path) -> None:
    with closing(TriggerJournal(tmp_path / "triggers.db")) as journal:
        journal.arrived(trigger(1))
    journal, aside = open_journal(tmp_path / "triggers.db")
    with closing(journal):
        assert aside is None
        assert len(journal.left_open()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LedgerError, match=r"triggers\.db"):
        open_journal(tmp_path / "triggers.db")


def test_a_journal_that_is_locked_is_an_error_and_is_not_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "triggers.db"
    with closing(TriggerJournal(path)) as journal:
        journal.arrived(trigger(1))
    monkeypatch.setattr("station.trigger_journal.BUSY_S", 0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerError, match="another process"):
            open_journal(path)
    assert path.exists()


def test_a_trigger_that_the_disk_took_after_all_is_not_refused_when_it_is_tried_again(tmp_path: Path) -> None:
    """A commit whose sync failed had left it in the file: tried again for good, it held up all that came behind it."""
    with closing(TriggerJournal(tmp_path / "triggers.db")) as journal:
        journal.arrived(trigger(1))
        journal.answered("id-1", Verdict.PASS)
        journal.arrived(trigger(1))
        assert journal.books(since_s=0) == Books(seen=1, answered=1, unanswered=0, recorded=0)
