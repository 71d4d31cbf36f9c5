"""The camera: its newest picture, never an old one, and seen at once when it is away, hung or frozen."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from station.errors import CameraError, CameraUnfitError
from station.health import Health
from station.sources import camera_child
from station.sources.camera import Camera, CameraOptions
from station.sources.camera_age import Freshness, Trouble
from station.sources.camera_child import Slots
from station.sources.camera_devices import _v4l2
from station.supervise import Worker
from station.types import Order, Shot
from tests.mjpeg_server import MjpegServer, cut
from tests.mosquitto import free_port
from tests.sources.boards import png_head
from tests.waiting import until


class Watching:
    """In a ``with``, a camera whose loop is run as the supervisor runs it."""

    def __init__(self, device: Path | str, *, login: tuple[str, str] | None = None, **options: object) -> None:
        self.health = Health()
        self.camera = Camera(
            CameraOptions(str(device), **({"latency_ms": 0} | options)),  # type: ignore[arg-type]  # of a test's own
            health=self.health,
            worked=lambda: self.worker.worked(),  # noqa: PLW0108  # there is no worker yet
            login=lambda: login,
        )
        self.worker = Worker("camera", self.camera.run, health=self.health, on_restart=lambda _: None)

    def __enter__(self) -> Watching:
        self.worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.worker.stop(within_s=30)

    def shot(self, *, after: int = 0) -> Shot:
        """A picture from now on; waits through troubles."""
        shots: list[Shot] = []

        def taken() -> bool:
            try:
                shots.append(self.camera.shot(since_s=time.monotonic(), after=after, within_s=5.0))
            except CameraError:
                return False
            return True

        until(taken, what=f"a picture; faults: {self.faults()}")
        return shots[0]

    def each_is_of_after_it_was_asked_for(self, shape: tuple[int, int, int]) -> None:
        last = self.shot().number
        for _ in range(3):
            asked_s = time.monotonic()
            shot = self.camera.shot(since_s=asked_s, after=last, within_s=30)
            assert shot.began_s >= asked_s
            assert shot.image.shape == shape
            last = shot.number

    def order(self, since_s: float | None = None) -> Order:
        since_s = time.monotonic() if since_s is None else since_s
        return self.camera.order(since_s=since_s, until_s=time.monotonic() + 30)

    def trouble(self) -> str:
        try:
            self.camera.shot(since_s=time.monotonic(), within_s=0.0)
        except CameraError as error:
            return str(error)
        return ""

    def faults(self) -> dict[str, str]:
        return {fault.code: fault.detail for fault in self.health.faults()}


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    with MjpegServer() as server:
        yield server


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((48, 64, 3), 40 * number, np.uint8))
    return folder


def test_before_its_loop_has_begun_no_board_can_be_taken(tmp_path: Path) -> None:
    """A station said that it was ready in the moment between its port and its loops: those boards were lost."""
    assert Watching(tmp_path).health.not_ready() == {"camera": "the camera has not been opened yet"}


def test_a_picture_is_taken_after_it_was_asked_for_and_numbers_rise(server: MjpegServer) -> None:
    with Watching(server.url) as watching:
        watching.shot()
        last = 0
        for _ in range(5):
            asked_s = time.monotonic()
            shot = watching.camera.shot(since_s=asked_s, after=last, within_s=30)
            assert asked_s <= shot.began_s <= shot.arrived_s <= time.monotonic()
            assert shot.number > last
            assert shot.image.shape == (48, 64, 3)
            last = shot.number
        assert watching.health.not_ready() == {}


def test_the_newest_picture_is_given_and_what_was_skipped_shows_in_its_number(server: MjpegServer) -> None:
    with Watching(server.url) as watching:
        first = watching.shot()
        until(lambda: server.sent > first.number + 5)
        later = watching.shot(after=first.number)
    assert later.number > first.number + 3


def test_an_order_gets_the_first_picture_after_it_whenever_it_is_fetched(server: MjpegServer) -> None:
    with Watching(server.url) as watching:
        watching.shot()
        asked_s = time.monotonic()
        orders = [watching.order() for _ in range(3)]
        until(lambda: server.sent > 5)
        first_after = watching.shot().number
        until(lambda since=server.sent: server.sent > since + 10)  # type: ignore[misc]  # bound at once
        shots = [order.shot() for order in orders]
    assert all(shot.began_s >= asked_s for shot in shots)
    numbers = [shot.number for shot in shots]
    assert numbers == sorted(set(numbers)), "each has a picture of its own, in the order of the orders"
    assert shots[0].number <= first_after, "and not the newest one when it is fetched"
    assert orders[0].shot() is shots[0]


def test_an_order_that_was_cancelled_or_is_over_takes_no_picture_from_the_next(server: MjpegServer) -> None:
    with Watching(server.url) as watching:
        watching.shot()
        over = watching.camera.order(since_s=time.monotonic(), until_s=time.monotonic())
        with pytest.raises(CameraError, match="took no picture within 0 ms"):
            over.shot()
        later_s = time.monotonic() + 0.2  # none that is there already
        gone, wanted = watching.order(later_s), watching.order(later_s)
        gone.cancel()
        number = wanted.shot().number
        assert watching.shot(after=number).number > number
        assert watching.camera._ordered == number  # no other order has taken one


def test_an_order_hears_at_once_when_the_camera_goes_away_or_is_away(server: MjpegServer) -> None:
    with Watching(server.url, stalled_s=0.5) as watching:
        watching.shot()
        server.mood = "stall"
        waiting = watching.order(since_s=time.monotonic() + 0.2)
        with pytest.raises(CameraError, match=r"no picture for 0\.5 s"):
            waiting.shot()
        with pytest.raises(CameraError):
            watching.order().shot()


def test_a_picture_that_was_there_before_is_never_given(server: MjpegServer) -> None:
    with Watching(server.url) as watching:
        watching.shot()
        server.mood = "stall"
        with pytest.raises(CameraError):
            watching.camera.shot(since_s=time.monotonic() + 0.2, within_s=0.5)


def test_what_a_network_held_up_is_not_taken_for_a_picture_of_now(server: MjpegServer) -> None:
    with Watching(server.url) as watching:
        watching.shot()
        for _ in range(3):
            server.mood = "held"
            since = server.sent
            until(lambda since=since: server.sent > since + 12)  # type: ignore[misc]  # bound at once
            since_s, due = time.monotonic(), server.sent
            until(lambda due=due: server.sent > due + 1)  # type: ignore[misc]  # bound at once
            server.mood = "well"
            shot = watching.camera.shot(since_s=since_s, within_s=10.0)
            shown = int(shot.image[-4:].mean().round()) - 20
            assert (shown - due) % 200 < 100, f"picture {shown} is from before the trigger, when {due} was sent"


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ("stall", "no picture for 0.5 s"),
        ("half", "no picture for 0.5 s"),
        ("cut", "its pictures come damaged, and none was whole for 0.5 s"),
        ("freeze", "the same picture for 0.5 s"),
        ("ring", "the same picture for 0.5 s"),
        ("reset", "gives no more pictures"),
    ],
)
def test_a_camera_that_is_rude_is_a_fault_and_is_opened_anew(server: MjpegServer, mood: str, words: str) -> None:
    with Watching(server.url, stalled_s=0.5, frozen_s=0.5) as watching:
        before = watching.shot()
        server.mood = mood
        until(lambda: words in watching.faults().get("camera_failing", ""), what=f"{words!r} in {watching.faults()}")
        assert "camera" in watching.health.not_ready()
        assert watching.trouble(), "meanwhile there is no picture at all"
        server.mood = "well"
        after = watching.shot()
        assert after.number > before.number
        until(lambda: watching.faults() == {})
        assert watching.health.not_ready() == {}


def test_while_it_shows_the_same_picture_nothing_is_judged(server: MjpegServer) -> None:
    with Watching(server.url, frozen_s=30.0, stalled_s=30.0) as watching:
        seen = watching.shot()
        server.mood = "freeze"
        until(lambda: watching.trouble().startswith("the camera took no picture"))
        with pytest.raises(CameraError, match="took no picture within 300 ms"):
            watching.camera.shot(since_s=time.monotonic(), after=seen.number, within_s=0.3)


class Busy(MjpegServer):
    """Its pictures have as much to be said in every row as those of a board, and no two in a row have a like grey."""

    def _picture(self, number: int) -> bytes:
        image = np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8)
        grey = 20 + number * 67 % 200
        image[:16], image[-16:] = 255 - grey, grey
        return cv2.imencode(".jpg", image)[1].tobytes()


def test_a_picture_that_lost_a_part_on_its_way_is_skipped_and_the_next_whole_one_is_given() -> None:
    """FFmpeg filled what was missing with grey, or with that part of an earlier picture: a bad board passed."""
    with Busy() as server, Watching(server.url, stalled_s=0.5) as watching:
        server.mood = "cuts"
        last = watching.shot().number
        for _ in range(20):
            shot = watching.camera.shot(since_s=time.monotonic(), after=last, within_s=30)
            top, bottom = shot.image[:4].mean(), shot.image[-4:].mean()
            assert top + bottom == pytest.approx(255, abs=4), "above and below are of one number"
            last = shot.number
        assert watching.faults() == {}


def test_a_camera_whose_pictures_were_damaged_from_the_first_on_is_a_fault_and_gives_none(server: MjpegServer) -> None:
    server.mood = "cut"
    with Watching(server.url, stalled_s=0.5) as watching:
        until(lambda: "its pictures come damaged" in watching.faults().get("camera_failing", ""))
        assert "premature end" in watching.faults()["camera_failing"].lower()
        assert watching.trouble()
        assert watching.camera._newest is None


class Driver:
    """As cv2's capture of a V4L2 device, which gives what it got as one row of bytes if asked to."""

    def __init__(self, fourcc: bytes, frames: list[bytes]) -> None:
        self._fourcc = fourcc
        self._frames = frames
        self._raw = False

    def isOpened(self) -> bool:  # noqa: N802  # cv2's name
        return True

    def get(self, key: int) -> float:
        return float(int.from_bytes(self._fourcc, "little")) if key == cv2.CAP_PROP_FOURCC else 1.0

    def set(self, key: int, value: float) -> bool:
        if key == cv2.CAP_PROP_CONVERT_RGB:
            self._raw = not value
        return True

    def read(self) -> tuple[bool, object]:
        if not self._frames:
            return False, None
        data = np.frombuffer(self._frames.pop(0), np.uint8)
        return True, data.reshape(1, -1) if self._raw else cv2.imdecode(data, cv2.IMREAD_COLOR)


