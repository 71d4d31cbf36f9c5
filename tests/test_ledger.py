"""The ledger: every board once, on disk before anybody sees it."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from station.errors import LedgerDamagedError, LedgerError, LedgerTooNewError
from station.ledger import SqliteLedger, open_ledger
from station.ledger_file import connect, create, examine
from station.outbox import SqliteOutbox
from station.types import Decision, Entry, Message, Recorded, Verdict
from tests.boards import board, message_of

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    with closing(open_ledger(path).ledger) as opened:
        yield opened


def record(ledger: SqliteLedger, event_id: str | None = None, *, owed: bool = True) -> tuple[str, Entry]:
    inspection = board(event_id)
    return inspection.frame.id, ledger.record(inspection, message_of(inspection), owed=owed)


def owed_events(path: Path) -> list[dict[str, Any]]:
    with closing(SqliteOutbox(path)) as outbox:
        return [json.loads(one.message.payload) for one in outbox.owed(after=0, limit=10_000)]


def look(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def test_what_is_recorded_is_owed_with_its_number(path: Path, ledger: SqliteLedger) -> None:
    entries = [record(ledger) for _ in range(3)]
    assert [entry.seq for _, entry in entries] == [1, 2, 3]
    assert {entry.ledger for _, entry in entries} == {ledger.uuid}
    events = owed_events(path)
    assert [event["event_id"] for event in events] == [event_id for event_id, _ in entries]
    assert [event["seq"] for event in events] == [1, 2, 3]


def test_a_ledger_goes_on_where_it_ended(path: Path) -> None:
    with closing(open_ledger(path).ledger) as first:
        _, before = record(first)
    with closing(open_ledger(path).ledger) as second:
        _, after = record(second)
    assert after == Entry(before.seq + 1, before.ledger)


def test_a_known_board_keeps_its_entry_and_changes_nothing(path: Path, ledger: SqliteLedger) -> None:
    event_id, first = record(ledger)
    calls: list[Entry] = []

    def make(entry: Entry) -> Message:
        calls.append(entry)
        return Message("other", b"other")

    assert ledger.record(board(event_id), make, owed=True) == first
    assert not calls
    assert len(owed_events(path)) == 1
    assert record(ledger)[1].seq == first.seq + 1


def test_an_unsealed_message_is_not_owed_until_it_is_sealed(path: Path, ledger: SqliteLedger) -> None:
    event_id, entry = record(ledger, owed=False)
    assert owed_events(path) == []
    ledger.seal(entry, Message("inspection/pass", b'{"gate": "shown"}'))
    assert owed_events(path) == [{"gate": "shown"}]
    ledger.seal(entry, Message("inspection/pass", b'{"gate": "twice"}'))
    assert owed_events(path) == [{"gate": "shown"}]
    assert ledger.recorded(event_id) == Recorded(None)


def test_what_a_crash_left_unsealed_is_owed_at_the_next_start(path: Path) -> None:
    first = open_ledger(path).ledger
    event_id, _ = record(first, owed=False)
    first.close()
    with closing(open_ledger(path).ledger):
        assert [event["event_id"] for event in owed_events(path)] == [event_id]
    with closing(open_ledger(path).ledger):
        assert len(owed_events(path)) == 1


def test_a_board_whose_seal_never_came_is_owed_with_the_next_board(path: Path, ledger: SqliteLedger) -> None:
    lost, _ = record(ledger, owed=False)
    following, _ = record(ledger)
    assert [event["event_id"] for event in owed_events(path)] == [lost, following]


def test_a_row_sealed_late_comes_after_what_a_publisher_has_seen(path: Path, ledger: SqliteLedger) -> None:
    _, entry = record(ledger, owed=False)
    assert ledger.notice(Message("fault", b"{}"))
    with closing(SqliteOutbox(path)) as outbox:
        seen = outbox.owed(after=0, limit=10)[-1].row
        ledger.seal(entry, Message("inspection/pass", b"sealed"))
        assert [one.message.payload for one in outbox.owed(after=seen, limit=10)] == [b"sealed"]


def test_a_message_that_cannot_be_made_leaves_no_gap(path: Path, ledger: SqliteLedger) -> None:
    record(ledger)

    def make(entry: Entry) -> Message:
        raise ZeroDivisionError

    inspection = board()
    with pytest.raises(ZeroDivisionError):
        ledger.record(inspection, make, owed=True)
    assert ledger.recorded(inspection.frame.id) is None
    assert record(ledger)[1].seq == 2


def test_retention_never_frees_a_number(path: Path, ledger: SqliteLedger) -> None:
    for _ in range(3):
        record(ledger)
    with closing(SqliteOutbox(path)) as outbox:
        outbox.settle([one.row for one in outbox.owed(after=0, limit=9)], [])
        assert outbox.prune(keep_days=-1) == 3
    assert record(ledger)[1].seq == 4


def test_the_problem_of_a_board_is_known(ledger: SqliteLedger) -> None:
    broken = board(problem="truncated JPEG")
    ledger.record(broken, message_of(broken), owed=True)
    assert ledger.recorded(broken.frame.id) == Recorded("truncated JPEG")
    assert ledger.recorded("nobody") is None


def test_a_notice_takes_no_number_of_the_boards(path: Path, ledger: SqliteLedger) -> None:
    record(ledger)
    assert ledger.notice(Message("fault", b'{"code": "broker_away"}'))
    assert record(ledger)[1].seq == 2
    assert owed_events(path)[1] == {"code": "broker_away"}


def test_notices_are_remembered_in_the_order_they_were_made_though_one_is_offered_again(
    path: Path, ledger: SqliteLedger
) -> None:
    for payload in (b"first", b"second", b"third"):
        assert ledger.notice(Message("fault", payload))
        record(ledger)
    assert ledger.notice(Message("other", b"else"))
    with closing(SqliteOutbox(path)) as outbox:
        rows = [one.row for one in outbox.owed(after=0, limit=9) if one.message.topic == "fault"]
        outbox.settle(rows[1:], [(rows[0], "not authorized")])
        outbox.offer_refused_again()
    assert ledger.notices("fault") == [b"first", b"second", b"third"]


def test_commits_reach_the_disk_before_they_return(path: Path, ledger: SqliteLedger) -> None:
    with closing(connect(path)) as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA foreign_keys").fetchone() == (1,)


class Obstinate(sqlite3.Connection):
    """Answers a PRAGMA as a network file system, or an odd build of SQLite, would."""

    answers: dict[str, str] = {}  # noqa: RUF012  # set by the tests

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        for sign, instead in self.answers.items():
            if sql == sign:
                return super().execute(instead)
        return super().execute(sql, parameters)


@pytest.mark.parametrize(
    ("answers", "advice"),
    [
        ({"PRAGMA journal_mode = WAL": "SELECT 'delete'"}, "put data_dir on a local disk"),
        ({"PRAGMA synchronous": "SELECT 1"}, "does not sync"),
    ],
)
def test_a_ledger_that_cannot_promise_is_refused(
    path: Path, ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch, answers: dict[str, str], advice: str
) -> None:
    real = sqlite3.connect
    monkeypatch.setattr(Obstinate, "answers", answers)
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: real(*args, factory=Obstinate, **more))
    with pytest.raises(LedgerError, match=advice):
        connect(path)


def test_only_the_owner_may_read_it(path: Path, ledger: SqliteLedger) -> None:
    record(ledger)
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
    assert modes == {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db-shm": 0o600}


def test_a_clean_end_leaves_one_file(path: Path) -> None:
    ledger = open_ledger(path).ledger
    record(ledger)
    ledger.recorded("x")
    ledger.close()
    assert [one.name for one in path.parent.iterdir()] == ["ledger.db"]


def test_the_write_ahead_log_does_not_grow_without_bound(path: Path) -> None:
    with closing(SqliteLedger(path, connect=lambda path: connect(path, checkpoint_pages=50))) as ledger:
        path.parent.mkdir()
        create(path)
        for _ in range(200):
            record(ledger)
        wal_bytes = path.with_name("ledger.db-wal").stat().st_size
    assert wal_bytes < 100 * 4200


def test_a_newer_ledger_is_refused_and_left_as_it_is(path: Path) -> None:
    open_ledger(path).ledger.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(LedgerTooNewError, match="newer station"):
        open_ledger(path)
    with pytest.raises(LedgerTooNewError, match="newer station"):
        connect(path)
    assert path.read_bytes() == before


def test_an_unreadable_place_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        open_ledger(tmp_path / "file" / "ledger.db")


def test_a_ledger_that_vanished_is_not_made_anew_in_silence(path: Path, ledger: SqliteLedger) -> None:
    ledger.close()
    path.unlink()
    with pytest.raises(LedgerError, match="unable to open"):
        record(ledger)
    assert not path.exists()


def test_a_ledger_that_is_deleted_or_replaced_while_open_takes_no_board(path: Path, ledger: SqliteLedger) -> None:
    record(ledger)
    with closing(SqliteOutbox(path)) as outbox:
        (first,) = outbox.owed(after=0, limit=10)
        kept = path.rename(path.with_name("kept.db"))
        with pytest.raises(LedgerDamagedError, match="deleted or replaced"):
            record(ledger)
        shutil.copy(kept, path)
        with pytest.raises(LedgerDamagedError, match="deleted or replaced"):
            outbox.settle([first.row], [])
        path.unlink()
        kept.rename(path)
        record(ledger)


def test_a_write_ahead_log_that_is_deleted_costs_no_event(path: Path) -> None:
    """What was committed to it is in the ledger after all have closed it in order; what came after it was refused."""
    with closing(open_ledger(path).ledger) as ledger:
        told = [record(ledger)[0] for _ in range(3)]
        path.with_name("ledger.db-wal").unlink()
        with pytest.raises(LedgerDamagedError, match="WAL"):
            record(ledger)
    assert [event["event_id"] for event in owed_events(path)] == told


def test_a_crash_while_the_ledger_was_made_is_no_damage(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with closing(open_ledger(path).ledger) as ledger:
        assert record(ledger)[1].seq == 1


# --- a disk that does not take what it is given ---


class Failing(sqlite3.Connection):
    """Fails once with *error* at the first statement that begins with *at*."""

    at = ""
    error = ""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if Failing.at and sql.startswith(Failing.at):
            Failing.at = ""
            raise sqlite3.OperationalError(Failing.error)
        return super().execute(sql, parameters)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: real(*args, factory=Failing, **more))

    def fail(at: str, error: str) -> None:
        monkeypatch.setattr(Failing, "at", at)
        monkeypatch.setattr(Failing, "error", error)

    return fail


@pytest.mark.parametrize("at", ["BEGIN", "INSERT INTO inspections", "INSERT INTO outbox", "COMMIT"])
@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("database or disk is full", "make room"),
        ("disk I/O error", "kernel log"),
        ("database is locked", "another process"),
    ],
)
def test_a_failed_commit_records_nothing_and_the_next_one_works(
    path: Path, failing: Callable[[str, str], None], at: str, error: str, advice: str
) -> None:
    with closing(open_ledger(path).ledger) as ledger:
        record(ledger)
        failing(at, error)
        event_id = "the board"
        with pytest.raises(LedgerError, match=advice) as caught:
            record(ledger, event_id)
        assert str(path) in str(caught.value)
        assert ledger.recorded(event_id) is None
        assert record(ledger, event_id)[1].seq == 2
        assert len(owed_events(path)) == 2


def test_a_failed_seal_is_made_up_for_with_the_next_board(path: Path, failing: Callable[[str, str], None]) -> None:
    late = Decision(Verdict.UNKNOWN, "late: it would have been pass")
    with closing(open_ledger(path).ledger) as ledger:
        _, entry = record(ledger, owed=False)
        failing("COMMIT", "disk I/O error")
        with pytest.raises(LedgerError):
            ledger.seal(entry, Message("inspection/unknown", b'{"event_id": "sealed"}'), amended=late)
        following, _ = record(ledger)
    assert [event["event_id"] for event in owed_events(path)] == ["sealed", following]
    assert look(path, "SELECT verdict, reason FROM inspections WHERE seq = 1") == [("unknown", late.reason)]


def test_a_failed_seal_leaves_what_was_recorded_to_the_next_start(
    path: Path, failing: Callable[[str, str], None]
) -> None:
    with closing(open_ledger(path).ledger) as ledger:
        event_id, entry = record(ledger, owed=False)
        failing("COMMIT", "disk I/O error")
        with pytest.raises(LedgerError):
            ledger.seal(entry, Message("inspection/pass", b'{"event_id": "sealed"}'))
    open_ledger(path).ledger.close()
    assert [event["event_id"] for event in owed_events(path)] == [event_id]


def test_a_notice_that_the_disk_refuses_raises_nothing(path: Path, failing: Callable[[str, str], None]) -> None:
    with closing(open_ledger(path).ledger) as ledger:
        failing("COMMIT", "database or disk is full")
        assert not ledger.notice(Message("fault", b"{}"))
        assert ledger.notice(Message("fault", b"{}"))
        assert len(owed_events(path)) == 1


def record_until_full(ledger: SqliteLedger) -> list[str]:
    done: list[str] = []
    try:
        while len(done) < 5000:
            done.append(record(ledger)[0])
    except LedgerError as error:
        assert "make room" in str(error)  # noqa: PT017  # it is not known which of them is the first to fail
        return done
    raise AssertionError("it never became full")


def test_a_full_file_keeps_what_is_owed_and_goes_on_when_there_is_room(path: Path) -> None:
    pages = 60

    def small(path: Path) -> sqlite3.Connection:
        db = connect(path)
        db.execute(f"PRAGMA max_page_count = {pages}")
        return db

    open_ledger(path).ledger.close()
    with closing(SqliteLedger(path, connect=small)) as ledger:
        done = record_until_full(ledger)
        done += record_until_full(ledger)  # one more may have fitted into what the last one needed
        pages = 1000
        done.append(
            record(ledger)[0]
        )  # the limit belongs to a connection: that it is gone shows that this is a new one
    assert [event["event_id"] for event in owed_events(path)] == done
    assert [event["seq"] for event in owed_events(path)] == list(range(1, len(done) + 1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_keeps_what_is_owed_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    path = small_disk / "ledger.db"
    ballast = small_disk / "ballast"
    with closing(open_ledger(path).ledger) as ledger, closing(SqliteOutbox(path)) as outbox:
        done = [record(ledger)[0]]
        ballast.write_bytes(bytes(500_000))
        done += record_until_full(ledger)
        assert len(done) > 10
        assert outbox.depth().owed == len(done)
        done += record_until_full(ledger)
        ballast.unlink()
        done.append(record(ledger)[0])
        rows = [one.row for one in outbox.owed(after=0, limit=10_000)]
        outbox.settle(rows[:10], [])
    assert examine(path) is None
    assert [event["event_id"] for event in owed_events(path)] == done[10:]


# --- crashes and company ---


def test_what_a_killed_station_said_is_in_its_ledger(path: Path) -> None:
    chance = random.Random(7)  # noqa: S311  # moments, not secrets
    said: dict[str, int] = {}
    done: set[str] = set()
    for _ in range(6):
        command = [sys.executable, "-m", "tests.recording", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as station:
            assert station.stdout is not None
            for _ in range(chance.randrange(1, 120)):
                note(station.stdout.readline(), said, done)
            station.kill()
            for line in station.stdout:
                note(line, said, done)
    assert len(done) > 20
    assert examine(path) is None
    with closing(open_ledger(path).ledger) as ledger:
        assert not [event_id for event_id in said if ledger.recorded(event_id) is None]
    boards = dict(look(path, "SELECT event_id, seq FROM inspections"))
    assert sorted(boards.values()) == list(range(1, len(boards) + 1))
    assert said.items() <= boards.items()
    events = [event for event in owed_events(path) if event]
    assert sorted(event["event_id"] for event in events) == sorted(boards)
    # A board whose end was announced was sealed before: its event knows of the gate.
    assert {event["gate"] for event in events if event["event_id"] in done} == {"off", "shown"}


def note(line: str, said: dict[str, int], done: set[str]) -> None:
    if line.endswith("\n"):  # the last one may be cut
        event_id, seq, what = line.split()
        said[event_id] = int(seq)
        if what == "done":
            done.add(event_id)


def test_several_threads_and_connections_share_one_ledger(path: Path, ledger: SqliteLedger) -> None:
    boards, notices = 150, 60
    troubles: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  # whatever it is, it belongs into the test's thread
                troubles.append(error)

        return threading.Thread(target=run)

    def line() -> None:
        for turn in range(boards):
            _, entry = record(ledger, owed=bool(turn % 2))
            ledger.seal(entry, Message("inspection/pass", b"{}"))

    def notify() -> None:
        assert all(ledger.notice(Message("fault", b"{}")) for _ in range(notices))

    def publish() -> None:
        seen = 0
        with closing(SqliteOutbox(path)) as outbox:
            while seen < boards + 2 * notices:
                rows = [one.row for one in outbox.owed(after=0, limit=7)]
                outbox.settle(rows[:5], [(row, "no") for row in rows[5:]])
                seen += len(rows)

    threads = [guarded(work) for work in (line, notify, notify, publish)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert not troubles
    assert owed_events(path) == []
    assert look(path, "SELECT max(seq), count(*) FROM inspections") == [(boards, boards)]
    assert look(path, "SELECT count(*) FROM outbox") == [(boards + 2 * notices,)]


def test_a_board_amended_at_its_seal_is_on_record_as_the_line_was_answered(path: Path, ledger: SqliteLedger) -> None:
    _, entry = record(ledger, owed=False)
    late = Decision(Verdict.UNKNOWN, "late: it would have been pass")
    ledger.seal(entry, Message("inspection/unknown", b"{}"), amended=late)
    assert look(path, "SELECT verdict, reason FROM inspections") == [("unknown", "late: it would have been pass")]
    ledger.seal(entry, Message("inspection/pass", b"{}"), amended=Decision(Verdict.PASS, "no defect found"))
    assert look(path, "SELECT verdict FROM inspections") == [("unknown",)], "what was sealed stands"


def test_a_crash_before_the_seal_leaves_the_board_as_the_line_was_answered(path: Path) -> None:
    with closing(open_ledger(path).ledger) as ledger:
        inspection = board()
        ledger.record(inspection, message_of(inspection), owed=False)
    with closing(open_ledger(path).ledger) as ledger:
        for _ in range(2):
            ledger.amend_late(inspection.frame.id, "it was answered unknown, then the station went down")
        ledger.amend_late("nobody", "it was answered unknown")
    ((verdict, reason),) = look(path, "SELECT verdict, reason FROM inspections")
    ((topic, payload),) = look(path, "SELECT topic, payload FROM outbox")
    event = json.loads(payload)
    assert verdict == event["verdict"] == "unknown"
    assert topic == "inspection/unknown"
    assert event["gate"] == "late"
    assert reason == event["reason"]
    assert reason.startswith("late: it was answered unknown, then the station went down; it would have been ")


def test_the_boards_of_a_day_are_counted_from_its_first_one_on(path: Path) -> None:
    now_s = 1000.0
    open_ledger(path).ledger.close()
    with closing(SqliteLedger(path, now=lambda: now_s)) as ledger:
        assert ledger.boards_since(0.0) == 0
        record(ledger)
        now_s = 2000.0
        assert ledger.boards_since(2000.0) == 0
        record(ledger)
        assert (ledger.boards_since(2000.0), ledger.boards_since(0.0)) == (1, 2)
        record(ledger)
        assert (ledger.boards_since(2000.0), ledger.boards_since(3000.0)) == (2, 0)
