"""The figures of the day, by which the books are seen to balance. A day begins at midnight by the local clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Books:
    """
    The triggers of a time, and what became of them.

    They balance when *seen* = *answered* + *unanswered* + what is under way. *unanswered*: the station went down (a
    crash, a power cut) before it answered, and the line rejected the board by itself. *recorded*: boards on record.
    """

    seen: int
    answered: int
    unanswered: int
    recorded: int


@dataclass(frozen=True, slots=True)
class Today:
    """Since *since* (UTC): boards on record, and what became of the triggers; None where nothing triggers."""

    since: datetime
    boards: int
    triggers: Books | None


class CountBoards(Protocol):
    """How many boards are on record since a UNIX time (``SqliteLedger.boards_since``)."""

    def __call__(self, since_s: float, /) -> int: ...


def midnight(now: datetime) -> datetime:
    """The beginning of the local day of *now*, in UTC."""
    local = now.astimezone()
    start = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    return start.astimezone(timezone.utc)  # naive, and so read as local: with the offset that held at that hour


def today(now: datetime, *, boards_since: CountBoards, books: Callable[[float], Books] | None) -> Today:
    """The figures at *now*. Raises LedgerError."""
    since = midnight(now)
    since_s = since.timestamp()
    return Today(since, boards_since(since_s), books(since_s) if books is not None else None)