@pytest.fixture
def usb(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, list[bytes]], list[tuple[bool, str]]]:
    """What comes of a USB camera's frames in that format: whether there is a picture, and its damage."""

    def taken(fourcc: bytes, frames: list[bytes]) -> list[tuple[bool, str]]:
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Driver(fourcc, frames))
        options = dict.fromkeys(("pixel_format", "width", "height", "fps", "exposure", "gain"))
        shots, _ = _v4l2(options | {"device": "/dev/null"})
        return [(shot.image is not None and shot.image.shape == (48, 64, 3), shot.damage) for shot in shots]

    return taken


def test_a_usb_cameras_jpeg_that_lost_a_part_is_damaged(
    usb: Callable[[bytes, list[bytes]], list[tuple[bool, str]]], server: MjpegServer
) -> None:
    whole = server._picture(1)
    assert usb(b"MJPG", [whole, cut(whole), whole]) == [(True, ""), (False, "Premature end of JPEG file"), (True, "")]


def test_a_usb_camera_that_sends_no_jpeg_is_read_as_ever(
    usb: Callable[[bytes, list[bytes]], list[tuple[bool, str]]], server: MjpegServer
) -> None:
    assert usb(b"YUYV", [server._picture(1)]) == [(True, "")]


def test_a_camera_that_is_not_there_at_the_start_is_found_when_it_comes() -> None:
    port = free_port()
    with Watching(f"http://127.0.0.1:{port}/video.mjpg") as watching:
        until(lambda: "cannot be opened" in watching.faults().get("camera_failing", ""))
        with MjpegServer(port=port):
            watching.shot()
            until(lambda: watching.faults() == {})
        until(lambda: "camera_failing" in watching.faults())


