"""What the station says of itself: one document for the heartbeat and the health port."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from station.events import to_bytes, utc_text
from station.health import Fault
from station.today import Today


@dataclass(frozen=True, slots=True)
class Vitals:
    """
    A moment of the station. Ages and durations in seconds; *beats_s* is the age of each loop's last beat.

    *recipe* judges a board that comes now, unless its serial says otherwise.
    """

    station: str
    version: str
    model: str
    model_sha256: str
    recipe: str
    at: str
    uptime_s: float
    inspections: dict[str, int]
    last_seq: int
    owed: int
    owed_oldest_s: float
    refused: int
    connected: bool
    protocol: str | None
    beats_s: dict[str, float]
    stalled: tuple[str, ...]
    not_ready: dict[str, str]
    faults: tuple[Fault, ...]
    free_mb: float
    backlog: int
    today: Today

    @property
    def ready(self) -> bool:
        return not self.not_ready


def heartbeat_of(vitals: Vitals) -> bytes:
    """The heartbeat document (``station.heartbeat/1``)."""
    return to_bytes(
        {
            "schema": "station.heartbeat/1",
            "station": vitals.station,
            "at": vitals.at,
            "uptime_s": round(vitals.uptime_s, 1),
            "version": vitals.version,
            "model": {"name": vitals.model, "sha256": vitals.model_sha256},
            "recipe": vitals.recipe,
            "ready": vitals.ready,
            "inspections": vitals.inspections,
            "last_seq": vitals.last_seq,
            "today": today_document(vitals.today),
            "backlog": vitals.backlog,
            "owed": {"events": vitals.owed, "oldest_s": round(vitals.owed_oldest_s, 1), "refused": vitals.refused},
            "mqtt": {"protocol": vitals.protocol},
            "beats_s": {loop: round(age_s, 1) for loop, age_s in vitals.beats_s.items()},
            "free_mb": round(vitals.free_mb),
            "faults": [fault_document(fault) for fault in vitals.faults],
        }
    )


def today_document(today: Today) -> dict[str, Any]:
    triggers = today.triggers
    return {
        "since": utc_text(today.since),
        "boards": today.boards,
        "triggers": None
        if triggers is None
        else {
            "seen": triggers.seen,
            "answered": triggers.answered,
            "unanswered": triggers.unanswered,
            "recorded": triggers.recorded,
        },
    }


def fault_of(fault: Fault, *, began: bool, event_id: str, station: str, at: str) -> bytes:
    """The document on ``fault``: it began, or it ended. By *event_id* consumers drop what was sent twice."""
    return to_bytes(
        {
            "schema": "station.fault/1",
            "event_id": event_id,
            "station": station,
            "what": "began" if began else "ended",
            "at": at,
            **fault_document(fault),
        }
    )


def left_open(documents: Iterable[bytes]) -> list[Fault]:
    """Faults that began and never ended, of *documents* as ``fault_of`` made them, oldest first."""
    found: dict[str, Fault] = {}
    for payload in documents:
        try:
            document = json.loads(payload)
            code, detail, since = document["code"], document["detail"], document["since"]
            since_s = datetime.fromisoformat(since.replace("Z", "+00:00")).timestamp()  # Python 3.10 knows no Z
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # of another version
        if document.get("what") == "began":
            found[code] = Fault(code, detail, since_s)
        else:
            found.pop(code, None)
    return list(found.values())


def fault_document(fault: Fault) -> dict[str, Any]:
    return {
        "code": fault.code,
        "detail": fault.detail,
        "since": utc_text(datetime.fromtimestamp(fault.since_s, timezone.utc)),
    }
