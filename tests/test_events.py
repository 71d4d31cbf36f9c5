"""The event: its bytes, its schema, its topic."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import jsonschema
import numpy as np
import pytest

from station.assets import SCHEMA_FILE
from station.decide import decide, unknown
from station.events import Aftermath, event_of, utc_text
from station.types import (
    Box,
    Decision,
    Defect,
    Entry,
    Frame,
    Inspection,
    ModelInfo,
    Recipe,
    Region,
)

SHORT = Defect("short", 0.912345, Box(100.04, 80, 30, 22), "pcb-demo")
SPUR = Defect("spur", 0.3, Box(10, 10, 5, 5), "pcb-demo")
LOGO = Defect("open", 0.9, Box(300, 300, 10, 10), "pcb-demo")
RECIPE = Recipe("default", 0.5, ignore=(Region("logo", Box(290, 290, 40, 40)),))
ENTRY = Entry(1042, "6c3a1d0e-0000-4000-8000-000000000001")


def inspection(decision: Decision, **frame: Any) -> Inspection:
    plain = Frame(
        id="0d3f2a10-0000-4000-8000-000000000002",
        image=np.zeros((480, 640, 3), np.uint8),
        captured_at=datetime(2026, 11, 23, 10, 15, 30, 123456, tzinfo=timezone.utc),
        source="folder",
        file="board-17.jpg",
        sha256="ab" * 32,
    )
    return Inspection(
        frame=replace(plain, **frame),
        decision=decision,
        model=ModelInfo("pcb-demo", "cd" * 32),
        recipe="default",
        recipe_sha256="ef" * 32,
        detect_ms=14.204,
        total_ms=17.856,
        clock_synced=True,
    )


def document(of: Inspection, *, entry: Entry | None = ENTRY) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event_of(of, entry, Aftermath("off", None), station="aoi-1").payload)
    return found


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (inspection(decide([SHORT, SPUR, LOGO], RECIPE)), "fail"),
        (inspection(decide([SPUR], RECIPE)), "pass"),
        (inspection(decide([], RECIPE)), "pass"),
        (inspection(unknown("the detector could not judge it")), "unknown"),
        (inspection(unknown("truncated"), image=None, sha256=""), "unknown"),
    ],
)
def test_every_kind_of_event_keeps_to_the_schema_and_goes_to_its_topic(given: Inspection, verdict: str) -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    validator.validate(document(given))
    validator.validate(document(given, entry=None))
    assert event_of(given, ENTRY, Aftermath("off", None), station="a").topic == f"inspection/{verdict}"


def test_the_schema_refuses_what_is_no_event() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    good = document(inspection(decide([SHORT], RECIPE)))
    for change in ({"verdict": "ok"}, {"seq": 0}, {"more": 1}, {"gate": "maybe"}):
        assert not validator.is_valid({**good, **change}), change


def test_an_event_says_what_counts_and_what_was_suppressed() -> None:
    found = document(inspection(decide([SHORT, SPUR, LOGO], RECIPE)))
    assert [(one["label"], one["confidence"], one["counts"]) for one in found["defects"]] == [
        ("short", 0.9123, True),
        ("spur", 0.3, False),
    ]
    assert [(one["label"], one["by"]) for one in found["suppressed"]] == [("open", "region logo")]
    assert found["reason"] == "short 0.91 >= 0.50; 1 suppressed"
    assert found["defects"][0]["box"] == {"x": 100.0, "y": 80, "width": 30, "height": 22}
    assert (found["captured_at"], found["timing_ms"]) == ("2026-11-23T10:15:30.123Z", {"detect": 14.2, "total": 17.86})


def test_the_same_inspection_makes_the_same_bytes() -> None:
    once, again = (
        event_of(inspection(decide([SHORT, LOGO], RECIPE)), ENTRY, Aftermath("off", "a.jpg"), station="aoi-1")
        for _ in range(2)
    )
    assert once.payload == again.payload


def test_times_are_told_in_utc_whatever_zone_they_came_in() -> None:
    there = datetime(2026, 11, 23, 11, 0, tzinfo=timezone(timedelta(hours=1)))
    assert utc_text(there) == "2026-11-23T10:00:00.000Z"


def test_what_lies_below_its_threshold_never_reads_as_if_it_reached_it() -> None:
    """0.49998 was told as 0.5, beside a threshold of 0.5 and "counts": false."""
    below = replace(SHORT, confidence=0.49998)
    found = document(inspection(decide([below], RECIPE)))
    assert found["verdict"] == "pass"
    assert found["defects"][0]["confidence"] == 0.4999
    assert found["defects"][0]["counts"] is False
    exact = document(inspection(decide([replace(SHORT, confidence=0.57)], RECIPE)))
    assert exact["defects"][0]["confidence"] == 0.57, "no digit is lost to how floats are written"