def test_a_device_that_is_not_there_says_what_to_look_for(tmp_path: Path) -> None:
    for device, words in (
        ("/dev/v4l/by-id/nothing", "is it plugged in?"),
        (tmp_path / "nothing", "is not there"),
        (tmp_path, "holds no pictures"),
        ("gstreamer: videotestsrc ! appsink", "has no GStreamer"),
        (Path(__file__), "is no video"),
    ):
        with Watching(device) as watching:
            until(lambda words=words, watching=watching: words in watching.faults().get("camera_failing", ""))  # type: ignore[misc]  # at once


def test_a_size_that_the_camera_does_not_have_is_said(server: MjpegServer) -> None:
    with Watching(server.url, width=1280, height=720) as watching:
        until(lambda: "64 x 48 pixels, not 1280 x 720" in watching.faults().get("camera_failing", ""))


def test_a_size_that_changes_is_said(pictures: Path) -> None:
    """Of a stand-in: OpenCV scales the pictures of a stream to the size that it began with, and says nothing."""
    cv2.imwrite(str(pictures / "9.png"), np.zeros((48, 128, 3), np.uint8))
    with Watching(pictures) as watching:
        words = "the size of its pictures changed from 64 x 48 to 128 x 48"
        until(lambda: words in watching.faults().get("camera_failing", ""))


