"""What people say of the station's calls: each a durable row of its own, published like an event."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal, Protocol

from station.errors import LedgerError
from station.events import to_bytes, utc_text
from station.types import Message

SCHEMA = "station.review/1"
TOPIC = "review"

Call = Literal["confirmed", "false"]


class Notices(Protocol):
    """Where reviews are kept until the broker has them, and for as long as the events (``ledger.SqliteLedger``)."""

    def notice(self, message: Message, /) -> bool: ...

    def notices(self, topic: str, /) -> list[bytes]: ...


@dataclass(frozen=True, slots=True)
class Review:
    """The last word on a board. *by* is the name of a key, None where nobody needs one."""

    call: Call
    at: str
    by: str | None
    note: str


class Reviews:
    """Any thread. *on_new* hears that something is owed."""

    def __init__(
        self,
        notices: Notices,
        *,
        station: str,
        on_new: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._notices = notices
        self._station = station
        self._on_new = on_new
        self._now = now
        self._loading = threading.Lock()
        self._last: dict[str, Review] | None = None

    def add(self, event_id: str, *, verdict: str, call: Call, by: str | None, note: str) -> Review:
        """Keeps a review of the board *event_id*; an earlier one stays on record. Raises LedgerError."""
        review = Review(call, utc_text(self._now()), by, note)
        document = {
            "schema": SCHEMA,
            "review_id": str(uuid.uuid4()),
            "event_id": event_id,
            "station": self._station,
            "at": review.at,
            "call": call,
            "verdict": verdict,
            "by": by,
            "note": note,
        }
        known = self._known()
        if not self._notices.notice(Message(TOPIC, to_bytes(document))):
            raise LedgerError("the review could not be recorded: the log says why; try again")
        known[event_id] = review
        self._on_new()
        return review

    def of(self, event_id: str) -> Review | None:
        """The last one of that board. Raises LedgerError."""
        return self._known().get(event_id)

    def all(self) -> dict[str, Review]:
        """The last one of each board, by its event id. Raises LedgerError."""
        return dict(self._known())

    def _known(self) -> dict[str, Review]:
        with self._loading:  # once: a review that is added goes into what everybody reads
            if self._last is None:
                found = (json.loads(one) for one in self._notices.notices(TOPIC))
                self._last = {one["event_id"]: Review(one["call"], one["at"], one["by"], one["note"]) for one in found}
            return self._last
