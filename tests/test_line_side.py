"""What the parts at the line tell of themselves."""

from __future__ import annotations

from station.health import Health
from station.line_side import tell_silence


def test_while_the_inbox_does_not_answer_the_station_is_not_ready_and_says_so() -> None:
    health = Health()
    tell_silence(health, "/mnt/aoi", True)
    assert "/mnt/aoi has not answered" in health.not_ready()["inbox"]
    assert [fault.code for fault in health.faults()] == ["inbox_silent"]
    tell_silence(health, "/mnt/aoi", False)
    assert (health.not_ready(), health.faults()) == ({}, [])