@pytest.mark.parametrize(
    ("options", "words", "lasting"),
    [
        ({"width": 1920, "height": 1080}, "its pictures have 64 x 48 pixels", True),
        ({"frozen_s": 0.3}, "it has shown the same picture", False),
    ],
)
def test_what_no_other_program_can_be_the_cause_of_is_told_from_the_rest(
    server: MjpegServer, options: dict[str, object], words: str, lasting: bool
) -> None:
    server.mood = "freeze"
    camera = Camera(CameraOptions(server.url, **options), health=Health())  # type: ignore[arg-type]  # of a test's own
    with pytest.raises(CameraError, match=words) as caught:
        camera.run(threading.Event())
    assert isinstance(caught.value, CameraUnfitError) == lasting


def test_a_login_reaches_the_camera_and_nobody_else(capsys: pytest.CaptureFixture[str]) -> None:
    with MjpegServer(login="operator:open/sesame@1") as server:
        with Watching(server.url, login=("operator", "open/sesame@1")) as watching:
            watching.shot()
            (child,) = children_of(os.getpid())
            for what in ("cmdline", "environ"):
                assert b"sesame" not in Path(f"/proc/{child}/{what}").read_bytes()
            server.mood = "reset"
            until(lambda: "camera_failing" in watching.faults())
            assert "sesame" not in str(watching.faults())
        with Watching(server.url, login=("operator", "closed")) as watching:
            until(lambda: "name and password" in watching.faults().get("camera_failing", ""))
    captured = capsys.readouterr()
    assert "sesame" not in captured.out + captured.err


def children_of(pid: int) -> list[int]:
    return [int(one) for task in Path(f"/proc/{pid}/task").glob("*/children") for one in task.read_text().split()]


def test_a_child_that_hangs_is_killed_and_another_one_goes_on(server: MjpegServer) -> None:
    with Watching(server.url, stalled_s=0.5) as watching:
        watching.shot()
        (child,) = children_of(os.getpid())
        os.kill(child, signal.SIGSTOP)  # as one that hangs in its driver
        until(lambda: "camera_failing" in watching.faults())
        watching.shot()
        assert child not in children_of(os.getpid())


def test_a_child_that_was_killed_is_a_fault_and_another_one_goes_on(server: MjpegServer) -> None:
    with Watching(server.url) as watching:
        watching.shot()
        (child,) = children_of(os.getpid())
        os.kill(child, signal.SIGKILL)
        until(lambda: "its program ended" in watching.faults().get("camera_failing", ""))
        watching.shot()


def test_the_child_does_not_outlive_a_station_that_was_killed(pictures: Path) -> None:
    program = (
        "import sys, threading; from station.health import Health; from station.sources.camera import *;"
        f"Camera(CameraOptions({str(pictures)!r}), health=Health()).run(threading.Event())"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        until(lambda: children_of(parent.pid))
        (child,) = children_of(parent.pid)
        parent.kill()
        parent.wait(30)
        until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2])
    finally:
        parent.kill()


