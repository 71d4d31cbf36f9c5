"""An hour of line, compressed: every fault at once, and at the end the books balance."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.daemon import BLACK_PASSES, PATIENCE_S, Daemon, Subscriber, lasting_broker, picture
from tests.mosquitto import Mosquitto
from tests.plc import Plc
from tests.test_line_daemon import CAMERA, answers, books
from tests.waiting import until

PATIENT_S = 5.0  # the PLC takes a board that was not answered for so long for rejected, and goes on


class Hour:
    """A line that goes on whatever happens to the station; *passed* are the boards that the PLC let through."""

    def __init__(self, station: Daemon, plc: Plc, broker: Mosquitto, *, boards: Path, seed: int) -> None:
        self.station, self.plc, self.broker, self.boards = station, plc, broker, boards
        self.chance = random.Random(seed)  # noqa: S311  # a replay, no secret
        self.sent = 0
        self.capped: set[int] = set()  # triggered while there was nothing to be seen
        self.faults: Counter[str] = Counter()
        self.cap_on = False
        self._good = {one.name: one.read_bytes() for one in boards.iterdir()}

    def run(self, triggers: int) -> None:
        menu: list[Callable[[], None]] = [
            self.unplugged,
            self.noise,
            self.killed,
            self.frozen,
            self.camera_away,
            self.lens_cap,
            self.burst,
            self.broker_away,
        ]
        while self.sent < triggers or len(self.faults) < len(menu):
            self.boards_pass(self.chance.randint(2, 8))
            unseen = [one for one in menu if not self.faults[one.__name__]]
            fault = self.chance.choice(unseen or menu)
            self.faults[fault.__name__] += 1
            fault()

    def trigger(self) -> int:
        self.sent += 1
        if self.cap_on:
            self.capped.add(self.sent)
        self.plc.say(b"T%d\r" % self.sent)
        return self.sent

    def boards_pass(self, count: int) -> None:
        for _ in range(count):
            self.answered(self.trigger())

    def answered(self, number: int) -> bool:
        deadline_s = time.monotonic() + PATIENT_S
        while not any(text[1:] == str(number) for text in answers(self.plc)):
            if time.monotonic() > deadline_s:
                return False
            threading.Event().wait(0.002)
        return True

    def unplugged(self) -> None:
        self.trigger()
        self.plc.unplug()
        threading.Event().wait(self.chance.uniform(0, 0.5))
        before = self.plc.texts().count("SAFE")
        self.plc.plug()
        until(lambda: self.plc.texts().count("SAFE") > before, within_s=PATIENCE_S, what="the port to be open again")

    def noise(self) -> None:
        self.plc.say(self.chance.randbytes(200).replace(b"T", b"x") + b"\r")

    def killed(self) -> None:
        self.trigger()
        threading.Event().wait(self.chance.uniform(0, 0.05))
        self.station.kill()
        before = self.plc.texts().count("READY")
        self.plc.say(b"\r")
        self.station.start()
        until(lambda: self.plc.texts().count("READY") > before, within_s=PATIENCE_S, what="READY after the kill")

    def frozen(self) -> None:
        self.station.signal(signal.SIGSTOP)
        self.trigger()
        threading.Event().wait(self.chance.uniform(0.5, 1.5))
        self.station.signal(signal.SIGCONT)

    def camera_away(self) -> None:
        for name in self._good:
            (self.boards / name).unlink()
        self.boards_pass(2)
        self._put(self._good)
        until(self.station.ready, within_s=PATIENCE_S, what="the camera to be back")

    def lens_cap(self) -> None:
        ok, data = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))
        assert ok
        self._put(dict.fromkeys(self._good, data.tobytes()))
        self.cap_on = True
        self.boards_pass(3)
        self.cap_on = False
        self._put(self._good)

    def burst(self) -> None:
        for number in [self.trigger() for _ in range(12)]:
            self.answered(number)

    def broker_away(self) -> None:
        self.broker.stop()
        self.boards_pass(3)
        self.broker.start()

    def _put(self, pictures: dict[str, bytes]) -> None:
        for name, data in pictures.items():
            draft = self.boards.parent / f"{name}.part"
            draft.write_bytes(data)
            draft.replace(self.boards / name)


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "boards"
    folder.mkdir()
    for number in range(6):
        cv2.imwrite(str(folder / f"{number}.png"), picture(number, red=BLACK_PASSES) if number % 3 else picture(number))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("triggers", "seed"),
    [
        pytest.param(60, 1, id="minute"),
        pytest.param(3600, 2, id="hour", marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
)
def test_whatever_happens_on_the_line_the_books_balance_and_nothing_passes_unseen(
    triggers: int, seed: int, tmp_path: Path, boards: Path
) -> None:
    with lasting_broker(tmp_path / "broker") as broker, Subscriber(broker.port) as subscriber, Plc(tmp_path) as plc:
        changes: dict[str, dict[str, object]] = {
            "source": {**CAMERA, "device": str(boards), "frozen_s": 0},
            "serial": {"port": str(plc.port)},
            "trigger": {"kind": "serial", "answer_ms": 1000, "queue": 4},
            "gate": {"kind": "serial", "heartbeat_s": 0.2},
        }
        with Daemon(tmp_path / "station", broker_port=broker.port, changes=changes) as station:
            station.start()
            plc.wait_for("READY")
            hour = Hour(station, plc, broker, boards=boards, seed=seed)
            hour.run(triggers)

            def balanced() -> bool:
                now = books(station)
                return now["recorded"] == now["seen"] == now["boards"] == now["once"]

            until(balanced, within_s=PATIENCE_S, what=f"the books to balance: {books(station)}")
            seen = books(station)["seen"]
            until(
                lambda: len({event["event_id"] for event in subscriber.events()}) == seen,
                within_s=PATIENCE_S,
                what=f"an event for each of {seen} triggers",
            )
            assert station.stop() == 0
        events = {event["trigger"]["number"]: event for event in subscriber.events()}
        assert len(events) == seen <= hour.sent
        told = Counter(text[1:] for text in answers(plc))
        assert {number: times for number, times in told.items() if times > 1} == {}, "answered twice"
        for text in answers(plc):
            event = events[int(text[1:])]
            if text[0] == "P":
                assert event["verdict"] == "pass", f"{text} was said, and the books say {event}"
            elif event["gate"] in {"shown", "late"}:
                assert event["verdict"][0].upper() == text[0]
        for number in hour.capped & events.keys():
            assert events[number]["verdict"] == "unknown", f"passed or failed unseen: {events[number]}"
        ledger_ids = {event["ledger"] for event in subscriber.events()}
        assert len(ledger_ids) == 1
        assert sorted(event["seq"] for event in events.values()) == list(range(1, seen + 1)), "no gap in what came"
        assert hour.faults.total() >= 8
        verdicts = Counter(event["verdict"] for event in events.values())
        assert verdicts["pass"] > 0
        assert verdicts["fail"] > 0
        assert verdicts["unknown"] > 0
