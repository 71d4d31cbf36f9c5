"""The triggers that wait, in their order: each is journalled, numbered by an event id, and never forgotten."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

import structlog

from station.log import is_said
from station.types import Answer, Order, Trigger

log = structlog.get_logger(__name__)

FLOOD = 10_000  # triggers that wait: more than a line makes in an hour, and so noise

Reply = Callable[[Answer], None]
"""Where the answer to one trigger goes, besides the gate. Quick, and it raises nothing."""


class Journal(Protocol):
    """
    What must be durable about a trigger (``journal_writer.JournalWriter``). Quick, and it raises nothing.

    What ``arrived`` returns is set once the trigger is on disk, or the disk has refused it.
    """

    def arrived(self, trigger: Trigger, /) -> threading.Event: ...

    def recorded(self, trigger_id: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """
    A trigger in the queue, and its *picture*; None: none is taken for it, and *missed* says why.

    Nothing may come of it before *written* is set, unless its time is over.
    """

    trigger: Trigger
    written: threading.Event
    picture: Order | None
    missed: str | None = None


class Triggers:
    """
    The queue between those who trigger (any thread) and the source that takes the pictures (the line's thread).

    At most *limit* triggers wait for their answer; what comes beyond is queued all the same, in its order, and answered
    UNKNOWN without a picture. *order* asks the camera for the picture of a trigger of that moment, as soon as it is
    known: when its turn comes, another board may lie there. *expect* hears of each trigger, with its reply and with why
    it is missed if it is, before anybody can answer it; from then on its *answer_s* runs. *code_for* gives the barcode
    that belongs to a trigger of that moment: asked once for each, though a serial that the trigger itself brings is
    stronger.
    """

    def __init__(
        self,
        *,
        kind: str,
        limit: int,
        journal: Journal,
        order: Callable[[float], Order],
        answer_s: float,
        expect: Callable[[Trigger, Reply | None, str | None], None],
        code_for: Callable[[float], str | None] = lambda _at_s: None,
        on_arrived: Callable[[str | None], None] = lambda _missed: None,
        on_close: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._kind = kind
        self._limit = limit
        self._journal = journal
        self._order = order
        self._answer_s = answer_s
        self._expect = expect
        self._code_for = code_for
        self._on_arrived = on_arrived
        self._on_close = on_close
        self._monotonic = monotonic
        self._now = now
        self._changed = threading.Condition()
        self._queue: deque[Asked] = deque()
        self._flooded = 0
        self._closed = False

    def arrived(
        self,
        number: int | None = None,
        board_serial: str | None = None,
        at_s: float | None = None,
        *,
        reply: Reply | None = None,
        picture: Order | None = None,
    ) -> Trigger | None:
        """
        Takes one trigger, which came at *at_s* (``time.monotonic``; None: now). Returns when it is on disk, or when the
        disk has not taken it in *answer_s*: then it is answered all the same, and only a crash could now forget it.

        *picture*: what was ordered for it already, by who heard it earlier.
        None: so many wait that this can only be noise, or the station stops; it gets no answer, which is no PASS.
        """
        now_s = self._monotonic()
        at_s = now_s if at_s is None else at_s
        picture = self._order(at_s) if picture is None else picture
        at = datetime.fromtimestamp(self._now().timestamp() - (now_s - at_s), timezone.utc)
        code = self._code_for(at_s)  # asked in any case: a code belongs to this board, or to none
        board_serial = code if board_serial is None else board_serial
        trigger = Trigger(str(uuid.uuid4()), self._kind, at, at_s, number, board_serial)
        with self._changed:  # who came first is first on disk, in the queue and at the gate
            if self._closed:
                picture.cancel()
                return None
            if len(self._queue) >= FLOOD:
                self._flooded += 1
                if is_said(self._flooded):
                    log.error("triggers flooded", waiting=len(self._queue), refused=self._flooded)
                picture.cancel()
                return None
            waiting = sum(one.missed is None for one in self._queue)
            missed = None
            if waiting > self._limit:  # one is under way, the others wait
                missed = f"missed: {self._limit} triggers were waiting already ([trigger] queue)"
                picture.cancel()
            self._expect(trigger, reply, missed)  # its time runs, whatever the disk does
            written = self._journal.arrived(trigger)
            self._queue.append(Asked(trigger, written, None if missed else picture, missed))
            self._changed.notify()
        written.wait(max(0.0, at_s + self._answer_s - self._monotonic()))
        self._on_arrived(missed)
        return trigger

    def close(self) -> None:
        """The station stops: what was taken is answered, and no more is taken."""
        with self._changed:
            self._closed = True
        self._on_close()

    def next(self, *, within_s: float) -> Asked | None:
        """The oldest trigger whose board is not recorded; the same again until ``recorded``. None: there is none."""
        with self._changed:
            if not self._queue:
                self._changed.wait(within_s)
            return self._queue[0] if self._queue else None

    def recorded(self, trigger: Trigger) -> None:
        """The board of the oldest trigger is on disk: the next one may be taken."""
        with self._changed:
            if self._queue and self._queue[0].trigger.id == trigger.id:
                self._queue.popleft()
        self._journal.recorded(trigger.id)
