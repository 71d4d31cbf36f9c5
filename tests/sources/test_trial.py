"""A picture that crashes its decoder: it may stop the line once, and is not taken again."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from station.sources.trial import TrialStoppedError, trial
from tests.daemon import PATIENCE_S, Daemon, Overrides, drop, encoded, picture
from tests.waiting import until

POISON = b"this crashes it"
SHORT = """
import station.picture as picture
def decode(data, **how):
    raise MemoryError
picture.decode = decode
"""
ENDLESS = """
import signal
import station.picture as picture
def decode(data, **how):
    signal.pause()
picture.decode = decode
"""
# Python runs it first, in the station and in what it starts: a decoder with a fault in its native code.
CRASHES = f"""
import os, signal
import station.picture as picture
whole = picture.decode
def decode(data, **how):
    if {POISON!r} in data:
        os.kill(os.getpid(), signal.SIGSEGV)
    return whole(data, **how)
picture.decode = decode
"""


def running() -> bool:
    return False


def environment(tmp_path: Path, code: str) -> dict[str, str]:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(code, encoding="utf-8")
    return {"PYTHONPATH": f"{tmp_path / 'first'}:{Path(__file__).parents[2]}"}


def test_what_the_decoder_survives_is_tried_no_longer() -> None:
    assert trial(encoded(picture(1)), stopped=running) is None
    assert trial(b"no picture at all", stopped=running) is None


def test_a_decoder_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(tmp_path, ENDLESS).items():
        monkeypatch.setenv(name, value)
    assert "takes more than 0 s" in str(trial(encoded(picture(1)), stopped=running, within_s=0.0))


def test_a_stop_does_not_wait_for_a_trial() -> None:
    with pytest.raises(TrialStoppedError):
        trial(encoded(picture(1)) + bytes(50_000_000), stopped=lambda: True)


def test_a_decoder_that_is_short_of_memory_is_not_tried_again_and_a_trial_that_fails_by_itself_blames_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(tmp_path, SHORT).items():
        monkeypatch.setenv(name, value)
    assert "crashes on it (exit status 1)" in str(trial(encoded(picture(1)), stopped=running))
    (tmp_path / "first" / "sitecustomize.py").write_text("import os; os._exit(3)", encoding="utf-8")
    with capture_logs() as logs:
        assert trial(encoded(picture(1)), stopped=running) is None
    assert [(one["event"], one["status"]) for one in logs] == [("trial failed", 3)]


@pytest.mark.parametrize("after", ["move", "leave"])
def test_a_picture_that_crashes_the_decoder_stops_the_line_once_and_is_not_taken_again(
    tmp_path: Path, after: str
) -> None:
    changes: Overrides = {"source": {"after": after}}
    with Daemon(tmp_path / "station", environment=environment(tmp_path, CRASHES), changes=changes) as station:
        station.start()
        drop(station.inbox, "poison.png", encoded(picture(1)) + POISON)  # after its end, where anything may stand
        assert station.wait() == -signal.SIGSEGV
        station.start()  # as systemd does
        drop(station.inbox, "good.png", encoded(picture(2)))
        until(lambda: len(boards(station)) == 2, within_s=PATIENCE_S, what="an answer for each")
        found = {str(one["file"]): one for one in boards(station)}
        assert "the decoder crashes on it (SIGSEGV), and the station did once" in found["poison.png"]["reason"]
        assert found["poison.png"]["verdict"] == "unknown"
        assert found["good.png"]["verdict"] != "unknown"
        assert station.stop() == 0
        if after == "move":
            assert [one.name for one in station.files("failed")] == ["poison.png"]
            assert [one.name for one in station.files("done")] == ["good.png"]
        station.start()
        drop(station.inbox, "next.png", encoded(picture(3)))
        until(lambda: len(boards(station)) >= 3, within_s=PATIENCE_S, what="the next board")
        assert len(boards(station)) == 3, "neither of the others is taken again"


def boards(station: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = station.get("/boards").json()["boards"]
    return found
