"""A frame and a bench, for the tests of what judges."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from station.inspection import Bench
from station.testing import FakeDetector
from station.types import Box, Defect, Frame, Image, Recipe

SHORT = Defect("short", 0.91, Box(100, 80, 30, 22), "fake")


def board_picture() -> Image:
    """A small one, with enough on it to be taken for a board."""
    picture: Image = np.indices((64, 64, 3), np.uint8).sum(axis=0, dtype=np.uint8)
    return picture


def frame(number: int = 1, **changes: Any) -> Frame:
    plain = Frame(
        id=f"00000000-0000-4000-8000-{number:012d}",
        image=board_picture(),
        captured_at=datetime(2026, 11, 23, 10, 15, 30, 123000, tzinfo=timezone.utc),
        source="folder",
        file=f"board-{number}.jpg",
        sha256="ab" * 32,
    )
    return replace(plain, **changes)


def bench(detector: FakeDetector | None = None) -> Bench:
    return Bench(
        detector=detector or FakeDetector([SHORT]),
        recipe=Recipe("default", 0.5),
        recipe_sha256="cd" * 32,
        station="aoi-1",
        clock_synced=lambda: True,
    )
