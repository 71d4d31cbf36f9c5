"""The publish loop: from the outbox over the link, until the broker has answered for each row."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty

import structlog

from station.health import Health
from station.types import Ack, Beat, Fate, Link, Outbox, Owed, Stop

log = structlog.get_logger(__name__)

PAGE = 100  # rows read at a time: a backlog of any size costs the same memory
IDLE_S = 0.5
# A commit for each acknowledgement costs a board as much as sending it, and holds up the line's own commit. So the
# rows wait for each other; what a crash leaves unmarked is sent once more, as what was under way is anyway.
SETTLE_ROWS = 10
SETTLE_S = 0.1
BUSY_FIRST_S = 1.0
BUSY_MOST_S = 60.0
OFFER_AGAIN_S = 3600.0
# After so many connections in a row that ended without one answer, messages are sent one at a time; after so many, the
# message is taken to be what ends them. A network that comes and goes lets something through in between.
ONE_AT_A_TIME, ENDED_BY_ONE = 2, 4


def run_publish(
    stop: Stop,
    *,
    outbox: Outbox,
    link: Link,
    topic: str,
    beat: Beat,
    wake: threading.Event,
    health: Health,
    on_outcome: Callable[[str], None],
    worked: Callable[[], None],
    drain_s: float = 5.0,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """
    Sends what is owed, in order, and marks what the broker acknowledged or refused; until *stop*, and then drains.

    *wake* is set by whoever has news: the line after a commit, the link when it is up or has an ack. *on_outcome* hears
    ``acked``, ``refused`` or ``resent`` for each event. Raises LedgerError; nothing is lost by running it again.
    """
    run = _Publishing(outbox=outbox, link=link, topic=topic, health=health, on_outcome=on_outcome, monotonic=monotonic)
    news = True
    while not stop.is_set():
        beat("publish")
        run.turn(news=news)
        worked()
        news = wake.wait(SETTLE_S if run.unsettled() else IDLE_S)
        wake.clear()
    deadline_s = monotonic() + drain_s
    while link.ready() or run.waits() or run.unsettled():
        beat("publish")
        run.turn(news=False)
        if not run.waits() or monotonic() >= deadline_s:
            break
        wake.wait(0.05)
        wake.clear()


class _Publishing:
    """The one place that knows which token stands for which row."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        link: Link,
        topic: str,
        health: Health,
        on_outcome: Callable[[str], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._link = link
        self._topic = topic
        self._health = health
        self._on_outcome = on_outcome
        self._monotonic = monotonic
        self._under_way: dict[int, Owed] = {}
        self._accepted: list[int] = []  # rows that the broker has, which the outbox does not know yet
        self._returned: list[tuple[int, Owed]] = []  # a heap by row: lost or put off, first in line again
        self._page: deque[Owed] = deque()
        self._cursor = 0
        self._connections = 0
        self._losses = 0  # connections in a row that ended without an answer to what was under way
        self._lost_in = 0
        self._ends_connections = False  # one of those that were refused
        self._offered_s = monotonic()
        self._busy_s = 0.0
        self._not_before_s = 0.0

    def turn(self, *, news: bool) -> None:
        """
        Takes in all answers, then sends as much as the link takes.

        What was accepted is marked with one commit: when there is enough of it, or no *news* that could bring more.
        """
        self._settle(at_once=not news)
        self._offer_refused()
        while self._link.ready() and self._monotonic() >= self._not_before_s:
            if self._losses >= ONE_AT_A_TIME and self._under_way:
                return
            owed = self._next()
            if owed is None:
                return
            token = self._link.send(f"{self._topic}/{owed.message.topic}", owed.message.payload)
            self._under_way[token] = owed

    def waits(self) -> bool:
        """Something is under way, and the link may still answer."""
        return bool(self._under_way)

    def unsettled(self) -> bool:
        """Something was accepted, and is still to be marked."""
        return bool(self._accepted)

    def _next(self) -> Owed | None:
        if self._returned:
            self._on_outcome("resent")
            return heapq.heappop(self._returned)[1]
        if not self._page:
            self._page.extend(self._outbox.owed(after=self._cursor, limit=PAGE))
            if not self._page:
                return None
            self._cursor = self._page[-1].row
        return self._page.popleft()

    def _settle(self, *, at_once: bool) -> None:
        refused: list[tuple[int, str]] = []
        for ack, owed in self._answers():
            if ack.fate is not Fate.LOST:
                self._losses = 0
            ended_by_it = ack.fate is Fate.LOST and self._ended_by_one()
            match ack.fate:
                case Fate.ACCEPTED:
                    self._accepted.append(owed.row)
                    self._busy_s = 0.0
                    self._health.end("broker_busy")
                case Fate.REFUSED:
                    refused.append((owed.row, ack.reason))
                    log.error("event refused", topic=owed.message.topic, row=owed.row, reason=ack.reason)
                case Fate.BUSY:
                    self._put_off(owed, ack.reason)
                case Fate.LOST if ended_by_it:
                    self._ends_connections = True
                    reason = f"the connection ends whenever it is sent, {len(owed.message.payload)} bytes"
                    refused.append((owed.row, reason))
                    log.error("event refused", topic=owed.message.topic, row=owed.row, reason=reason)
                case Fate.LOST:
                    heapq.heappush(self._returned, (owed.row, owed))
        if not refused and len(self._accepted) < (1 if at_once else SETTLE_ROWS):
            return
        accepted, self._accepted = self._accepted, []
        self._outbox.settle(accepted, refused)
        for outcome, count in (("acked", len(accepted)), ("refused", len(refused))):
            for _ in range(count):
                self._on_outcome(outcome)
        if refused:
            self._health.begin(
                "event_refused",
                f"the broker refused an event ({refused[-1][1]}): it is kept, and offered again hourly and at each "
                "connection; look at the broker's access list",
            )

    def _ended_by_one(self) -> bool:
        """
        A message was lost with its connection, which is counted here: did that message end this one and those before?

        A broker of MQTT 3.1.1 can refuse a message that is too large only by ending the connection. Sent first again
        and again, such a message would hold up all others for good.
        """
        if self._lost_in == self._link.connections:
            return False  # that connection is counted already
        self._lost_in = self._link.connections
        self._losses += 1
        if self._losses < ENDED_BY_ONE:
            return False
        self._losses = ONE_AT_A_TIME  # the next one may be such a one too
        return True

    def _answers(self) -> list[tuple[Ack, Owed]]:
        answers: list[tuple[Ack, Owed]] = []
        while True:
            try:
                ack = self._link.acks.get_nowait()
            except Empty:
                return answers
            owed = self._under_way.pop(ack.token, None)  # None: of a run before this one; its row is sent again
            if owed is not None:
                answers.append((ack, owed))

    def _put_off(self, owed: Owed, reason: str) -> None:
        heapq.heappush(self._returned, (owed.row, owed))
        if self._monotonic() < self._not_before_s:
            return  # several answers of one turn are one refusal
        self._busy_s = min(max(self._busy_s * 2.0, BUSY_FIRST_S), BUSY_MOST_S)
        self._not_before_s = self._monotonic() + self._busy_s
        self._health.begin("broker_busy", f"the broker takes no events at the moment ({reason}): they wait")

    def _offer_refused(self) -> None:
        """
        Once an hour: somebody may have mended the broker's access list. At each connection too, unless that would only
        end it.
        """
        now_s = self._monotonic()
        anew = self._link.connections != self._connections and not self._ends_connections
        if not anew and now_s - self._offered_s < OFFER_AGAIN_S:
            return
        self._connections, self._offered_s = self._link.connections, now_s
        self._ends_connections = False
        self._health.end("event_refused")
        if count := self._outbox.offer_refused_again():
            log.info("refused events are offered again", events=count)
