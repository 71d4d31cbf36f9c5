"""A network camera over RTSP, from a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from station.errors import CameraError
from tests.mosquitto import free_port
from tests.sources.test_camera import Watching
from tests.system_python import PYTHON, can
from tests.waiting import until

SERVER = Path(__file__).parents[1] / "rtsp_server.py"


LOOK = "import gi; gi.require_version('GstRtspServer', '1.0')"

pytestmark = pytest.mark.skipif(
    not can(LOOK) and "CI" not in os.environ,
    reason="needs Debian's gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-good: scripts/test has them",
)


@contextmanager
def rtsp(port: int) -> Iterator[subprocess.Popen[str]]:
    server = subprocess.Popen([PYTHON, str(SERVER), str(port)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        with server.stdout as said:
            assert said.readline() == "ready\n"
            yield server
    finally:
        server.kill()
        server.wait(30)


@pytest.fixture
def port() -> int:
    return free_port()


def test_pictures_come_over_rtsp_and_each_is_of_after_it_was_asked_for(port: int) -> None:
    with rtsp(port), Watching(f"rtsp://127.0.0.1:{port}/board") as watching:
        watching.each_is_of_after_it_was_asked_for((240, 320, 3))


def test_a_server_that_was_killed_is_a_fault_and_is_found_again(port: int) -> None:
    with Watching(f"rtsp://127.0.0.1:{port}/board", stalled_s=1.0) as watching:
        with rtsp(port):
            watching.shot()
        until(lambda: "camera_failing" in watching.faults())
        assert watching.trouble()
        with rtsp(port):
            watching.shot()
            until(lambda: watching.faults() == {})


def test_a_server_that_hangs_is_a_fault_and_nothing_of_before_is_judged(port: int) -> None:
    with rtsp(port) as server, Watching(f"rtsp://127.0.0.1:{port}/board", stalled_s=1.0) as watching:
        watching.shot()
        server.send_signal(signal.SIGSTOP)
        asked_s = time.monotonic()
        with pytest.raises(CameraError):
            watching.camera.shot(since_s=asked_s + 0.1, within_s=30)
        until(lambda: "camera_failing" in watching.faults())
        server.send_signal(signal.SIGCONT)
        assert watching.shot().began_s > asked_s
