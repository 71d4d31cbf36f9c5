"""The camera, seen from the station: its newest picture, and whether it is alive. A child process reads the driver."""

from __future__ import annotations

import json
import mmap
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

import numpy as np
import structlog

from station.errors import CameraError, CameraUnfitError
from station.health import Health
from station.sources import camera_child
from station.sources.camera_child import SLOTS, slot_bytes
from station.types import Image, Shot, Stop

log = structlog.get_logger(__name__)

TURN_S = 0.25
OPEN_S = 15.0  # a network camera may take seconds to its first key frame
KILL_S = 2.0
LOGIN = re.compile(r"(?<=://)[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """
    *device*: ``/dev/v4l/by-id/…`` or a number, an address (``rtsp://``, ``http://``), ``gstreamer: PIPELINE``, or a
    video or a folder of pictures as a stand-in. What is 0, empty or None is left to the camera.

    *stalled_s*: without a picture for so long it is taken for hung; *frozen_s*: with the same one (0: never).
    *latency_ms*: from the sensor to here. *triggered*: a picture must be no older than it seems, so the camera's own
    stamps are looked at where it has any; without triggers a camera that counts badly is as good as another.
    """

    device: str
    width: int = 0
    height: int = 0
    fps: float = 0.0
    pixel_format: str = ""
    exposure: float | None = None
    gain: float | None = None
    stalled_s: float = 2.0
    frozen_s: float = 2.0
    latency_ms: int = 40
    triggered: bool = True

    @property
    def shown(self) -> str:
        """The device, without a login."""
        return LOGIN.sub("", self.device)


@dataclass(frozen=True, slots=True)
class _Newest:
    number: int
    slot: int
    sequence: int
    began_s: float
    arrived_s: float
    wall_s: float


class CameraOrder:
    """Implements ``types.Order``. All of it belongs to *changed*, which the camera holds when it serves."""

    def __init__(
        self, since_s: float, until_s: float, changed: threading.Condition, monotonic: Callable[[], float]
    ) -> None:
        self.since_s = since_s
        self.until_s = until_s
        self.served: Shot | None = None
        self.trouble: str | None = None
        self.cancelled = False
        self._changed = changed
        self._monotonic = monotonic

    def shot(self) -> Shot:
        with self._changed:
            while self.served is None:
                if self.trouble is not None:
                    raise CameraError(self.trouble)
                left_s = self.until_s - self._monotonic()
                if left_s <= 0:
                    raise _none_within(self.until_s - self.since_s)
                self._changed.wait(left_s)
            return self.served

    def cancel(self) -> None:
        with self._changed:
            self.cancelled = True


class Camera:
    """
    Implements ``types.Camera``; ``run`` is the loop that a Worker supervises as ``camera``.

    *login* is asked at each opening: user and password for an address, or None; it raises CameraError when it cannot be
    had. *worked* is called when pictures come.
    """

    def __init__(
        self,
        options: CameraOptions,
        *,
        health: Health,
        worked: Callable[[], None] = lambda: None,
        login: Callable[[], tuple[str, str] | None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._health = health
        self._worked = worked
        self._login = login
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._trouble: str | None = "the camera has not been opened yet"
        self._newest: _Newest | None = None
        self._pixels: memoryview | None = None
        self._shape = (0, 0)
        self._earlier = 0  # pictures of earlier openings: numbers only rise
        self._orders: deque[CameraOrder] = deque()  # in the order in which they came: each gets a picture of its own
        self._ordered = 0  # the last picture that an order got
        self._said: deque[str] = deque(maxlen=5)
        health.cannot("camera", self._trouble)  # whoever asks before the loop has begun hears it too

    def shot(self, *, since_s: float, after: int = 0, within_s: float) -> Shot:
        deadline_s = self._monotonic() + within_s
        with self._changed:
            while True:
                if self._trouble is not None:
                    raise CameraError(self._trouble)
                newest = self._newest
                if newest is not None and newest.began_s >= since_s and newest.number > after:
                    shot = self._shot_of(newest)
                    if shot is not None:
                        return shot
                left_s = deadline_s - self._monotonic()
                if left_s <= 0:
                    raise _none_within(within_s)
                self._changed.wait(left_s)

    def order(self, *, since_s: float, until_s: float) -> CameraOrder:
        order = CameraOrder(since_s, until_s, self._changed, self._monotonic)
        with self._changed:
            order.trouble = self._trouble
            if order.trouble is None:
                self._orders.append(order)
                self._serve()
        return order

    def run(self, stop: Stop) -> None:
        """Opens the camera and watches it, until *stop*. Raises CameraError when it is away, hung or frozen."""
        self._say("the camera is being opened")
        memory = os.memfd_create("station-camera", os.MFD_CLOEXEC)
        ours, theirs = os.pipe()
        child = None
        try:
            child = self._start(memory, theirs)
            os.close(theirs)
            theirs = -1
            self._watch(child, memory, ours, stop)
        except CameraError as error:
            self._say(str(error))
            raise
        finally:
            self._say(self._trouble or "the camera is being opened anew")
            if child is not None:
                _kill(child)
            for descriptor in (memory, ours, theirs):
                if descriptor >= 0:
                    os.close(descriptor)

    def _start(self, memory: int, events: int) -> subprocess.Popen[bytes]:
        login, device = self._login(), self._options.device
        if login is not None and "://" in device:
            device = device.replace("://", "://{}:{}@".format(*map(_quoted, login)), 1)
        options = {name: getattr(self._options, name) for name in CameraOptions.__slots__} | {"device": device}
        child = subprocess.Popen(
            [sys.executable, "-I", camera_child.__file__, str(memory), str(events)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(memory, events),
        )
        assert child.stdin is not None  # noqa: S101  # it was asked for
        with suppress(BrokenPipeError), child.stdin as pipe:  # not by its arguments: those can be seen by everybody
            pipe.write(json.dumps(options).encode() + b"\n")
        return child

    def _watch(self, child: subprocess.Popen[bytes], memory: int, events: int, stop: Stop) -> None:
        assert child.stderr is not None  # noqa: S101  # it was asked for
        chatter, rest = child.stderr.fileno(), b""
        last_s, opened = self._monotonic(), False
        while not stop.is_set():
            self._health.beat("camera")
            ready, _, _ = select.select([events], [], [], TURN_S)
            while select.select([chatter], [], [], 0)[0] and (overheard := os.read(chatter, 65536)):
                self._overhear(overheard)  # before what the child says: it may be the reason
            if events in ready:
                data = os.read(events, 65536)
                if not data:
                    raise CameraError(self._named("its program ended" + self._hint()))
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    opened = self._hear(json.loads(line), memory) or opened
                last_s = self._monotonic()
            silent_s = self._monotonic() - last_s
            if opened and silent_s >= self._options.stalled_s:
                raise CameraError(
                    self._named(f"no picture for {self._options.stalled_s:g} s: it hangs, or was unplugged")
                )
            if not opened and silent_s >= self._options.stalled_s:
                self._health.begin("camera_opening", self._named("it does not open"))
            if not opened and silent_s >= OPEN_S:
                raise CameraError(self._named(f"it did not open within {OPEN_S:g} s" + self._hint()))

    def _hear(self, document: dict[str, Any], memory: int) -> bool:
        """Takes in what the child says; True: the camera is open."""
        match document["event"]:
            case "trouble":
                kind = CameraUnfitError if document["lasting"] else CameraError
                raise kind(self._named(document["what"] + self._hint()))
            case "opened":
                self._shape = (document["height"], document["width"])
                with self._changed:
                    self._pixels = memoryview(mmap.mmap(memory, SLOTS * slot_bytes(*self._shape), mmap.MAP_SHARED))
                for note in document["notes"]:
                    log.warning("camera setting not taken", note=note)
                return True
            case "same":
                return True
        number = document["number"]
        newest = _Newest(
            self._earlier + number,
            number % SLOTS,
            2 * number,
            document["began_s"],
            document["arrived_s"],
            document["wall_s"],
        )
        with self._changed:
            first, self._trouble = self._trouble is not None, None
            self._newest = newest
            self._serve()
            self._changed.notify_all()
        if first:
            log.info("camera open", device=self._options.shown, width=self._shape[1], height=self._shape[0])
            self._health.end("camera_opening")
            self._health.cannot("camera", None)
            self._worked()
        return True

    def _serve(self) -> None:
        """Gives the newest picture to the first who asked for one like it. Within the lock."""
        now_s, newest = self._monotonic(), self._newest
        while self._orders and (self._orders[0].cancelled or self._orders[0].until_s <= now_s):
            self._orders.popleft()
        if newest is None or not self._orders or newest.number <= self._ordered:
            return
        if newest.began_s >= self._orders[0].since_s and (shot := self._shot_of(newest)) is not None:
            self._orders.popleft().served = shot
            self._ordered = newest.number

    def _shot_of(self, newest: _Newest) -> Shot | None:
        image = self._copy(newest)
        if image is None:
            return None
        taken_at = datetime.fromtimestamp(newest.wall_s, timezone.utc)
        return Shot(image, newest.number, newest.began_s, newest.arrived_s, taken_at)

    def _copy(self, newest: _Newest) -> Image | None:
        """Its pixels, or None if the child has begun to write over them: then there is a newer one."""
        assert self._pixels is not None  # noqa: S101  # there is no picture before
        height, width = self._shape
        at = newest.slot * slot_bytes(height, width)
        sequence = newest.sequence.to_bytes(8, "little")
        if self._pixels[at : at + 8] != sequence:
            return None
        image = np.frombuffer(self._pixels, np.uint8, height * width * 3, at + 8).reshape(height, width, 3).copy()
        return image if self._pixels[at : at + 8] == sequence else None

    def _say(self, trouble: str) -> None:
        """From here on there is no picture, and whoever waits for one hears why."""
        with self._changed:
            if self._newest is not None:
                self._earlier = self._newest.number
            self._trouble, self._newest, self._pixels = trouble, None, None
            for order in self._orders:
                order.trouble = trouble
            self._orders.clear()
            self._changed.notify_all()
        self._health.cannot("camera", trouble)

    def _overhear(self, data: bytes) -> None:
        """What drivers and codecs chatter: for who looks for a cause, and never with a password."""
        for line in data.decode("utf-8", "replace").splitlines():
            if text := LOGIN.sub("", line).strip():
                self._said.append(text)
                log.debug("camera said", text=text)

    def _hint(self) -> str:
        return f' (it said: "{self._said[-1][:200]}")' if self._said else ""

    def _named(self, what: str) -> str:
        return f"camera {self._options.shown}: {what}"


def _none_within(seconds: float) -> CameraError:
    return CameraError(f"the camera took no picture within {seconds * 1e3:.0f} ms")


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    try:
        child.wait(KILL_S)
    except subprocess.TimeoutExpired:  # it hangs in the kernel, which will end it when the driver lets it go
        log.error("camera program does not end", pid=child.pid)
    if child.stderr is not None:
        child.stderr.close()
