"""Made-up boards for the tests of what keeps and delivers them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from station.types import (
    Decision,
    Defect,
    Entry,
    Frame,
    Image,
    Inspection,
    Judged,
    Message,
    ModelInfo,
    Suppressed,
    Verdict,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


def board(
    event_id: str | None = None,
    *,
    verdict: Verdict = Verdict.PASS,
    image: Image | None = None,
    problem: str | None = None,
    file: str | None = "board.jpg",
    captured_at: datetime = NOON,
    defects: Sequence[Defect] = (),
    hidden: Sequence[Defect] = (),
) -> Inspection:
    """One inspection, of a new board unless *event_id* is given."""
    frame = Frame(event_id or str(uuid.uuid4()), image, captured_at, "folder", file=file, problem=problem)
    judged = tuple(Judged(one, counts=True) for one in defects)
    suppressed = tuple(Suppressed(one, "min_area_px") for one in hidden)
    decision = Decision(verdict, problem or "no defect found", judged, suppressed)
    return Inspection(frame, decision, ModelInfo("pcb-demo", "m"), "default", "r", 14.2, 17.9, clock_synced=True)


def message_of(inspection: Inspection, *, gate: str = "off") -> Callable[[Entry], Message]:
    """What the ledger's ``record`` wants: makes a small event of the entry."""

    def make(entry: Entry) -> Message:
        event = {"event_id": inspection.frame.id, "seq": entry.seq, "ledger": entry.ledger, "gate": gate}
        return Message(f"inspection/{inspection.decision.verdict.value}", json.dumps(event).encode())

    return make
