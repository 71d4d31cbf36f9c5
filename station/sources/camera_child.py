"""
The program that reads the camera, in a process of its own: a driver that hangs can be killed, and the device let go.

It gets its options as one line of JSON on stdin, and two descriptors by its arguments: shared memory for the pictures,
and a pipe on which it says, a line of JSON each, ``opened``, ``frame``, ``same`` (it moves, but there is nothing new to
be judged) or ``trouble`` (``lasting``: no other program is the cause). It knows nothing of the station but its
neighbours ``camera_*``, and how files of pictures are read.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import signal
import sys
import time
import zlib
from collections import deque
from pathlib import Path
from typing import Any, NoReturn

# It is started by its path, also by a Python that has no station: a Jetson's own, which has GStreamer. Last, so that
# what that one has goes first.
if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from station.sources.camera_age import Freshness, Trouble
from station.sources.camera_devices import open_device

SLOTS = 4  # the newest picture, the one that may be being copied, the one that is written, and one to spare
PAGE_BYTES = 4096
RING = 16  # pictures that are remembered: more than a driver has buffers
PR_SET_PDEATHSIG = 1

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
            say(event="trouble", what=str(trouble), lasting=trouble.lasting)
    os._exit(1)  # without cv2's tidying up, which may hang in the same driver


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
    shots, notes = open_device(options)
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
            "(v4l2-ctl --list-formats-ext) in [source] width and height",
            lasting=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
