"""What subscribers hear of faults: each when it begins and when it ends, in that order, whatever the disk takes."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Protocol

import structlog

from station.events import utc_text
from station.health import Fault
from station.heartbeat import fault_of, left_open
from station.types import Message

log = structlog.get_logger(__name__)

TOPIC = "fault"
UNSAID = 100  # faults that wait for room on the disk


class Notices(Protocol):
    """Where messages that belong to no board are owed (``ledger.SqliteLedger``)."""

    def notice(self, message: Message, /) -> bool: ...

    def notices(self, topic: str, /) -> list[bytes]: ...


class FaultNews:
    """
    Owes a message for each fault that begins or ends.

    ``heard`` may be called by any thread, at any place, and so waits for nothing: whoever listens to a serial port must
    not wait for the ledger's disk. ``catch_up`` is for one thread, every second. *has_room*: the disk takes something.
    *on_owed*: the publisher has something to do.
    """

    def __init__(
        self, ledger: Notices, *, station: str, has_room: Callable[[], bool], on_owed: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._station = station
        self._has_room = has_room
        self._on_owed = on_owed
        self._refused = False  # the disk took no more
        self._unsaid: deque[Message] = deque(maxlen=UNSAID)  # the oldest goes first: the heartbeat names what lasts

    def end_left_open(self) -> None:
        """A fault that was there when the last run ended is over: it begins anew if it is still there."""
        for fault in left_open(self._ledger.notices(TOPIC)):
            self._unsaid.append(self._message(replace(fault, detail="the station was started anew"), began=False))
        self.catch_up()

    def heard(self, fault: Fault, began: bool) -> None:
        """For ``health.Health``: *fault* began or ended. It is owed by the next ``catch_up``."""
        if began:
            log.warning("fault began", code=fault.code, detail=fault.detail)
        else:  # its detail would read like news
            log.info("fault ended", code=fault.code, after_s=round(fault.lasted_s))
        self._unsaid.append(self._message(fault, began=began))

    def catch_up(self) -> None:
        """Owes what was heard, in its order. What a full disk refuses is said when there is room."""
        while self._unsaid and (not self._refused or self._has_room()):
            self._refused = not self._ledger.notice(self._unsaid[0])
            if self._refused:
                return
            self._unsaid.popleft()
            self._on_owed()

    def _message(self, fault: Fault, *, began: bool) -> Message:
        at, event_id = utc_text(datetime.now(timezone.utc)), str(uuid.uuid4())
        return Message(TOPIC, fault_of(fault, began=began, event_id=event_id, station=self._station, at=at))
