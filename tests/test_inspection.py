"""What cannot be judged is UNKNOWN, and says why."""

from __future__ import annotations

import numpy as np
import pytest

from station.inspection import inspect
from station.testing import FakeDetector
from station.types import Frame, Verdict
from tests.benches import bench, frame


def test_a_picture_without_a_board_is_unknown_and_the_detector_is_not_asked() -> None:
    inspection = inspect(frame(image=np.zeros((64, 64, 3), np.uint8)), bench())
    assert inspection.decision.verdict is Verdict.UNKNOWN
    assert "no board to be seen" in inspection.decision.reason
    assert inspection.detect_ms is None


@pytest.mark.parametrize(
    ("given", "detector", "reason"),
    [
        (frame(image=None, problem="truncated JPEG"), FakeDetector(), "truncated JPEG"),
        (frame(), FakeDetector(refuses="not a number in the output"), "not a number"),
    ],
)
def test_what_cannot_be_judged_is_unknown_with_the_reason(given: Frame, detector: FakeDetector, reason: str) -> None:
    inspection = inspect(given, bench(detector))
    assert inspection.decision.verdict is Verdict.UNKNOWN
    assert reason in inspection.decision.reason
    assert inspection.detect_ms is None
