"""A machine vision camera through GenTL: the simulator that comes with the genicam package."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from station.sources.camera_genicam import INCOMPLETE, GenicamError, missing, open_genicam, picture
from tests.sources.test_camera import Watching
from tests.waiting import until

SPEC = find_spec("genicam")
PRODUCER = Path(SPEC.origin).with_name("viky.cti") if SPEC is not None and SPEC.origin else Path("away.cti")
pytestmark = pytest.mark.skipif(not PRODUCER.exists(), reason="the simulator is in the x86-64 package alone")


def test_its_pictures_come_in_colour_and_its_settings_are_set() -> None:
    device = f"genicam: {PRODUCER}#VikyTL_DEV_red"
    with Watching(device, frozen_s=0, fps=50.0, exposure=100.0) as watching:
        shot = watching.shot()
        assert shot.image.shape == (400, 400, 3)
        assert shot.image.std() > 0
        assert watching.shot(after=shot.number).number > shot.number
    with Watching(device.replace("DEV_red", "DEV_blue"), frozen_s=0) as watching:
        assert watching.shot().image.shape == (400, 400, 3)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("genicam:/nowhere/x.cti", "is not there"),
        (f"genicam:{PRODUCER}", "several cameras"),
        (f"genicam:{PRODUCER}#SN7", "there is no camera 'SN7'; the producer sees: VikyTL_DEV_red"),
    ],
)
def test_what_is_wrong_is_said(device: str, said: str) -> None:
    with Watching(device) as watching:
        until(lambda: said in watching.trouble(), what=f"{said!r}, not {watching.trouble()!r}")


def test_a_buffer_that_lost_packets_is_damaged_and_those_around_it_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was thrown away without a word: the fault said that the camera hangs, and nobody looked at the cable."""
    from genicam.gentl import Buffer  # type: ignore[import-untyped,unused-ignore]  # an extra

    complete = cycle([True, False])
    monkeypatch.setattr(Buffer, "is_complete", lambda _buffer: next(complete))
    options = dict.fromkeys(("pixel_format", "width", "height", "fps", "exposure", "gain"))
    pictures, _ = open_genicam(f"{PRODUCER}#VikyTL_DEV_red", options)
    seen = [(image is not None and image.shape == (400, 400, 3), damage) for image, damage in islice(pictures, 6)]
    assert seen == [(True, ""), (False, INCOMPLETE)] * 3


def test_a_picture_that_was_ended_early_is_damaged() -> None:
    assert missing(300, 400) == "300 of its 400 rows came"
    assert (missing(400, 400), missing(0, 400)) == ("", ""), "whole, and from a producer that does not say"


def test_each_pixel_format_becomes_what_everybody_sees() -> None:
    grey = np.arange(12, dtype=np.uint8)
    assert (picture(grey, 3, 4, "Mono8") == grey.reshape(3, 4)).all()
    assert (picture(grey.astype(np.uint16) << 4, 3, 4, "Mono12") == grey.reshape(3, 4)).all()
    assert (picture(grey.astype(np.uint16) << 8, 3, 4, "Mono16") == grey.reshape(3, 4)).all()
    colours = np.arange(36, dtype=np.uint8)
    assert (picture(colours, 3, 4, "BGR8") == colours.reshape(3, 4, 3)).all()
    assert (picture(colours, 3, 4, "RGB8") == colours.reshape(3, 4, 3)[:, :, ::-1]).all()
    assert picture(np.arange(48, dtype=np.uint8), 3, 4, "RGBa8").shape == (3, 4, 3)
    red = np.zeros((8, 8), np.uint8)
    red[::2, ::2] = 200
    for kind, shift in (("BayerRG8", (0, 0)), ("BayerGR8", (0, 1)), ("BayerGB8", (1, 0)), ("BayerBG8", (1, 1))):
        seen = picture(np.roll(red, shift, (0, 1)).reshape(-1), 8, 8, kind)[2:-2, 2:-2].reshape(-1, 3).mean(0)
        assert (seen[2] > 100, seen[0] < 10) == (True, True), f"{kind} shows red as {seen}"
    with pytest.raises(GenicamError, match="YUV422_8 is not known"):
        picture(np.zeros(24, np.uint8), 3, 4, "YUV422_8")
    assert cv2.COLOR_BayerBG2BGR == cv2.COLOR_BayerRGGB2BGR
