"""
The kinds of device that pictures come from, in the camera's own process: USB, network, GStreamer, GenICam, stand-ins.

cv2 and the neighbours are imported where they are used: the program starts at once, also in a Python without some of
them.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from station.sources.camera_age import Trouble

DEFAULT_FPS = 30.0  # of a stand-in that says nothing else
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
V4L2_MANUAL = 1


@dataclass(frozen=True)
class Taken:
    """
    A picture; *stamp_s* is its camera's own time, in seconds since anything. *exposed_s* is the very moment of its
    exposure, which only a stand-in knows. *damage* says why there is no *image* of it.
    """

    image: Any
    stamp_s: float | None = None
    exposed_s: float | None = None
    damage: str = ""


def open_device(options: dict[str, Any]) -> tuple[Iterator[Taken], list[str]]:
    """Its pictures, and what the driver did not take of the settings. Raises Trouble, as the pictures do."""
    device: str = options["device"]
    if device.startswith("gstreamer:"):
        return _opened(_gstreamer(device.partition(":")[2].strip())), []
    if device.startswith("genicam:"):
        return _genicam(device.partition(":")[2].strip(), options)
    if "://" in device:
        # Only RTSP carries the camera's clock; of motion JPEG over HTTP the decoder makes one up.
        return _stream(device, stamped=device.startswith("rtsp") and options["triggered"]), []
    if device.isdigit() or device.startswith("/dev/"):
        return _v4l2(options)
    return _stand_in(Path(device), options["fps"] or None), []


def _genicam(device: str, options: dict[str, Any]) -> tuple[Iterator[Taken], list[str]]:
    from station.sources.camera_genicam import GenicamError, open_genicam  # only where it is used: an extra

    try:
        pictures, notes = open_genicam(device, options)
    except GenicamError as error:
        raise Trouble(str(error)) from None

    def taken() -> Iterator[Taken]:
        try:
            for image, damage in pictures:
                yield Taken(image, damage=damage)
        except GenicamError as error:
            raise Trouble(str(error)) from None

    return taken(), notes


def _gstreamer(pipeline: str) -> Any:
    import cv2

    if not any("GStreamer" in line and "YES" in line for line in cv2.getBuildInformation().splitlines()):
        raise Trouble(
            "this OpenCV has no GStreamer: use the one of the system (python3 -m venv --system-site-packages, "
            "without opencv-python), as Jetsons have it",
            lasting=True,
        )
    return cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)


def _stream(url: str, *, stamped: bool) -> Iterator[Taken]:
    """JPEGs are taken as they come, since FFmpeg fills up what they lack; of other pictures it says what they lack."""
    import cv2

    from station.sources.camera_jpeg import is_jpeg
    from station.sources.camera_stream import Damage, open_stream

    capture, overheard = open_stream(url)
    jpegs = is_jpeg(capture.get(cv2.CAP_PROP_FOURCC)) and capture.set(cv2.CAP_PROP_FORMAT, -1)
    kind = getattr(cv2, "CAP_PROP_FRAME_TYPE", -1)  # a Jetson's OpenCV may be older than that
    damage = Damage()
    for shot in _opened(capture, jpegs, stamped=stamped):
        said = overheard.said()
        lacks = "" if jpegs else damage.of(said, chr(int(capture.get(kind))).strip("\0"))
        yield Taken(None, shot.stamp_s, damage=lacks) if lacks else shot


def _v4l2(options: dict[str, Any]) -> tuple[Iterator[Taken], list[str]]:
    import cv2

    from station.sources.camera_jpeg import is_jpeg

    device: str = options["device"]
    path = Path(f"/dev/video{device}" if device.isdigit() else device)
    if not path.exists():
        raise Trouble(f"{path} is not there: is it plugged in? (ls -l /dev/v4l/by-id)")
    if not os.access(path, os.R_OK | os.W_OK):
        raise Trouble(f"{path} may not be used by this user: add it to the group video")
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_V4L2)
    if not capture.isOpened():
        raise Trouble(f"{path} cannot be opened: does another program use it? (fuser -v {path})")
    notes = []
    wanted: list[tuple[str, int, float]] = [("buffers", cv2.CAP_PROP_BUFFERSIZE, 1)]
    if options["pixel_format"]:
        wanted.append(("pixel_format", cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*options["pixel_format"])))
    if options["width"] and options["height"]:
        wanted += [
            ("width", cv2.CAP_PROP_FRAME_WIDTH, options["width"]),
            ("height", cv2.CAP_PROP_FRAME_HEIGHT, options["height"]),
        ]
    if options["fps"]:
        wanted.append(("fps", cv2.CAP_PROP_FPS, options["fps"]))
    if options["exposure"] is not None:
        wanted += [
            ("manual exposure", cv2.CAP_PROP_AUTO_EXPOSURE, V4L2_MANUAL),
            ("exposure", cv2.CAP_PROP_EXPOSURE, options["exposure"]),
        ]
    if options["gain"] is not None:
        wanted.append(("gain", cv2.CAP_PROP_GAIN, options["gain"]))
    for name, key, value in wanted:
        if not capture.set(key, value) or abs(capture.get(key) - value) > 0.5:  # drivers round
            notes.append(f"{name} = {value:g} was not taken, it is {capture.get(key):g}")
    jpegs = is_jpeg(capture.get(cv2.CAP_PROP_FOURCC)) and capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    return _opened(capture, jpegs), notes


def _opened(capture: Any, jpegs: bool = False, *, stamped: bool = False) -> Iterator[Taken]:
    """Its pictures; *jpegs*: it was asked to give them as they come, one row of bytes each."""
    import cv2

    if not capture.isOpened():
        raise Trouble("it cannot be opened: is it switched on, and are address, name and password right?")
    while True:
        ok, image = capture.read()
        if not ok:
            return
        stamp_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3 if stamped else None
        if jpegs and image.ndim == 2 and len(image) == 1:
            yield _decoded(image.tobytes(), stamp_s)
        else:
            yield Taken(image, stamp_s)


def _decoded(data: bytes, stamp_s: float | None) -> Taken:
    from station.sources.camera_jpeg import DamagedError, decode

    try:
        return Taken(decode(data), stamp_s)
    except DamagedError as error:
        return Taken(None, stamp_s, damage=str(error))


def _stand_in(path: Path, fps: float | None) -> Iterator[Taken]:
    """A video or pictures, over and over, in the place of a camera: each is taken at the moment at which it is read."""
    import cv2

    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.suffix.lower() in PICTURES)
        if not files:
            raise Trouble(f"{path} holds no pictures")
        reads: Iterator[tuple[Any, str]] = map(_read, itertools.cycle(files))
    elif path.is_file():
        film = cv2.VideoCapture(str(path))
        if not film.isOpened():
            raise Trouble(f"{path} is no video that can be read")
        fps = fps or film.get(cv2.CAP_PROP_FPS) or None
        reads = _over_and_over(film)
    else:
        raise Trouble(f"{path} is not there: a camera's device, address, or a video or a folder of pictures")
    due_s = time.monotonic()
    while True:
        time.sleep(max(0.0, due_s - time.monotonic()))
        exposed_s = time.monotonic()
        image, damage = next(reads)
        yield Taken(image, exposed_s=exposed_s, damage=damage)
        due_s = max(due_s + 1 / (fps or DEFAULT_FPS), time.monotonic())


def _read(path: Path) -> tuple[Any, str]:
    """
    The picture in that file, as a station reads it from a folder, or why there is none. Raises Trouble when it is gone,
    as a camera is that was unplugged.
    """
    from station.errors import PictureError
    from station.picture import read

    try:
        return read(path.read_bytes()), ""
    except OSError as error:
        raise Trouble(f"{path} cannot be read any more: {error.strerror}") from None
    except PictureError as error:
        return None, f"{path.name}: {error}"


def _over_and_over(film: Any) -> Iterator[tuple[Any, str]]:
    import cv2

    fresh = True
    while True:
        ok, image = film.read()
        if ok:
            fresh = False
            yield image, ""
        elif fresh:
            raise Trouble("no picture of the video can be read")
        else:
            fresh = film.set(cv2.CAP_PROP_POS_FRAMES, 0)
