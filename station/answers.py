"""One answer for each trigger, in order and in time: the first one wins, whoever gives it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from station.errors import GateError, GateLateError
from station.triggers import Reply
from station.types import Answer, Beat, Gate, Stop, Trigger, Verdict

log = structlog.get_logger(__name__)

TURN_S = 0.25


class Journal(Protocol):
    """Remembers that a trigger was answered. Quick, and it raises nothing."""

    def answered(self, trigger_id: str, verdict: Verdict, /) -> None: ...


@dataclass(frozen=True, slots=True)
class _Expected:
    trigger: Trigger
    reply: Reply | None
    due_s: float
    missed: str | None


class Answers:
    """
    Implements ``types.Gate`` for the line: it stands between the line and *gate* (None: nothing but replies).

    Whatever the line is doing, ``run`` answers UNKNOWN for a trigger whose *answer_s* is over; ``show`` then raises
    GateLateError, and the board is on record with the answer that the line was given. One answer at a time reaches the
    gate, so they come in the order of their triggers.
    """

    def __init__(
        self,
        gate: Gate | None,
        *,
        answer_s: float,
        journal: Journal,
        beat: Beat,
        on_late: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gate = gate
        self._answer_s = answer_s
        self._journal = journal
        self._beat = beat
        self._on_late = on_late
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._expected: dict[str, _Expected] = {}  # in the order of arrival
        self._showing = threading.Lock()  # taken before _changed, never the other way round
        self._telling = threading.Lock()  # so that the last word on busy is the true one
        self._told_busy = False
        self._closing = False

    @property
    def open(self) -> int:
        """How many triggers have no answer yet."""
        return len(self._expected)

    def expect(self, trigger: Trigger, reply: Reply | None, missed: str | None = None) -> None:
        """
        From now on *trigger* is owed an answer. When it is on disk, ``tell_busy`` says that the line is busy.

        *missed*: why there will be no picture for it, and so no verdict.
        """
        with self._changed:
            self._expected[trigger.id] = _Expected(trigger, reply, trigger.at_s + self._answer_s, missed)
            self._changed.notify()

    def close(self) -> None:
        """No trigger is taken any more: the line is busy until it is safe, and never ready again."""
        self._closing = True
        self.tell_busy()

    def tell_busy(self) -> None:
        """Tells the gate whether anything is owed, if that has changed."""
        with self._telling:
            busy = self._closing or bool(self._expected)
            if self._gate is not None and busy != self._told_busy:
                self._told_busy = busy
                self._gate.busy(busy)

    def show(self, answer: Answer) -> None:
        """Gives *answer*. Raises GateLateError when its trigger has one already, GateError as the gate does."""
        with self._showing:
            if answer.trigger is None:
                if self._gate is not None:
                    self._gate.show(answer)
                return
            expected = self._take(answer.trigger.id)
            if expected is None:
                raise GateLateError(f"no result within {self._answer_s * 1e3:g} ms ([trigger] answer_ms)")
            self._give(expected, answer)

    def busy(self, busy: bool) -> None:
        """Does nothing: with triggers the gate is busy from a trigger to its answer, whatever the line says."""

    def safe(self, why: str) -> None:
        if self._gate is not None:
            self._gate.safe(why)

    def run(self, stop: Stop) -> None:
        """Answers what is late, until *stop*; then everything that is still open, since nobody else will."""
        while not stop.is_set():
            self._beat("answers")
            with self._changed:
                first = next(iter(self._expected.values()), None)
                wait_s = TURN_S if first is None else min(TURN_S, first.due_s - self._monotonic())
                if wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
            self._answer_late("late: no result within {ms:g} ms ([trigger] answer_ms)", until_s=self._monotonic())
        self._answer_late("the station was stopped", until_s=float("inf"))

    def _answer_late(self, reason: str, *, until_s: float) -> None:
        with self._showing:
            for one in list(self._expected.values()):
                if one.due_s > until_s or self._take(one.trigger.id) is None:
                    continue
                words = one.missed or reason.format(ms=self._answer_s * 1e3)
                answer = Answer(one.trigger.id, Verdict.UNKNOWN, words, one.trigger)
                log.warning(
                    "answered without a result", event_id=one.trigger.id, number=one.trigger.number, reason=words
                )
                if one.missed is None:  # who is missed was counted when it came
                    self._on_late()
                try:
                    self._give(one, answer)
                except GateError as error:  # no message means reject, so the line is safe; it is on record as late
                    log.error("gate did not take the result", event_id=one.trigger.id, error=str(error))

    def _take(self, trigger_id: str) -> _Expected | None:
        self.tell_busy()  # before READY can follow: who triggered may not have got so far
        with self._changed:
            return self._expected.pop(trigger_id, None)

    def _give(self, expected: _Expected, answer: Answer) -> None:
        with self._changed:
            until_s = min((one.due_s for one in self._expected.values()), default=float("inf"))
            numbers = {one.trigger.number for one in self._expected.values()} - {None}
        replied = answer
        # A PLC that has given a number again would take the PASS of the board before for that of this one.
        again = answer.verdict is Verdict.PASS and expected.trigger.number in numbers
        told = replace(answer, until_s=until_s, verdict=Verdict.UNKNOWN if again else answer.verdict)
        try:
            self._say(told, withheld=again)
        except GateError as error:
            if answer.verdict is Verdict.PASS:  # what the gate may not say, nobody else may
                replied = replace(answer, verdict=Verdict.UNKNOWN, reason=f"the gate did not take the PASS: {error}")
            raise
        finally:
            self.tell_busy()
            if expected.reply is not None:
                expected.reply(replied)
            self._journal.answered(answer.event_id, told.verdict)

    def _say(self, told: Answer, *, withheld: bool) -> None:
        if self._gate is not None:
            self._gate.show(told)
        if withheld and told.trigger is not None:
            raise GateError(f"no PASS was said: number {told.trigger.number} was triggered again since")
