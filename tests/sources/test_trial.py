"""A picture that crashes its decoder: it may stop the line once, and is not taken again."""

from __future__ import annotations

import signal
from pathlib import Path

from station.sources.trial import trial
from tests.daemon import PATIENCE_S, Daemon, drop, encoded, picture
from tests.waiting import until

POISON = b"this crashes it"
# Python runs it first, in the station and in what it starts: a decoder with a fault in its native code.
CRASHES = f"""
import os, signal
import station.picture as picture
whole = picture.decode
def decode(data):
    if {POISON!r} in data:
        os.kill(os.getpid(), signal.SIGSEGV)
    return whole(data)
picture.decode = decode
"""


def test_what_the_decoder_survives_is_tried_no_longer() -> None:
    assert trial(encoded(picture(1))) is None
    assert trial(b"no picture at all") is None


def test_a_decoder_that_never_ends_is_ended() -> None:
    assert "takes more than 0 s" in str(trial(encoded(picture(1)), within_s=0.0))


def test_a_picture_that_crashes_the_decoder_stops_the_line_once_and_is_not_taken_again(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(CRASHES, encoding="utf-8")
    root = Path(__file__).parents[2]
    with Daemon(tmp_path / "station", environment={"PYTHONPATH": f"{tmp_path / 'first'}:{root}"}) as station:
        station.start()
        drop(station.inbox, "poison.png", encoded(picture(1)) + POISON)  # after its end, where anything may stand
        assert station.wait() == -signal.SIGSEGV
        station.start()  # as systemd does
        drop(station.inbox, "good.png", encoded(picture(2)))
        until(lambda: not station.files() and not station.files("processing"), within_s=PATIENCE_S)
        assert [one.name for one in station.files("failed")] == ["poison.png"]
        assert [one.name for one in station.files("done")] == ["good.png"]
        reason = (station.inbox / "failed" / "poison.png.reason.txt").read_text()
        assert "the decoder crashes on it (SIGSEGV), and the station did once" in reason
        assert station.alive()
        assert station.stop() == 0
