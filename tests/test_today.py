"""The figures of the day."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest

from station.today import Books, midnight, today


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("now", "began"),
    [
        ("2026-11-23T12:00", "2026-11-22T23:00"),
        ("2026-11-22T23:00", "2026-11-22T23:00"),
        ("2026-11-22T22:59", "2026-11-21T23:00"),
        ("2026-10-25T12:00", "2026-10-24T22:00"),  # the night in which summer time ended
        ("2026-03-29T12:00", "2026-03-28T23:00"),  # and that in which it began
    ],
)
def test_a_day_begins_at_midnight_by_the_clock_on_the_wall(now: str, began: str) -> None:
    assert midnight(utc(now)) == utc(began)


def test_the_figures_are_asked_for_from_midnight_on() -> None:
    asked: list[float] = []

    def boards_since(since_s: float) -> int:
        asked.append(since_s)
        return 7

    figures = today(utc("2026-11-23T12:00"), boards_since=boards_since, books=None)
    assert (figures.boards, figures.triggers) == (7, None)
    assert asked == [utc("2026-11-22T23:00").timestamp()]
    books = Books(seen=3, answered=2, unanswered=1, recorded=3)
    assert today(utc("2026-11-23T12:00"), boards_since=boards_since, books=lambda _: books).triggers is books