def test_pictures_stand_in_for_a_camera_over_and_over(pictures: Path) -> None:
    with Watching(pictures, fps=100) as watching:
        greys: set[int] = set()
        last = 0
        while len(greys) < 3 or last < 7:
            shot = watching.shot(after=last)
            last = shot.number
            greys.add(int(shot.image[0, 0, 0]))
    assert greys == {0, 40, 80}


def test_a_damaged_picture_of_a_stand_in_is_skipped(pictures: Path) -> None:
    for suffix in ("jpg", "png"):
        data = cv2.imencode(f".{suffix}", np.full((48, 64, 3), 200, np.uint8))[1].tobytes()
        (pictures / f"3.{suffix}").write_bytes(cut(data) if suffix == "jpg" else data[:-4])
    with Watching(pictures, fps=100) as watching:
        seen, last = set(), 0
        while last < 12:
            shot = watching.shot(after=last)
            last = shot.number
            seen.add(int(shot.image[0, 0, 0]))
        assert seen == {0, 40, 80}
        assert watching.faults() == {}


def test_a_stand_in_of_nothing_but_damaged_pictures_is_a_fault_that_names_one(
    tmp_path: Path, server: MjpegServer
) -> None:
    (tmp_path / "board.jpg").write_bytes(cut(server._picture(1)))
    with Watching(tmp_path, stalled_s=0.5) as watching:
        words = "board.jpg: JPEG: truncated, no end-of-image mark"
        until(lambda: words in watching.faults().get("camera_failing", ""))
        assert "its pictures come damaged" in watching.faults()["camera_failing"]
        assert watching.camera._newest is None


def test_a_stand_in_of_too_many_pixels_is_never_decoded(tmp_path: Path) -> None:
    (tmp_path / "vast.png").write_bytes(png_head(20_000, 20_000))
    with Watching(tmp_path, stalled_s=0.5) as watching:
        until(lambda: "vast.png: too many pixels" in watching.faults().get("camera_failing", ""))


def test_the_samples_stand_in_for_a_camera_though_one_of_them_is_cut_off() -> None:
    samples = Path(camera_child.__file__).parents[1] / "assets" / "samples"
    whole = len(list(samples.glob("*.jpg"))) - 1
    with Watching(samples, fps=100) as watching:
        assert watching.shot(after=3 * whole).image.shape == (640, 640, 3)
        assert watching.faults() == {}


