"""
The program that reads the camera, in a process of its own: a driver that hangs can be killed, and the device let go.

It gets its options as one line of JSON on stdin, and two descriptors by its arguments: shared memory for the pictures,
and a pipe on which it says, a line of JSON each, ``opened``, ``frame``, ``same`` (it moves, but there is nothing new to
be judged) or ``trouble``. It knows nothing of the station but its neighbours (age, JPEG, streams, GenICam), and how
files of pictures are read.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import mmap
import os
import signal
import sys
import time
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

# It is started by its path, also by a Python that has no station: a Jetson's own, which has GStreamer. Last, so that
# what that one has goes first.
if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from station.sources.camera_age import Freshness, Trouble

SLOTS = 4  # the newest picture, the one that may be being copied, the one that is written, and one to spare
PAGE_BYTES = 4096
RING = 16  # pictures that are remembered: more than a driver has buffers
DEFAULT_FPS = 30.0  # of a stand-in that says nothing else
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
PR_SET_PDEATHSIG = 1
V4L2_MANUAL, FOURCC = 1, 4

os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # before cv2 is imported


def slot_bytes(height: int, width: int) -> int:
    """A slot begins on a page: eight bytes of sequence number, odd while it is written, then the pixels (BGR)."""
    return -(-(8 + height * width * 3) // PAGE_BYTES) * PAGE_BYTES


def main(memory: int, events: int) -> NoReturn:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # not to outlive a station that was killed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the station's, which ends us
    options = json.loads(sys.stdin.readline())
    pipe = os.fdopen(events, "w", buffering=1)

    def say(**document: Any) -> None:
        pipe.write(json.dumps(document) + "\n")

    try:
        _drain(options, memory, say)
    except BrokenPipeError:
        pass
    except Trouble as trouble:
        with contextlib.suppress(BrokenPipeError):
            say(event="trouble", what=str(trouble))
    os._exit(1)  # without cv2's tidying up, which may hang in the same driver


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


class Slots:
    """The shared memory that the pictures lie in, each behind its sequence number."""

    def __init__(self, memory: int, height: int, width: int) -> None:
        import numpy as np

        size = slot_bytes(height, width)
        os.ftruncate(memory, SLOTS * size)
        self._view = memoryview(mmap.mmap(memory, SLOTS * size))
        self._size = size
        self.shape = (height, width, 3)
        self._pixels = [
            np.frombuffer(self._view, np.uint8, height * width * 3, at * size + 8).reshape(self.shape)
            for at in range(SLOTS)
        ]

    def write(self, number: int, image: Any) -> None:
        at = (number % SLOTS) * self._size
        self._view[at : at + 8] = (2 * number - 1).to_bytes(8, "little")
        self._pixels[number % SLOTS][:] = image
        self._view[at : at + 8] = (2 * number).to_bytes(8, "little")


def _drain(options: dict[str, Any], memory: int, say: Any) -> None:
    same_since_s = begun_s = time.monotonic()
    shots, notes = _open(options)
    freshness = Freshness(begun_s, latency_s=options["latency_ms"] / 1e3)
    slots: Slots | None = None
    recent: deque[int] = deque(maxlen=RING)
    number = 0
    damaged_since_s: float | None = None
    for shot in shots:
        arrived_s, wall_s = time.monotonic(), time.time()
        if shot.damage:
            if shot.exposed_s is None:
                freshness.began_s(arrived_s, shot.stamp_s)  # it has come all the same
            damaged_since_s = arrived_s if damaged_since_s is None else damaged_since_s
            _skip(shot.damage, arrived_s - damaged_since_s, options["stalled_s"])
            say(event="same")
            continue
        damaged_since_s = None
        image = _colour(shot.image)
        height, width = image.shape[:2]
        if slots is None:
            _check_size(options, width, height)
            slots = Slots(memory, height, width)
            say(event="opened", width=width, height=height, notes=notes)
        if image.shape != slots.shape:
            was = f"{slots.shape[1]} x {slots.shape[0]}"
            raise Trouble(f"the size of its pictures changed from {was} to {width} x {height}")
        if options["frozen_s"] and shot.exposed_s is None:
            # All of it: a sensor's noise makes two equal pictures impossible, and a driver that hung repeats its last,
            # or all the buffers that it has, in turn.
            found = zlib.crc32(image.data)
            if found in recent:
                if arrived_s - same_since_s >= options["frozen_s"]:
                    raise Trouble(
                        f"it has shown the same picture for {options['frozen_s']:g} s: the camera or its driver hangs "
                        "([source] frozen_s)"
                    )
                say(event="same")  # it moves, but there is nothing new to be judged
                continue
            recent.append(found)
            same_since_s = arrived_s
        number += 1
        slots.write(number, image)
        began_s = freshness.began_s(arrived_s, shot.stamp_s) if shot.exposed_s is None else shot.exposed_s
        say(event="frame", number=number, began_s=began_s, arrived_s=arrived_s, wall_s=wall_s)
    raise Trouble("it gives no more pictures: was it unplugged or switched off?")


def _skip(damage: str, for_s: float, stalled_s: float) -> None:
    """A picture that is damaged, as have been all *for_s*. Raises Trouble when that is too long."""
    sys.stderr.write(f"a picture was skipped: {damage}\n")
    if for_s >= stalled_s:
        raise Trouble(
            f"its pictures come damaged, and none was whole for {stalled_s:g} s: part of them is lost on their way (a "
            "loose or bad cable, too little bandwidth: set a smaller size or fewer pictures a second at the camera)"
        )


def _open(options: dict[str, Any]) -> tuple[Iterator[Taken], list[str]]:
    """Its pictures, and what the driver did not take of the settings."""
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
    from station.sources.genicam_child import GenicamError, open_genicam  # only where it is used: an extra

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
            "without opencv-python), as Jetsons have it"
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


def _colour(image: Any) -> Any:
    """Height x width x 3, uint8 BGR, in one piece."""
    import cv2
    import numpy as np

    if image.dtype != np.uint8:
        image = (image / 256).astype(np.uint8)
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[:, :, :3])


def _check_size(options: dict[str, Any], width: int, height: int) -> None:
    wanted = (options["width"] or width, options["height"] or height)
    if (width, height) != wanted:
        raise Trouble(
            f"its pictures have {width} x {height} pixels, not {wanted[0]} x {wanted[1]}: choose a size that it has "
            "(v4l2-ctl --list-formats-ext) in [source] width and height"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
