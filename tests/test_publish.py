"""The publish loop on fakes: what is owed goes out in order, and leaves the outbox by the broker's answer alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from station import publish
from station.errors import LedgerError
from station.health import Health
from station.publish import run_publish
from station.testing import FakeLink, FakeOutbox
from station.types import Fate, Message
from tests.waiting import until


class WakingLink(FakeLink):
    """As the real one, it wakes the loop at each answer, and when it comes up."""

    wake: threading.Event

    def answer(self, token: int, fate: Fate = Fate.ACCEPTED, reason: str = "") -> None:
        super().answer(token, fate, reason)
        self.wake.set()

    def connect(self) -> None:
        self.connections += 1
        self.up = True
        self.wake.set()

    def lose(self) -> None:
        """The connection ends: all that is under way is lost."""
        self.up = False
        for token in sorted(self._under_way):
            self.answer(token, Fate.LOST, "connection lost")

    def payloads(self) -> list[bytes]:
        return [payload for _, _, payload in self.sent]


class Loop:
    """``run_publish`` in a thread, with a clock that only the test moves."""

    def __init__(self, messages: int = 0, *, window: int = 20, outbox: FakeOutbox | None = None) -> None:
        self.now_s = 1000.0
        self.outbox = outbox or FakeOutbox()
        for number in range(messages):
            self.outbox.add(Message("inspection/pass", b"%d" % number))
        self.link = WakingLink(window=window)
        self.link.wake = self.wake = threading.Event()
        self.health = Health()
        self.outcomes: list[str] = []
        self.beats: list[str] = []
        self.worked = 0
        self.stop = threading.Event()
        self.raised: list[Exception] = []
        self._thread = threading.Thread(target=self._run, name="publish", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, payload: bytes) -> int:
        row = self.outbox.add(Message("inspection/pass", payload))
        self.wake.set()
        return row

    def leap(self, seconds: float) -> None:
        self.now_s += seconds
        self.wake.set()

    def accept_all(self) -> None:
        for token in sorted(self.link._under_way):
            self.link.answer(token)

    def turn(self) -> None:
        """Returns when the loop has made a whole turn since now."""
        beats = len(self.beats)
        until(lambda: self.wake.set() or len(self.beats) >= beats + 2)  # type: ignore[func-returns-value]  # None: go on

    def end(self, within_s: float = 60.0) -> None:
        self.stop.set()
        self.wake.set()
        self._thread.join(within_s)
        assert not self._thread.is_alive(), "the publish loop did not stop"

    def faults(self) -> dict[str, str]:
        return {fault.code: fault.detail for fault in self.health.faults()}

    def _run(self) -> None:
        try:
            run_publish(
                self.stop,
                outbox=self.outbox,
                link=self.link,
                topic="factory/test",
                beat=self.beats.append,
                wake=self.wake,
                health=self.health,
                on_outcome=self.outcomes.append,
                worked=self._worked,
                monotonic=lambda: self.now_s,
            )
        except LedgerError as error:
            self.raised.append(error)

    def _worked(self) -> None:
        self.worked += 1


@pytest.fixture
def loop() -> Iterator[Callable[..., Loop]]:
    """Makes loops that run until the end of the test."""
    loops: list[Loop] = []

    def make(*args: Any, **options: Any) -> Loop:
        one = Loop(*args, **options)
        loops.append(one)
        one.start()
        return one

    yield make
    for one in loops:
        one.link.lose()  # so that there is nothing to wait for
        one.end()


Make = Callable[..., Loop]


def test_what_is_owed_goes_out_in_order_below_the_stations_topic(loop: Make) -> None:
    one = loop(5)
    until(lambda: len(one.link.sent) == 5)
    assert one.link.payloads() == [b"0", b"1", b"2", b"3", b"4"]
    assert {topic for _, topic, _ in one.link.sent} == {"factory/test/inspection/pass"}


def test_a_row_stays_owed_until_its_answer(loop: Make) -> None:
    one = loop(3)
    until(lambda: len(one.link.sent) == 3)
    one.turn()
    assert one.outbox.state("owed") == [1, 2, 3]
    one.link.answer(one.link.sent[1][0])
    until(lambda: one.outbox.state("accepted") == [2])
    assert one.outbox.state("owed") == [1, 3]
    until(lambda: one.outcomes == ["acked"])


def test_no_more_than_the_link_takes_is_sent(loop: Make) -> None:
    one = loop(10, window=2)
    until(lambda: len(one.link.sent) == 2)
    one.turn()
    assert len(one.link.sent) == 2
    one.link.answer(one.link.sent[0][0])
    until(lambda: len(one.link.sent) == 3)


def test_nothing_is_sent_while_there_is_no_connection(loop: Make) -> None:
    one = loop()
    one.link.up = False
    one.add(b"x")
    one.turn()
    assert not one.link.sent
    one.link.connect()
    until(lambda: one.link.payloads() == [b"x"])


def test_answers_that_came_together_are_one_commit() -> None:
    one = Loop(20)
    settle = one.outbox.settle
    in_settle, go_on = threading.Event(), threading.Event()

    def slow(accepted: list[int], refused: list[tuple[int, str]]) -> None:
        in_settle.set()
        assert go_on.wait(60)
        settle(accepted, refused)

    one.outbox.settle = slow  # type: ignore[method-assign]  # a commit that takes its time
    one.start()
    until(lambda: len(one.link.sent) == 20)
    one.link.answer(one.link.sent[0][0])
    assert in_settle.wait(60)
    one.accept_all()
    go_on.set()
    until(lambda: len(one.outbox.state("accepted")) == 20)
    assert one.outbox.settlements == 2
    one.end()


def test_answers_that_come_one_by_one_share_a_commit_while_there_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "SETTLE_S", 60.0)  # the next news always comes in time
    one = Loop(publish.SETTLE_ROWS)
    one.start()
    until(lambda: len(one.link.sent) == publish.SETTLE_ROWS)
    for number, (token, _, _) in enumerate(one.link.sent):
        assert one.outbox.settlements == 0, f"a commit after {number} answers"
        one.link.answer(token)
        if number + 1 < publish.SETTLE_ROWS:
            one.turn()
    until(lambda: len(one.outbox.state("accepted")) == publish.SETTLE_ROWS)
    assert one.outbox.settlements == 1
    one.end()


def test_an_answer_that_waits_for_others_is_marked_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "SETTLE_S", 60.0)
    one = Loop(1)
    one.start()
    until(lambda: len(one.link.sent) == 1)
    one.accept_all()
    one.turn()
    assert not one.outbox.state("accepted")
    one.link.up = False  # and nothing is under way
    one.end()
    assert len(one.outbox.state("accepted")) == 1


def test_a_backlog_is_read_in_pages_and_each_row_once(loop: Make) -> None:
    one = loop(950, window=1000)
    until(lambda: len(one.link.sent) == 950)
    assert max(one.outbox.pages) == publish.PAGE
    assert sum(one.outbox.pages) == 950


def test_a_message_that_ends_every_connection_is_set_aside_and_the_others_go_on(loop: Make) -> None:
    """As a broker of MQTT 3.1.1 does with one that is too large for it: it has no word for that."""
    one = loop(4)
    for losses in range(publish.ENDED_BY_ONE):
        until(lambda: one.link._under_way)
        one.turn()
        assert len(one.link._under_way) == (1 if losses >= publish.ONE_AT_A_TIME else 4)
        assert not one.outbox.state("refused")
        one.link.lose()
        one.turn()
        one.link.connect()
    until(lambda: one.outbox.state("refused") == [1])
    assert "ends whenever it is sent, 1 bytes" in one.faults()["event_refused"]
    until(lambda: one.link.payloads()[-1] == b"1")
    one.accept_all()
    until(lambda: one.link.payloads()[-2:] == [b"2", b"3"])
    one.accept_all()
    until(lambda: one.outbox.state("accepted") == [2, 3, 4])
    one.link.lose()
    one.link.connect()
    one.turn()
    assert not one.link._under_way  # another connection is no reason to offer it, and lose that too
    one.leap(publish.OFFER_AGAIN_S)
    until(lambda: one.link._under_way)
    one.accept_all()
    until(lambda: one.outbox.state("accepted") == [2, 3, 4, 5])


def test_a_network_that_comes_and_goes_sets_nothing_aside(loop: Make) -> None:
    one = loop(40, window=4)
    for _ in range(3 * publish.ENDED_BY_ONE):
        until(lambda: one.link._under_way)
        one.turn()
        if len(one.link._under_way) == 1:
            one.accept_all()
            one.turn()
        one.link.lose()
        one.turn()
        one.link.connect()
    assert not one.outbox.state("refused")


def test_what_is_lost_is_sent_again_first_and_in_order(loop: Make) -> None:
    one = loop(6, window=4)
    until(lambda: len(one.link.sent) == 4)
    one.link.answer(one.link.sent[1][0])
    until(lambda: len(one.link.sent) == 5)
    one.link.lose()
    one.turn()
    one.link.connect()
    until(lambda: len(one.link.sent) == 9)
    assert one.link.payloads()[5:] == [b"0", b"2", b"3", b"4"]
    assert one.outcomes.count("resent") == 4
    one.accept_all()
    until(lambda: len(one.link.sent) == 10)
    assert one.link.payloads()[9] == b"5"
    assert one.outcomes.count("resent") == 4


def test_a_refused_row_is_set_aside_with_a_fault_and_the_others_go_on(loop: Make) -> None:
    one = loop(3)
    until(lambda: len(one.link.sent) == 3)
    one.link.answer(one.link.sent[0][0], Fate.REFUSED, "0x87 Not authorized")
    one.accept_all()
    until(lambda: one.outbox.state("accepted") == [2, 3])
    assert one.outbox.state("refused") == [1]
    until(lambda: "Not authorized" in one.faults().get("event_refused", ""))
    assert sorted(one.outcomes) == ["acked", "acked", "refused"]


def test_refused_rows_are_offered_again_at_a_new_connection_and_never_dropped(loop: Make) -> None:
    one = loop(1)
    for connection in range(3):
        until(lambda connection=connection: len(one.link.sent) == connection + 1)  # type: ignore[misc]  # bound at once
        one.link.answer(one.link.sent[-1][0], Fate.REFUSED, "0x87 Not authorized")
        until(lambda: len(one.outbox.state("refused")) == 1)
        until(lambda: "event_refused" in one.faults())
        one.link.lose()
        one.link.connect()
    until(lambda: len(one.link.sent) == 4)
    one.accept_all()
    until(lambda: len(one.outbox.state("accepted")) == 1)
    assert not one.faults()


def test_refused_rows_are_offered_again_after_an_hour(loop: Make) -> None:
    one = loop(1)
    until(lambda: len(one.link.sent) == 1)
    one.link.answer(one.link.sent[0][0], Fate.REFUSED, "0x87 Not authorized")
    until(lambda: len(one.outbox.state("refused")) == 1)
    one.leap(3599)
    one.turn()
    assert len(one.link.sent) == 1
    one.leap(2)
    until(lambda: len(one.link.sent) == 2)


def test_a_busy_broker_is_left_in_peace_ever_longer_and_the_row_is_first_in_line(loop: Make) -> None:
    one = loop(2, window=1)
    for pause_s in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        until(lambda: one.link._under_way)
        sent = len(one.link.sent)
        assert one.link.payloads()[-1] == b"0"
        one.link.answer(one.link.sent[-1][0], Fate.BUSY, "0x97 Quota exceeded")
        one.turn()
        assert "Quota exceeded" in one.faults()["broker_busy"]
        one.leap(pause_s - 0.5)
        one.turn()
        assert len(one.link.sent) == sent
        one.leap(0.5)
        until(lambda sent=sent: len(one.link.sent) == sent + 1)  # type: ignore[misc]  # bound at once
    one.accept_all()
    until(lambda: one.link.payloads()[-1] == b"1")
    assert "broker_busy" not in one.faults()
    one.link.answer(one.link.sent[-1][0], Fate.BUSY, "0x97 Quota exceeded")
    one.turn()
    sent = len(one.link.sent)
    one.leap(1.0)  # an event was taken in between: the first pause is the short one again
    until(lambda: len(one.link.sent) == sent + 1)
    assert one.outbox.state("refused") == []


def test_many_busy_answers_at_once_are_one_pause(loop: Make) -> None:
    one = loop(20)
    until(lambda: len(one.link.sent) == 20)
    for token in sorted(one.link._under_way):
        one.link.answer(token, Fate.BUSY, "0x97 Quota exceeded")
    one.turn()
    one.leap(1.0)
    until(lambda: len(one.link.sent) == 40)
    assert one.link.payloads()[20:] == one.link.payloads()[:20]


def test_an_answer_to_a_run_before_this_one_is_nobodys(loop: Make) -> None:
    one = loop(1)
    until(lambda: len(one.link.sent) == 1)
    one.link.answer(4711)
    one.turn()
    assert one.outbox.state("owed") == [1]


def test_a_commit_that_fails_comes_out_and_the_next_run_sends_again() -> None:
    class Full(FakeOutbox):
        def settle(self, accepted: list[int], refused: list[tuple[int, str]]) -> None:
            raise LedgerError("disk full")

    outbox = FakeOutbox()
    first = Loop(2, outbox=Full())
    first.start()
    until(lambda: len(first.link.sent) == 2)
    first.accept_all()
    until(lambda: first.raised)
    assert first.outbox.state("owed") == [1, 2]
    outbox.rows = first.outbox.rows
    second = Loop(outbox=outbox)
    second.start()
    until(lambda: second.link.payloads() == [b"0", b"1"])
    second.accept_all()
    until(lambda: outbox.state("accepted") == [1, 2])
    second.end()


def test_a_new_row_an_answer_and_a_connection_wake_it_at_once(loop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "IDLE_S", 600.0)
    one = loop(window=1)
    until(lambda: one.beats)
    one.add(b"0")
    until(lambda: one.link.payloads() == [b"0"])
    one.add(b"1")
    one.accept_all()
    until(lambda: one.link.payloads() == [b"0", b"1"])
    one.link.lose()
    one.link.connect()
    until(lambda: one.link.payloads() == [b"0", b"1", b"1"])


def test_it_beats_and_says_that_it_works_while_there_is_nothing_to_do(loop: Make) -> None:
    one = loop()
    until(lambda: len(one.beats) > 2)
    assert set(one.beats) == {"publish"}
    assert one.worked > 0


# The stop.


def test_a_stop_waits_until_nothing_is_owed() -> None:
    one = Loop(5, window=2)
    one.start()
    until(lambda: len(one.link.sent) == 2)
    one.stop.set()
    while len(one.outbox.state("accepted")) < 5:
        accepted = len(one.outbox.state("accepted"))
        one.accept_all()
        until(lambda accepted=accepted: len(one.outbox.state("accepted")) > accepted)  # type: ignore[misc]  # bound at once
    one.end()
    assert one.outbox.state("owed") == []


def test_a_stop_waits_no_longer_than_its_drain_time() -> None:
    one = Loop(5)
    one.start()
    until(lambda: len(one.link.sent) == 5)
    one.stop.set()
    one.turn()
    assert one._thread.is_alive()
    one.leap(5.1)
    one.end()
    assert one.outbox.state("owed") == [1, 2, 3, 4, 5]


def test_a_stop_without_a_connection_is_immediate() -> None:
    one = Loop(5)
    one.link.up = False
    one.start()
    until(lambda: one.beats)
    one.end()
    assert not one.link.sent


def test_a_stop_ends_the_wait_when_the_connection_does() -> None:
    one = Loop(2)
    one.start()
    until(lambda: len(one.link.sent) == 2)
    one.stop.set()
    one.link.lose()
    one.end()
    assert one.outbox.state("owed") == [1, 2]
