"""The outbox: what is owed stays owed until the broker has answered for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from station.errors import LedgerError
from station.ledger import SqliteLedger, open_ledger
from station.ledger_file import LedgerFile, connect
from station.outbox import CHUNK_ROWS, Depth, SqliteOutbox, owe_again
from station.types import Message, Recorded
from tests.boards import board, message_of

DAY_S = 86_400


class Clock:
    """A wall clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1_795_435_200.0

    def __call__(self) -> float:
        return self.now_s


class Pair:
    """A ledger and its outbox, on one clock."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.path = path
        self.ledger: SqliteLedger = open_ledger(path, now=self.clock).ledger
        self.outbox = SqliteOutbox(path, now=self.clock)

    def record(self, count: int = 1) -> list[str]:
        boards = [board() for _ in range(count)]
        for one in boards:
            self.ledger.record(one, message_of(one), owed=True)
        return [one.frame.id for one in boards]

    def notices(self, count: int) -> None:
        """Many owed rows at the price of few commits."""
        with closing(LedgerFile(self.path)) as file, file.writing() as db:
            row = "INSERT INTO outbox VALUES (NULL, NULL, NULL, 'fault', x'7b7d', 'owed', NULL, ?, ?, NULL)"
            db.executemany(row, [(self.clock(), self.clock())] * count)

    def rows(self, after: int = 0) -> list[int]:
        return [one.row for one in self.outbox.owed(after=after, limit=10_000)]

    def messages(self) -> list[Message]:
        return [one.message for one in self.outbox.owed(after=0, limit=10_000)]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path / "ledger.db")
    yield made
    made.outbox.close()
    made.ledger.close()


def test_owed_comes_in_order_and_in_pages(pair: Pair) -> None:
    pair.record(5)
    first = pair.outbox.owed(after=0, limit=2)
    second = pair.outbox.owed(after=first[-1].row, limit=2)
    third = pair.outbox.owed(after=second[-1].row, limit=2)
    assert [one.row for one in (*first, *second, *third)] == pair.rows()
    assert [len(page) for page in (first, second, third)] == [2, 2, 1]


def test_what_is_accepted_or_refused_is_owed_no_more(pair: Pair) -> None:
    pair.record(4)
    rows = pair.rows()
    pair.outbox.settle(rows[:1], [(rows[1], "not authorized")])
    assert pair.rows() == rows[2:]
    assert pair.outbox.depth() == Depth(owed=2, oldest_age_s=0.0, refused=1)


def test_settling_what_is_not_owed_changes_nothing(pair: Pair) -> None:
    pair.record(1)
    rows = pair.rows()
    pair.outbox.settle(rows, [])
    pair.outbox.settle([], [(rows[0], "late"), (999, "nobody")])
    assert pair.outbox.depth() == Depth(0, 0.0, 0)


def test_settling_nothing_writes_nothing(tmp_path: Path) -> None:
    with closing(SqliteOutbox(tmp_path / "absent.db")) as outbox:
        outbox.settle([], [])  # would raise LedgerError if it opened the file: there is none
        with pytest.raises(LedgerError):
            outbox.settle([1], [])
    assert not (tmp_path / "absent.db").exists()


def test_what_was_refused_is_owed_again_as_new_rows(pair: Pair) -> None:
    pair.record(3)
    rows, before = pair.rows(), pair.messages()
    pair.outbox.settle(rows[2:], [(row, "quota") for row in rows[:2]])
    assert pair.outbox.offer_refused_again() == 2
    assert pair.messages() == before[:2]
    assert len(pair.rows(after=rows[-1])) == 2
    assert pair.outbox.offer_refused_again() == 0


def test_owing_again_ends_while_a_publisher_settles(pair: Pair) -> None:
    pair.notices(2 * CHUNK_ROWS + 1)
    pair.outbox.settle(pair.rows(), [])
    turns = 0

    def publish(_: int) -> None:
        nonlocal turns
        turns += 1
        assert turns < 10
        pair.outbox.settle(pair.rows(), [])

    with closing(LedgerFile(pair.path)) as file:
        assert owe_again(file, "1", (), now=pair.clock, on_progress=publish) == 2 * CHUNK_ROWS + 1
    assert turns == 3


def test_the_age_is_that_of_the_first_owed(pair: Pair) -> None:
    pair.record(2)
    pair.clock.now_s += 30
    pair.record(1)
    pair.clock.now_s += 5
    assert pair.outbox.depth().oldest_age_s == 35
    pair.outbox.settle(pair.rows()[:2], [])
    assert pair.outbox.depth().oldest_age_s == 5


def test_the_age_counts_from_when_it_was_owed_again(pair: Pair) -> None:
    pair.record(1)
    pair.outbox.settle([], [(pair.rows()[0], "quota")])
    pair.clock.now_s += DAY_S
    pair.outbox.offer_refused_again()
    pair.clock.now_s += 7
    assert pair.outbox.depth().oldest_age_s == 7


def test_a_clock_set_back_gives_no_negative_age(pair: Pair) -> None:
    pair.record(1)
    pair.clock.now_s -= 3600
    assert pair.outbox.depth().oldest_age_s == 0


def test_retention_takes_what_was_accepted_and_is_old(pair: Pair) -> None:
    old, refused, young, owed = pair.record(4)
    rows = pair.rows()
    pair.outbox.settle([rows[0]], [(rows[1], "no")])
    pair.clock.now_s += 10 * DAY_S
    pair.outbox.settle([rows[2]], [])
    pair.clock.now_s += DAY_S
    assert pair.outbox.prune(keep_days=7) == 1
    assert pair.outbox.prune(keep_days=7) == 0
    assert pair.ledger.recorded(old) is None
    assert all(pair.ledger.recorded(one) == Recorded(None) for one in (refused, young, owed))
    assert pair.outbox.depth() == Depth(owed=1, oldest_age_s=11 * DAY_S, refused=1)


def test_retention_never_takes_what_is_owed_however_old(pair: Pair) -> None:
    pair.record(3)
    pair.clock.now_s += 10_000 * DAY_S
    assert pair.outbox.prune(keep_days=1) == 0
    assert len(pair.rows()) == 3


def test_by_a_clock_that_nobody_keeps_the_newest_are_never_too_old(pair: Pair) -> None:
    oldest, *newest = pair.record(4)
    pair.outbox.settle(pair.rows(), [])
    pair.clock.now_s += 730 * DAY_S
    assert pair.outbox.prune(keep_days=90, keep_newest=3) == 1
    assert pair.ledger.recorded(oldest) is None
    assert all(pair.ledger.recorded(one) for one in newest)


def test_retention_may_keep_the_ids(pair: Pair) -> None:
    (event_id,) = pair.record(1)
    pair.outbox.settle(pair.rows(), [])
    pair.clock.now_s += 2 * DAY_S
    assert pair.outbox.prune(keep_days=1, keep_ids=True) == 1
    assert pair.ledger.recorded(event_id) == Recorded(None)
    again = board(event_id)
    pair.ledger.record(again, message_of(again), owed=True)
    assert pair.rows() == []


def test_retention_goes_in_chunks(pair: Pair) -> None:
    pair.notices(CHUNK_ROWS + 20)
    pair.outbox.settle(pair.rows(), [])
    pair.clock.now_s += 2 * DAY_S
    assert [pair.outbox.prune(keep_days=1) for _ in range(3)] == [CHUNK_ROWS, 20, 0]


def test_looking_at_a_hundred_thousand_owed_uses_the_indexes(pair: Pair) -> None:
    """Speed is a matter of the machine; that no table is scanned is not."""
    queries: list[str] = []

    def watched(path: Path) -> object:
        db = connect(path)
        db.set_trace_callback(queries.append)
        return db

    with closing(SqliteOutbox(pair.path, connect=watched)) as outbox:  # type: ignore[arg-type]  # it is a connection
        outbox.owed(after=17, limit=3)
        outbox.depth()
        outbox.prune(keep_days=1)
    with closing(connect(pair.path)) as db:
        for query in [one for one in queries if one.startswith("SELECT")]:
            plan = db.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
            assert not [step for step in plan if "SCAN" in step[3] and "INDEX" not in step[3]], (query, plan)
            assert any("INDEX" in step[3] for step in plan), (query, plan)


def test_a_missing_ledger_is_said_so(tmp_path: Path) -> None:
    with (
        closing(SqliteOutbox(tmp_path / "absent.db")) as outbox,
        pytest.raises(LedgerError, match="check that it exists"),
    ):
        outbox.depth()