def test_a_video_stands_in_for_a_camera_over_and_over(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for number in range(5):
        film.write(np.full((48, 64, 3), 50 * number, np.uint8))
    film.release()
    with Watching(path, fps=200) as watching:
        shot = watching.shot()
        assert watching.shot(after=shot.number + 10).number > shot.number + 10


@contextmanager
def writing(slots: Slots) -> Iterator[None]:
    """A writer that fills picture after picture with its number, as fast as it can."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            slots.write(number, np.full(slots.shape, number % 251, np.uint8))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def test_a_picture_is_never_half_one_and_half_another() -> None:
    """The reader sees every state that the writer leaves between two steps; a torn picture has two greys."""
    memory = os.memfd_create("test")
    try:
        slots = Slots(memory, 240, 320)
        camera = Camera(CameraOptions("x"), health=Health())
        camera._shape = (240, 320)
        whole = 0
        with writing(slots):
            number = 0
            import mmap

            camera._pixels = memoryview(mmap.mmap(memory, os.fstat(memory).st_size))
            from station.sources.camera import _Newest
            from station.sources.camera_child import SLOTS, slot_bytes

            while whole < 300:
                at = (number % SLOTS) * slot_bytes(240, 320)
                sequence = int.from_bytes(camera._pixels[at : at + 8], "little")
                number += 1
                if sequence == 0 or sequence % 2:
                    continue
                image = camera._copy(_Newest(sequence // 2, sequence // 2 % SLOTS, sequence, 0, 0, 0))
                if image is not None:
                    assert image.min() == image.max() == (sequence // 2) % 251
                    whole += 1
    finally:
        os.close(memory)


def steady(*, period_s: float = 0.1, pictures: int = 10, latency_s: float = 0.0) -> Freshness:
    """Of a camera that has shown so many, the last at *period_s* times *pictures*."""
    freshness = Freshness(0.0, latency_s=latency_s)
    for number in range(1, pictures + 1):
        freshness.began_s(number * period_s, None)
    return freshness


def test_a_picture_began_no_earlier_than_the_one_before_it_came_less_its_way() -> None:
    freshness = steady(latency_s=0.01)
    assert [round(freshness.began_s(at, None), 3) for at in (1.1, 1.2, 1.3)] == [0.99, 1.09, 1.19]


def test_until_its_rate_is_known_a_camera_has_shown_nothing_that_can_be_trusted() -> None:
    freshness = Freshness(0.0, latency_s=0.0)
    assert [freshness.began_s(at, None) for at in (0.1, 0.2, 0.3, 0.4)] == [0.0] * 4
    assert freshness.began_s(0.5, None) == 0.4


def test_pictures_that_waited_in_a_buffer_are_no_younger_than_the_pause_before_their_burst() -> None:
    freshness = steady()
    # Held up for a second: what was taken meanwhile comes all at once, and all of it may show the board before.
    burst = [freshness.began_s(2.0 + number / 1000, None) for number in range(10)]
    assert burst == [1.0] * 10
    assert [freshness.began_s(at, None) for at in (2.1, 2.2)] == [1.0] * 2, "two in a row at their usual distance"
    assert freshness.began_s(2.3, None) == 2.2


def test_a_burst_that_is_slowed_down_by_decoding_is_one_all_the_same() -> None:
    freshness = steady()
    assert [freshness.began_s(2.0 + number * 0.06, None) for number in range(20)] == [1.0] * 20


def test_a_jitter_of_some_milliseconds_is_no_pause() -> None:
    freshness = steady(period_s=0.01, pictures=20)
    assert freshness.began_s(0.222, None) == pytest.approx(0.2)
    assert freshness.began_s(0.23, None) == pytest.approx(0.222)


@pytest.mark.parametrize("period_s", [0.02, 0.3])
def test_a_camera_that_changes_its_rate_is_trusted_again(period_s: float) -> None:
    freshness = steady()
    for number in range(1, 150):
        began_s = freshness.began_s(1.0 + number * period_s, None)
    assert began_s == pytest.approx(1.0 + 148 * period_s)


def test_a_cameras_own_stamp_tells_how_old_a_late_picture_is() -> None:
    freshness = Freshness(0.0, latency_s=0.0)
    for number in range(1, 11):
        freshness.began_s(number / 10 + 0.05, number / 10 + 7.0)  # the shortest way puts it 6.95 s ahead of ours
    late = freshness.began_s(2.0, 1.1 + 7.0)
    assert late == pytest.approx(1.05, abs=0.001)
    second = freshness.began_s(2.06, 1.2 + 7.0)
    assert second == pytest.approx(1.25, abs=0.001), "though the one before it came at 2.0"


class Stamped:
    """A camera with stamps of its own, 25 pictures a second, whose way to here takes 20 ms if nothing waits in it."""

    PERIOD_S = 0.04
    WAY_S = 0.02

    def __init__(self) -> None:
        self.freshness = Freshness(1000.0, latency_s=self.WAY_S)
        self.exposed_s = 1000.0

    def picture(self, *, waits_s: float = 0.0, clock_s: float = 0.0) -> float:
        """
        The next one, *waits_s* later than it might come, *clock_s* the camera's clock. How much older than it is it
        counts: below zero it is dangerous, far above a period it is of no use.
        """
        self.exposed_s += self.PERIOD_S
        began_s = self.freshness.began_s(self.exposed_s + self.WAY_S + waits_s, self.exposed_s + clock_s)
        return self.exposed_s - began_s

    def well(self, for_s: float) -> Stamped:
        for _ in range(round(for_s / self.PERIOD_S)):
            self.picture()
        return self

    def until_trouble(self, *, grows: float = 0.0, clock_s: float = 0.0) -> tuple[str, list[float]]:
        """Pictures whose lag grows by so much of the time: the trouble, and what ``picture`` said of each before."""
        ages_s: list[float] = []
        begins_s = self.exposed_s

        def half_an_hour() -> None:
            while self.exposed_s < begins_s + 1800:
                ages_s.append(self.picture(waits_s=grows * (self.exposed_s - begins_s), clock_s=clock_s))

        with pytest.raises(Trouble) as trouble:
            half_an_hour()
        return str(trouble.value), ages_s


@pytest.mark.parametrize("grows", [0.01, 0.002])
def test_pictures_that_queue_ever_longer_at_an_even_pace_are_not_taken_for_new(grows: float) -> None:
    """The shortest way was forgotten after a minute: a lag that grew by 1 % was 14.5 s after 25 min, and not seen."""
    camera = Stamped().well(20)
    trouble, ages_s = camera.until_trouble(grows=grows)
    assert "come late for 10 s, the last one by 1." in trouble
    assert "the network or this PC is too slow" in trouble
    assert min(ages_s) > -0.2, "as much as clocks may drift apart until the lag is one of a second"


def test_a_lag_that_grew_and_stays_is_not_forgotten() -> None:
    camera = Stamped().well(20)
    for number in range(1000):
        camera.picture(waits_s=number * 0.0005)
    assert min(camera.picture(waits_s=0.5) for _ in range(25 * 600)) > -0.15, "ten minutes later"


def test_jitter_makes_no_picture_younger_than_it_is_nor_older_than_the_jitter() -> None:
    noise = random.Random(1)  # noqa: S311  # it keeps no secret
    camera = Stamped().well(2)
    ages_s = [camera.picture(waits_s=min(noise.expovariate(1 / 0.005), 0.03)) for _ in range(25 * 600)]
    assert min(ages_s) > -0.005
    assert max(ages_s) < 2 * camera.PERIOD_S + 0.03


@pytest.mark.parametrize("drift", [100e-6, -100e-6])
def test_clocks_that_drift_apart_for_hours_leave_the_pictures_usable(drift: float) -> None:
    camera = Stamped()
    ages_s = [camera.picture(clock_s=drift * number * camera.PERIOD_S) for number in range(25 * 3600 * 3)][10:]
    assert min(ages_s) > -0.001
    assert max(ages_s) < camera.PERIOD_S + 0.001


@pytest.mark.parametrize("odd_s", [10.0, -10.0])
def test_a_single_odd_stamp_is_one_pictures_alone(odd_s: float) -> None:
    camera = Stamped().well(20)
    camera.picture(clock_s=odd_s)
    assert [camera.picture() for _ in range(3)] == pytest.approx([camera.PERIOD_S] * 3)


def test_a_camera_whose_clock_is_set_ahead_is_trouble() -> None:
    trouble, ages_s = Stamped().well(20).until_trouble(clock_s=3.0)
    assert trouble == "the stamps of its pictures have jumped ahead by 3.0 s: was its clock set?"
    assert ages_s == pytest.approx([Stamped.PERIOD_S] * 2), "which a third one confirms"


def test_a_camera_whose_clock_is_set_back_is_trouble_and_its_pictures_are_of_no_use_meanwhile() -> None:
    trouble, ages_s = Stamped().well(20).until_trouble(clock_s=-3.0)
    assert "come late for 10 s, the last one by 3.0 s" in trouble
    assert "or the camera's clock was set back" in trouble
    assert len(ages_s) == pytest.approx(10 / Stamped.PERIOD_S, abs=2)
    assert min(ages_s) > 2.99


def test_what_a_server_kept_for_who_connects_is_no_trouble() -> None:
    """From the last key frame on, at once: the way is at first as long as that is ago."""
    camera = Stamped()
    for number in range(100):
        camera.picture(waits_s=4.0 - number * 0.039)
    assert camera.well(20).picture() == pytest.approx(camera.PERIOD_S)


def test_a_long_stall_and_its_burst_are_no_trouble_and_nothing_of_it_is_taken_for_new() -> None:
    camera = Stamped().well(20)
    burst = [camera.picture(waits_s=20.0 - number * 0.038) for number in range(500)]  # twenty seconds' within one
    assert min(burst) > -0.005
    assert camera.well(1).picture() == pytest.approx(camera.PERIOD_S)
