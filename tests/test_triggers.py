"""Triggers wait in their order, none is forgotten, and too many get their answer without a picture."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest

from station import triggers
from station.health import Health
from station.journal_writer import JournalWriter
from station.testing import FakeOrder
from station.trigger_journal import TriggerJournal
from station.triggers import Reply, Triggers
from station.types import Trigger
from tests.waiting import until

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


class Memory:
    """A journal in memory; *hangs*: the disk takes its time, more than a trigger has."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.hangs = hangs
        self.seen: list[str] = []
        self.done: list[str] = []

    def arrived(self, trigger: Trigger) -> threading.Event:
        written = threading.Event()
        if not self.hangs:
            self.seen.append(trigger.id)
            written.set()
        return written

    def recorded(self, trigger_id: str) -> None:
        self.done.append(trigger_id)


class Asking:
    """A queue of at most *limit*, at a clock of its own, and what it told."""

    def __init__(self, *, limit: int = 2, journal: Memory | None = None, codes: dict[float, str] | None = None) -> None:
        self.journal = journal or Memory()
        self.expected: list[tuple[Trigger, Reply | None]] = []
        self.missed: list[str | None] = []
        self.ordered: list[tuple[float, FakeOrder]] = []
        self.queue = Triggers(
            kind="serial",
            limit=limit,
            journal=self.journal,
            order=self._order,
            answer_s=0.5,
            expect=lambda trigger, reply, _: self.expected.append((trigger, reply)),
            code_for=lambda at_s: (codes or {}).pop(at_s, None),
            on_arrived=self.missed.append,
            monotonic=lambda: 100.0,
            now=lambda: NOON,
        )

    def _order(self, at_s: float) -> FakeOrder:
        self.ordered.append((at_s, FakeOrder()))
        return self.ordered[-1][1]


def test_a_trigger_is_on_disk_and_its_answer_expected_when_it_has_been_taken() -> None:
    asking = Asking()
    trigger = asking.queue.arrived(17, "SN1", 99.5)
    assert trigger is not None
    assert asking.journal.seen == [trigger.id]
    assert [one for one, _ in asking.expected] == [trigger]
    assert (trigger.number, trigger.board_serial, trigger.kind, trigger.at_s) == (17, "SN1", "serial", 99.5)
    assert trigger.at == datetime(2026, 11, 23, 11, 59, 59, 500000, tzinfo=timezone.utc)


def test_a_barcode_belongs_to_one_trigger_and_what_the_trigger_says_itself_is_stronger() -> None:
    codes = {98.0: "SN1", 99.0: "SN2"}
    queue = Asking(codes=codes).queue
    taken = [queue.arrived(1, None, 98.0), queue.arrived(2, None, 98.0), queue.arrived(3, "MINE", 99.0)]
    assert [one and one.board_serial for one in taken] == ["SN1", None, "MINE"]
    assert codes == {}, "a code that was not wanted is gone all the same"


def test_the_same_trigger_is_next_until_its_board_is_recorded() -> None:
    asking = Asking()
    for number in (1, 2):
        asking.queue.arrived(number)
    first = asking.queue.next(within_s=0)
    assert first is not None
    assert asking.queue.next(within_s=0) is first
    asking.queue.recorded(first.trigger)
    asking.queue.recorded(first.trigger)  # said twice it takes no other one
    second = asking.queue.next(within_s=0)
    assert second is not None
    assert second.trigger.number == 2
    asking.queue.recorded(second.trigger)
    assert asking.queue.next(within_s=0) is None
    assert asking.journal.done == [first.trigger.id, first.trigger.id, second.trigger.id]


def test_beyond_the_limit_a_trigger_keeps_its_place_and_gets_no_picture() -> None:
    asking = Asking(limit=2)  # one under way and two that wait
    for number in range(5):
        asking.queue.arrived(number)
    found = []
    while (asked := asking.queue.next(within_s=0)) is not None:
        found.append((asked.trigger.number, asked.missed is not None))
        asking.queue.recorded(asked.trigger)
    assert found == [(0, False), (1, False), (2, False), (3, True), (4, True)]
    assert "2 triggers were waiting" in (asking.missed[3] or "")
    assert len(asking.expected) == 5, "they are owed an answer like all others"


