"""A trigger that a crash left open ends as a board that is UNKNOWN."""

from __future__ import annotations

import json
from datetime import datetime, timezone

from station.left_open import settle_left_open
from station.testing import FakeLedger
from station.types import Recorded, Trigger
from tests.benches import bench


class Left:
    """Three triggers that a crash left open: the ledger knows the board of the first, the last was answered late."""

    def __init__(self) -> None:
        moment = datetime(2026, 11, 23, 10, tzinfo=timezone.utc)
        self.triggers = [Trigger(f"id-{number}", "serial", moment, float("-inf"), number) for number in (1, 2, 3)]
        self.answered: tuple[str | None, ...] = (None, None, "unknown")
        self.marks: list[tuple[str, str]] = []

    def left_open(self) -> list[tuple[Trigger, str | None]]:
        return list(zip(self.triggers, self.answered, strict=True))

    def unanswered(self, trigger_id: str) -> None:
        self.marks.append(("unanswered", trigger_id))

    def recorded(self, trigger_id: str) -> None:
        self.marks.append(("recorded", trigger_id))


class KnowingLedger(FakeLedger):
    def __init__(self) -> None:
        super().__init__()
        self.late: list[str] = []

    def recorded(self, event_id: str) -> Recorded | None:
        return Recorded(None) if event_id == "id-1" else None

    def amend_late(self, event_id: str, why: str) -> None:
        assert "answered unknown" in why
        self.late.append(event_id)


def test_a_trigger_that_a_crash_left_open_becomes_a_board_that_is_unknown() -> None:
    left, ledger = Left(), KnowingLedger()
    assert settle_left_open(left, ledger, lambda _frame: bench()) == 3
    (kind, _, message), (_, _, late) = ledger.commits
    event = json.loads(message.payload)
    assert (kind, event["event_id"], event["verdict"], event["gate"]) == ("owed", "id-2", "unknown", "unknown")
    assert event["trigger"] == {"kind": "serial", "number": 2, "at": "2026-11-23T10:00:00.000Z"}
    assert "went down before it answered" in event["reason"]
    assert json.loads(late.payload)["gate"] == "late"
    assert json.loads(late.payload)["reason"].startswith("late: it was answered unknown")
    assert left.marks == [(mark, f"id-{number}") for number in (1, 2, 3) for mark in ("unanswered", "recorded")]
    assert ledger.late == []


def test_a_board_on_record_whose_line_was_answered_unknown_becomes_unknown() -> None:
    left, ledger = Left(), KnowingLedger()
    left.triggers = left.triggers[:1]
    left.answered = ("unknown",)
    settle_left_open(left, ledger, lambda _frame: bench())
    assert (ledger.late, ledger.commits) == (["id-1"], [])
