"""Makes the documents that leave the station: the event of an inspection, and its state. Same input, same bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from station.types import Defect, Entry, Inspection, Message, Trigger, Verdict, cut

SCHEMA = "station.inspection/1"

GATE_OFF = "off"
GATE_SHOWN = "shown"
GATE_FAILED = "failed"  # the result may not have reached the line
GATE_LATE = "late"  # the line was answered UNKNOWN in its place, because it came too late
GATE_UNKNOWN = "unknown"  # the station went down between recording the board and hearing from the gate


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What was done about a board: how the gate took it (one of ``GATE_*``), and the name of its evidence, if kept."""

    gate: str
    evidence: str | None


def event_of(inspection: Inspection, entry: Entry | None, aftermath: Aftermath, *, station: str) -> Message:
    """
    The event document ``station.inspection/1`` and its topic.

    *entry* is None for an inspection that no ledger numbers (``station inspect``): seq and ledger are then null.
    """
    frame, decision = inspection.frame, inspection.decision
    image = None
    if frame.image is not None:
        height, width = frame.image.shape[:2]
        image = {"width": width, "height": height, "sha256": frame.sha256, "evidence": aftermath.evidence}
    document = {
        "schema": SCHEMA,
        "event_id": frame.id,
        "seq": entry.seq if entry else None,
        "station": station,
        "captured_at": utc_text(frame.captured_at),
        "source": frame.source,
        "file": frame.file,
        "board_serial": frame.board_serial,
        "ledger": entry.ledger if entry else None,
        "trigger": _trigger(frame.trigger) if frame.trigger else None,
        "image": image,
        "verdict": decision.verdict.value,
        "reason": decision.reason,
        "defects": [{**_defect(one.defect), "counts": one.counts} for one in decision.defects],
        "suppressed": [{**_defect(one.defect), "by": one.by} for one in decision.suppressed],
        "model": {"name": inspection.model.name, "sha256": inspection.model.sha256},
        "recipe": {"name": inspection.recipe, "sha256": inspection.recipe_sha256},
        "gate": aftermath.gate,
        "clock_synced": inspection.clock_synced,
        "timing_ms": {
            "detect": None if inspection.detect_ms is None else round(inspection.detect_ms, 2),
            "total": round(inspection.total_ms, 2),
        },
        "simulated": False,
    }
    return Message(f"inspection/{decision.verdict.value}", to_bytes(document))


def late(why: str, verdict: Verdict, reason: str) -> str:
    """The reason of a board whose line was answered UNKNOWN before *verdict* was known."""
    return f"late: {why}; it would have been {verdict.value}: {reason}"


def late_event(payload: bytes, reason: str) -> Message:
    """An event that was made before it was known that its line had been answered UNKNOWN."""
    document = json.loads(payload) | {"verdict": Verdict.UNKNOWN.value, "reason": reason, "gate": GATE_LATE}
    return Message(f"inspection/{Verdict.UNKNOWN.value}", to_bytes(document))


def state_of(state: str, *, station: str, version: str, why: str | None = None) -> bytes:
    """The retained state document; *state* is ``online`` or ``offline``."""
    return to_bytes({"state": state, "station": station, "version": version, "why": why})


def to_bytes(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def utc_text(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds, as JSON Schema's date-time: ``2026-11-23T10:15:30.123Z``."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trigger(trigger: Trigger) -> dict[str, Any]:
    return {"kind": trigger.kind, "number": trigger.number, "at": utc_text(trigger.at)}


def _defect(defect: Defect) -> dict[str, Any]:
    box = defect.box
    return {
        "label": defect.label,
        "confidence": cut(defect.confidence, 4),
        "box": {
            "x": round(box.x, 1),
            "y": round(box.y, 1),
            "width": round(box.width, 1),
            "height": round(box.height, 1),
        },
        "found_by": defect.found_by,
    }