def test_missed_ones_do_not_fill_the_queue_for_those_that_follow() -> None:
    asking = Asking(limit=1)
    for number in range(6):
        asking.queue.arrived(number)
    for _ in range(2):
        asked = asking.queue.next(within_s=0)
        assert asked is not None
        asking.queue.recorded(asked.trigger)
    asking.queue.arrived(6)
    assert asking.missed[6] is None


def test_a_disk_that_takes_nothing_leaves_the_trigger_with_its_answer() -> None:
    asking = Asking(journal=Memory(hangs=True))
    trigger = asking.queue.arrived(1, at_s=99.5)  # half a second ago: its time is over
    assert trigger is not None
    assert len(asking.expected) == 1
    asked = asking.queue.next(within_s=0)
    assert asked is not None
    assert not asked.written.is_set()
    asking.queue.recorded(trigger)
    assert asking.queue.next(within_s=0) is None


def test_the_picture_is_ordered_at_once_and_not_when_the_triggers_turn_comes() -> None:
    asking = Asking(limit=1)
    mine = FakeOrder()
    asking.queue.arrived(1, at_s=99.0)
    asking.queue.arrived(2, at_s=99.5, picture=mine)  # ordered by who heard it
    asking.queue.arrived(3, at_s=99.8)
    assert [at_s for at_s, _ in asking.ordered] == [99.0, 99.8]
    found = []
    while (asked := asking.queue.next(within_s=0)) is not None:
        found.append(asked.picture)
        asking.queue.recorded(asked.trigger)
    assert found == [asking.ordered[0][1], mine, None]
    assert [one.cancelled for _, one in asking.ordered] == [False, True], "what is missed takes no picture from others"


def test_what_is_not_taken_gives_its_picture_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "FLOOD", 1)
    asking = Asking()
    asking.queue.arrived(1)
    asking.queue.arrived(2)
    asking.queue.close()
    asking.queue.arrived(3)
    assert [one.cancelled for _, one in asking.ordered] == [False, True, True]


def test_a_flood_is_cut_off_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "FLOOD", 3)
    asking = Asking()
    taken = [asking.queue.arrived(number) is not None for number in range(5)]
    assert taken == [True, True, True, False, False]


def test_from_the_beginning_of_a_stop_no_trigger_is_taken_and_those_that_were_are_answered() -> None:
    asking = Asking()
    first = asking.queue.arrived(1)
    asking.queue.close()
    assert asking.queue.arrived(2) is None
    assert len(asking.journal.seen) == len(asking.expected) == 1
    found = asking.queue.next(within_s=0)
    assert found is not None
    assert found.trigger == first


def test_who_waits_for_a_trigger_is_woken_by_it() -> None:
    asking = Asking()
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(asking.queue.next(within_s=60)))
    waiting.start()
    asking.queue.arrived(1)
    until(lambda: found)
    waiting.join(10)
    assert found != [None]


def test_threads_that_trigger_at_once_are_journalled_in_the_order_of_the_queue(tmp_path: Path) -> None:
    journal = TriggerJournal(tmp_path / "triggers.db")
    writer, stop = JournalWriter(journal, health=Health(), beat=lambda _: None), threading.Event()
    queue = Triggers(
        kind="http", limit=1000, journal=writer, order=lambda _: FakeOrder(), answer_s=60, expect=lambda *_: None
    )
    threads = [threading.Thread(target=lambda: [queue.arrived() for _ in range(25)]) for _ in range(4)]
    loop = threading.Thread(target=writer.run, args=(stop,))
    for thread in (loop, *threads):
        thread.start()
    for thread in threads:
        thread.join(60)
    in_queue = []
    on_disk = [one.id for one, _ in journal.left_open()]
    while (asked := queue.next(within_s=0)) is not None:
        in_queue.append(asked.trigger.id)
        queue.recorded(asked.trigger)
    stop.set()
    loop.join(60)
    assert journal.books(since_s=0).recorded == 100, "what waits at a stop is written too"
    journal.close()
    assert in_queue == on_disk
    assert len(in_queue) == 100
