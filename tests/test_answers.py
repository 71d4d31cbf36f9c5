"""Every trigger gets exactly one answer, in order and in time."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager
from datetime import datetime, timezone

import pytest

from station.answers import Answers
from station.errors import GateError, GateLateError
from station.testing import FakeGate
from station.types import Answer, Trigger, Verdict
from tests.looping import running
from tests.waiting import until

ANSWER_S = 0.5


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Books:
    def __init__(self) -> None:
        self.answers: list[tuple[str, Verdict]] = []

    def answered(self, trigger_id: str, verdict: Verdict) -> None:
        self.answers.append((trigger_id, verdict))


class Desk:
    """Answers with a gate that remembers, at a clock that the test moves."""

    def __init__(self, gate: FakeGate | None = None) -> None:
        self.clock = Clock()
        self.gate = gate or FakeGate()
        self.books = Books()
        self.late = 0
        self.replies: list[Answer] = []
        self.answers = Answers(
            self.gate,
            answer_s=ANSWER_S,
            journal=self.books,
            beat=lambda _: None,
            on_late=self._on_late,
            monotonic=self.clock,
        )

    def _on_late(self) -> None:
        self.late += 1

    def expect(self, number: int, event_id: str = "", missed: str | None = None) -> Trigger:
        moment = datetime.now(timezone.utc)
        trigger = Trigger(event_id or f"id-{number}", "serial", moment, self.clock(), number)
        self.answers.expect(trigger, self.replies.append, missed)
        self.answers.tell_busy()
        return trigger

    def running(self) -> AbstractContextManager[None]:
        return running(self.answers.run)

    def told(self) -> list[tuple[str, Verdict]]:
        return [(one.event_id, one.verdict) for one in self.gate.shown]


def judged(trigger: Trigger | None, verdict: Verdict = Verdict.PASS) -> Answer:
    return Answer(trigger.id if trigger else "free", verdict, "no defect found", trigger)


def test_an_answer_in_time_reaches_gate_reply_and_books_once() -> None:
    desk = Desk()
    trigger = desk.expect(1)
    desk.answers.show(judged(trigger))
    assert desk.told() == desk.books.answers == [("id-1", Verdict.PASS)]
    assert [one.verdict for one in desk.replies] == [Verdict.PASS]
    assert desk.answers.open == 0


def test_at_the_deadline_the_line_hears_unknown_and_the_later_verdict_is_not_shown() -> None:
    desk = Desk()
    trigger = desk.expect(1)
    with desk.running():
        desk.clock.now_s += ANSWER_S
        until(lambda: desk.gate.shown)
        with pytest.raises(GateLateError, match="500 ms"):
            desk.answers.show(judged(trigger))
    assert desk.told() == desk.books.answers == [("id-1", Verdict.UNKNOWN)]
    assert "late" in desk.gate.shown[0].reason
    assert len(desk.replies) == 1
    assert desk.late == 1


def test_one_that_is_missed_is_told_so_and_is_not_late_too() -> None:
    desk = Desk()
    desk.expect(1, missed="missed: 4 triggers were waiting already")
    with desk.running():
        desk.clock.now_s += ANSWER_S
        until(lambda: desk.gate.shown)
    assert desk.gate.shown[0].reason == "missed: 4 triggers were waiting already"
    assert desk.late == 0, "it was counted when it came"


def test_the_gate_is_busy_from_the_first_trigger_until_the_last_answer() -> None:
    desk = Desk()
    first, second = desk.expect(1), desk.expect(2)
    desk.answers.busy(False)
    desk.answers.show(judged(first))
    assert desk.gate.told == ["busy"]
    desk.answers.show(judged(second))
    assert desk.gate.told == ["busy", "ready"]
    broken = Desk(FakeGate(broken=GateError("away")))
    with pytest.raises(GateError):
        broken.answers.show(judged(broken.expect(1)))
    assert broken.gate.told == ["busy", "ready"], "a result that was lost keeps nobody waiting"


def test_busy_is_said_before_the_answer_however_fast_that_comes() -> None:
    desk = Desk()
    trigger = Trigger("id-1", "serial", datetime.now(timezone.utc), desk.clock(), 1)
    desk.answers.expect(trigger, None)
    desk.answers.show(judged(trigger))
    assert desk.gate.told == ["busy", "ready"]


def test_before_the_deadline_nobody_answers_in_the_lines_place() -> None:
    desk = Desk()
    desk.expect(1)
    late = desk.expect(2)
    with desk.running():
        desk.clock.now_s += ANSWER_S - 0.001
        desk.answers.show(judged(late))
        assert desk.told() == [("id-2", Verdict.PASS)]


def test_a_stop_answers_what_is_still_open() -> None:
    desk = Desk()
    desk.expect(1)
    desk.expect(2)
    with desk.running():
        pass
    assert desk.told() == [("id-1", Verdict.UNKNOWN), ("id-2", Verdict.UNKNOWN)]
    assert "stopped" in desk.gate.shown[0].reason


def test_from_the_beginning_of_a_stop_the_line_is_never_ready_again() -> None:
    desk = Desk()
    trigger = desk.expect(1)
    desk.answers.show(judged(trigger))
    assert desk.gate.told == ["busy", "ready"]
    desk.answers.close()
    assert desk.gate.told == ["busy", "ready", "busy"]
    desk.answers.show(judged(desk.expect(2)))
    assert desk.gate.told == ["busy", "ready", "busy"]


def test_a_gate_in_trouble_is_told_to_the_line_and_the_reply_still_goes_out() -> None:
    desk = Desk(FakeGate(broken=GateError("the PLC did not acknowledge")))
    trigger = desk.expect(1)
    with pytest.raises(GateError, match="did not acknowledge"):
        desk.answers.show(judged(trigger))
    (replied,) = desk.replies
    assert replied.verdict is Verdict.UNKNOWN, "what the gate may not say, nobody else may"
    assert "did not acknowledge" in replied.reason
    with pytest.raises(GateLateError):
        desk.answers.show(judged(trigger))  # one answer, also when it may not have arrived
    with pytest.raises(GateError):
        desk.answers.show(judged(desk.expect(2), Verdict.FAIL))
    assert desk.replies[1].verdict is Verdict.FAIL


def test_a_gate_in_trouble_does_not_end_the_loop_that_keeps_the_deadlines() -> None:
    desk = Desk(FakeGate(broken=GateError("port away")))
    desk.expect(1)
    with desk.running():
        desk.clock.now_s += ANSWER_S
        until(lambda: len(desk.replies) == 1)
        desk.gate.broken = None
        desk.expect(2)
        desk.clock.now_s += ANSWER_S
        until(lambda: desk.gate.shown)
    assert desk.told() == [("id-2", Verdict.UNKNOWN)]


def test_a_pass_is_withheld_when_its_number_was_triggered_again_since() -> None:
    desk = Desk()
    first, second = desk.expect(7), desk.expect(7, "again")
    with pytest.raises(GateError, match="number 7 was triggered again"):
        desk.answers.show(judged(first))
    desk.answers.show(judged(second))
    assert [one.verdict for one in desk.gate.shown] == [Verdict.UNKNOWN, Verdict.PASS]
    assert [one.verdict for one in desk.replies] == [Verdict.UNKNOWN, Verdict.PASS]
    assert [verdict for _, verdict in desk.books.answers] == [Verdict.UNKNOWN, Verdict.PASS]
    same = desk.expect(7), desk.expect(7, "again")
    desk.answers.show(judged(same[0], Verdict.FAIL))
    assert desk.gate.shown[-1].verdict is Verdict.FAIL


def test_an_acknowledgement_is_waited_for_until_the_next_answer_is_due() -> None:
    desk = Desk()
    first = desk.expect(1)
    desk.clock.now_s += 0.2
    second = desk.expect(2)
    desk.answers.show(judged(first))
    desk.answers.show(judged(second))
    assert [one.until_s for one in desk.gate.shown] == [1000.0 + 0.2 + ANSWER_S, float("inf")]


def test_a_board_that_nobody_asked_for_goes_to_the_gate_as_it_is() -> None:
    desk = Desk()
    desk.answers.show(judged(None, Verdict.FAIL))
    assert desk.told() == [("free", Verdict.FAIL)]


def test_without_a_gate_the_reply_is_the_answer() -> None:
    replies: list[Answer] = []
    clock = Clock()
    answers = Answers(None, answer_s=1, journal=Books(), beat=lambda _: None, monotonic=clock)
    trigger = Trigger("id-1", "http", datetime.now(timezone.utc), clock())
    answers.expect(trigger, replies.append)
    answers.show(judged(trigger))
    assert len(replies) == 1


@pytest.mark.parametrize("seed", range(5))
def test_line_and_deadline_race_and_each_trigger_is_answered_once_and_in_order(seed: int) -> None:
    """The clock jumps while the line answers: who wins is chance, that one wins is not."""
    chance = random.Random(seed)  # noqa: S311  # no secret
    desk = Desk()
    late = 0
    with desk.running():
        for number in range(200):
            trigger = desk.expect(number)
            desk.clock.now_s += chance.choice((0.0, ANSWER_S * 0.6, ANSWER_S * 1.1))
            try:
                desk.answers.show(judged(trigger))
            except GateLateError:
                late += 1
        until(lambda: desk.answers.open == 0)
    numbers = [one.trigger.number for one in desk.gate.shown if one.trigger]
    assert numbers == list(range(200))
    assert [one.event_id for one in desk.replies] == [f"id-{number}" for number in range(200)]
    assert sum(one.verdict is Verdict.UNKNOWN for one in desk.gate.shown) == late
