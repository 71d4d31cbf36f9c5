"""What ships with the station: the demonstration model with its card, sample boards, and the event's JSON Schema."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parent
SAMPLES = ASSETS / "samples"
SCHEMA_FILE = ASSETS / "inspection.schema.json"


def expected_verdict(sample: str) -> str:
    """The verdict that a bundled sample must get: its name begins with it (``fail-open-92000012.jpg``)."""
    return sample.split("-", 1)[0]
