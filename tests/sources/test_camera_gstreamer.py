"""A camera by a GStreamer pipeline, as a Jetson's: with the OpenCV of the system, which has GStreamer."""

from __future__ import annotations

import os

import pytest

from tests.sources.test_camera import Watching
from tests.system_python import PYTHON, can
from tests.waiting import until

LIVE = "videotestsrc is-live=true pattern=ball ! video/x-raw,format=BGR,width=320,height=240,framerate=25/1"
SINK = "appsink drop=true max-buffers=1"


LOOK = "import cv2, sys; sys.exit('GStreamer:                   YES' not in cv2.getBuildInformation())"

pytestmark = pytest.mark.skipif(
    not can(LOOK) and "CI" not in os.environ, reason="needs Debian's python3-opencv: scripts/test has it"
)


@pytest.fixture(autouse=True)
def system_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """The station of a Jetson runs in a venv that sees the system's OpenCV; here its camera's program alone does."""
    monkeypatch.setattr("station.sources.camera.sys.executable", PYTHON)


def test_pictures_come_from_a_pipeline_and_each_is_of_after_it_was_asked_for() -> None:
    with Watching(f"gstreamer: {LIVE} ! {SINK}") as watching:
        watching.each_is_of_after_it_was_asked_for((240, 320, 3))
        assert watching.health.not_ready() == {}


def test_grey_pictures_of_a_pipeline_become_colour() -> None:
    grey = LIVE.replace("format=BGR", "format=GRAY8")
    with Watching(f"gstreamer: {grey} ! {SINK}") as watching:
        assert watching.shot().image.shape == (240, 320, 3)


def test_a_pipeline_that_ends_is_a_fault_and_is_opened_anew() -> None:
    """As when a CSI camera's daemon dies: the stream is over, and a new one has to be asked for."""
    with Watching(f"gstreamer: {LIVE.replace('is-live=true', 'is-live=true num-buffers=40')} ! {SINK}") as watching:
        last = watching.shot().number
        until(lambda: "it gives no more pictures" in watching.faults().get("camera_failing", ""))
        assert watching.shot(after=last).number > last


def test_a_pipeline_that_gives_nothing_is_a_fault() -> None:
    """As when a sensor's cable is loose: the pipeline runs, and its read stands still."""
    with Watching(f"gstreamer: {LIVE} ! valve drop=true ! {SINK}", stalled_s=1.0) as watching:
        until(lambda: {"camera_failing", "camera_opening"} & watching.faults().keys())
        assert watching.trouble()


def test_a_pipeline_with_a_mistake_is_said() -> None:
    with Watching("gstreamer: nosuchelement ! appsink") as watching:
        until(lambda: "cannot be opened" in watching.faults().get("camera_failing", ""))
