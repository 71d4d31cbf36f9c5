"""The two lines under torment, each with the station, the producer of its boards, and what was seen of it outside."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import threading
import time
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import numpy as np

from tests.chaos.oracle import FolderFacts, Row, StationFacts, TriggerFacts
from tests.chaos.proxy import Proxy
from tests.chaos.ways import at_once, copied_over, renamed, slowly
from tests.chaos.weather import Weather
from tests.daemon import BLACK_PASSES, PATIENCE_S, Daemon, Subscriber, encoded, picture
from tests.plc import Plc

WAYS = (at_once, slowly, renamed, copied_over)
PROGRAM = Path(__file__).parents[1] / "killed_station.py"
PATIENT_S = 3.0  # the PLC takes a board without an answer for rejected after so long, and goes on
ROWS = (
    "SELECT seq, inspections.event_id, verdict, coalesce(outbox.payload, unsealed.payload) FROM inspections"
    " LEFT JOIN outbox USING (seq) LEFT JOIN unsealed USING (seq) ORDER BY seq"
)
CAMERA: dict[str, object] = {"kind": "camera", "path": None, "scan_s": None, "fps": 30, "latency_ms": 0, "frozen_s": 0}


def _read(ledger: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=10)


class Line:
    """A station with a producer thread of its own; enter it to build everything, ``begin`` lets the boards come."""

    topic: str
    points: tuple[str, ...]

    def __init__(self, folder: Path, broker_port: int, *, chance: random.Random) -> None:
        self.folder = folder
        self.chance = chance
        self.boards = 0
        self.forgotten: dict[str, str] = {}  # boards owed or just recorded when somebody damaged the ledger's end
        self.unwritten: list[tuple[float, float]] = []  # the disk took nothing, and then the power went
        self._stack = ExitStack()
        self._broker_port = broker_port
        self._over = threading.Event()
        self._producer = threading.Thread(target=self._produce, name=f"producer {self.topic}", daemon=True)
        self._trouble: list[BaseException] = []

    def __enter__(self) -> Line:
        keep = self._stack.enter_context
        self.proxy = keep(Proxy(self._broker_port))
        self.subscriber = keep(Subscriber(self._broker_port, name=f"oracle {self.topic[-1]}", topic=self.topic))
        self.weather = keep(Weather(self.folder / "weather", over=self.folder / "station" / "data"))
        self._armed = self.folder / "point"
        self.station = Daemon(
            self.folder / "station",
            broker_port=self.proxy.port,
            changes={"station": {"topic": self.topic, "name": self.topic.rpartition("/")[2]}, **self.changes()},
            environment=self.weather.environment,
            program=[str(PROGRAM), f"@{self._armed}"],
        )
        self._stack.callback(self.station.kill)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._producer.is_alive():
            self._producer.join(PATIENCE_S)
        self._stack.close()

    @abstractmethod
    def changes(self) -> Mapping[str, Mapping[str, object]]:
        """Of the station's configuration."""

    @abstractmethod
    def produce(self, number: int) -> None:
        """Brings one board."""

    @abstractmethod
    def idle(self) -> bool:
        """All that was brought was dealt with."""

    @abstractmethod
    def missing(self, facts: StationFacts) -> int:
        """How many boards the station took on, of which no event came."""

    def begin(self) -> None:
        self.station.start()
        self._producer.start()

    def finish(self) -> None:
        """No more boards."""
        self._over.set()
        self._producer.join(PATIENCE_S)
        assert not self._trouble, self._trouble

    def revive(self) -> None:
        """Starts it again after it died."""
        self.station.kill()
        self.station.start()

    def dies_at(self, point: str, *, within_s: float) -> bool:
        """Whether it came to *point* in time, and died there."""
        self._armed.write_text(point, encoding="utf-8")
        deadline_s = time.monotonic() + within_s
        while self.station.alive() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        died = not self.station.alive()
        self._armed.unlink()
        if died:
            assert self.station.wait() == -9, f"it ended by itself: {self.station.text()[-3000:]}"
        return died

    def rows(self) -> list[Row]:
        """What the ledger holds, and each one that was put aside, as far as it reads."""
        found: list[Row] = []
        data = self.station.data_dir
        for path in self._ledgers():
            with suppress(sqlite3.DatabaseError), closing(_read(path)) as db:
                uuid = db.execute("SELECT value FROM meta WHERE key = 'uuid'").fetchone()[0]
                current = path.parent == data
                # A damaged one may end in the middle: what reads before that is kept.
                for seq, event_id, verdict, payload in db.execute(ROWS):
                    document = json.loads(payload or "{}")
                    trigger = document.get("trigger")
                    board = str(trigger["number"] if trigger else document.get("file"))
                    found.append(Row(uuid, seq, event_id, verdict, board, current=current))
        return found

    def _ledgers(self) -> list[Path]:
        data = self.station.data_dir
        return [data / "ledger.db", *sorted(data.glob("quarantine/*/ledger.db"))]

    def known(self) -> set[str]:
        """The boards of ledgers that were put aside, as far as they, or those that came after them, still tell."""
        found: set[str] = set()
        for path in self._ledgers():
            for query in ("SELECT event_id FROM known", "SELECT event_id FROM inspections"):
                with suppress(sqlite3.DatabaseError), closing(_read(path)) as db:
                    found.update(str(event_id) for (event_id,) in db.execute(query))
        return found

    def owed(self) -> int:
        with closing(sqlite3.connect(self.station.data_dir / "ledger.db", timeout=10)) as db:
            query = "SELECT (SELECT count(*) FROM outbox WHERE state != 'accepted') + (SELECT count(*) FROM unsealed)"
            return int(db.execute(query).fetchone()[0])

    def facts(self, *, lossy: list[tuple[float, float]]) -> StationFacts:
        return StationFacts(
            name=self.topic,
            messages=[(one.document["event_id"], one.payload) for one in self.subscriber.below("inspection")],
            passed=list(self.proxy.acked),
            rows=self.rows(),
            known=self.known(),
            lossy=lossy,
            forgotten=self.forgotten,
        )

    def _produce(self) -> None:
        try:
            while not self._over.is_set():
                self.boards += 1
                self.produce(self.boards)
        except BaseException as error:
            self._trouble.append(error)
            raise


class FolderLine(Line):
    """Boards fall into a folder: good ones, bad ones, and now and then one that is cut off."""

    topic = "factory/chaos/folder"
    points = (
        "file not yet claimed",
        "file claimed",
        "board judged",
        "board recorded",
        "evidence not yet kept",
        "evidence kept",
        "file not yet moved",
        "file moved",
        "event not yet sent",
        "event sent",
        "event not yet settled",
        "event settled",
    )

    def __init__(self, folder: Path, broker_port: int, *, chance: random.Random) -> None:
        super().__init__(folder, broker_port, chance=chance)
        self.dropped: dict[str, tuple[str, str]] = {}  # name and verdict that is due, by the sha256 of the bytes

    def changes(self) -> Mapping[str, Mapping[str, object]]:
        return {"source": {"unchanged_s": 1.0}, "evidence": {"keep": "all"}}

    def produce(self, number: int) -> None:
        kind = self.chance.choices(["fail", "pass", "unknown"], [6, 5, 1])[0]
        data = encoded(picture(number, red=BLACK_PASSES) if kind == "pass" else picture(number))
        if kind == "unknown":
            data = data[: len(data) // 2]
        name = f"board-{number}.png"
        self.dropped[hashlib.sha256(data).hexdigest()] = (name, kind)
        for _ in self.chance.choice(WAYS)(self.station.inbox / name, data):
            self._over.wait(self.chance.uniform(0.0, 0.05))
        self._over.wait(self.chance.uniform(0.0, 0.15))
        while len(self.station.files()) > 30 and not self._over.is_set():  # it is down: a line stops, too
            self._over.wait(0.05)

    def idle(self) -> bool:
        return not self.station.files() and not self.station.files("processing")

    def missing(self, facts: StationFacts) -> int:
        return len({name for name, _ in self.dropped.values()} - {json.loads(one)["file"] for _, one in facts.messages})

    def folder_facts(self) -> FolderFacts:
        places: dict[str, list[str]] = {}
        for file in self.station.inbox.rglob("*.png"):
            sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
            places.setdefault(sha256, []).append(file.relative_to(self.station.inbox).parts[0])
        return FolderFacts(dropped=dict(self.dropped), places=places)


class TriggeredLine(Line):
    """A PLC triggers a camera and obeys the answers, over a serial line."""

    topic = "factory/chaos/camera"
    points = (
        "trigger heard",
        "trigger journalled",
        "busy said",
        "picture taken",
        "board judged",
        "board recorded",
        "result not yet said",
        "result said",
        "result acknowledged",
        "answer not yet journalled",
        "answer journalled",
        "board not yet sealed",
        "board sealed",
        "trigger closed",
        "event sent",
        "event not yet settled",
    )

    def __init__(self, folder: Path, broker_port: int, *, chance: random.Random) -> None:
        super().__init__(folder, broker_port, chance=chance)
        self.capped: set[int] = set()  # triggered while nothing could be seen
        self.pictures = folder / "pictures"
        self._dark = False
        self._plugged = True
        self._line_lock = threading.Lock()
        self._shutter = threading.Lock()

    def __enter__(self) -> TriggeredLine:
        self.pictures.mkdir(parents=True)
        self._good = {
            f"{number}.png": encoded(picture(number, red=BLACK_PASSES) if number % 3 else picture(number))
            for number in range(6)
        }
        self.put(self._good)
        self.plc = self._stack.enter_context(Plc(self.folder))
        super().__enter__()
        return self

    def changes(self) -> Mapping[str, Mapping[str, object]]:
        return {
            "source": {**CAMERA, "device": str(self.pictures)},
            "serial": {"port": str(self.plc.port)},
            "trigger": {"kind": "serial", "answer_ms": 1000, "queue": 4},
            "gate": {"kind": "serial", "heartbeat_s": 0.2},
        }

    def produce(self, number: int) -> None:
        with self._shutter:
            if self._dark:
                self.capped.add(number)
            self.say(b"T%d\r" % number)
            deadline_s = time.monotonic() + PATIENT_S
            while str(number) not in {text[1:] for text in self.plc.texts()[-40:]} and time.monotonic() < deadline_s:
                time.sleep(0.005)
        self._over.wait(self.chance.uniform(0.0, 0.1))

    def say(self, data: bytes) -> None:
        """What is said while the line is unplugged is lost, as on a real one."""
        with self._line_lock, suppress(OSError):
            if self._plugged:
                self.plc.say(data)

    def unplug(self) -> None:
        with self._line_lock:
            self._plugged = False
            self.plc.unplug()

    def plug(self) -> None:
        with self._line_lock:
            self.plc.plug()
            self._plugged = True

    def lens_cap(self, on: bool) -> None:
        with self._shutter:  # between two boards
            self.put(dict.fromkeys(self._good, encoded(np.zeros((64, 64, 3), np.uint8))) if on else self._good)
            self._dark = on

    def camera_away(self) -> None:
        for name in self._good:
            (self.pictures / name).unlink()

    def camera_back(self) -> None:
        self.put(self._good)

    def put(self, pictures: Mapping[str, bytes]) -> None:
        for name, data in pictures.items():
            draft = self.folder / f"{name}.part"
            draft.write_bytes(data)
            draft.replace(self.pictures / name)

    def idle(self) -> bool:
        return self.books()[0] == self.books()[1]

    def missing(self, facts: StationFacts) -> int:
        with closing(sqlite3.connect(self.station.data_dir / "triggers.db", timeout=10)) as db:
            heard = {str(event_id) for (event_id,) in db.execute("SELECT id FROM triggers")}
        return len(heard - {event_id for event_id, _ in facts.messages})

    def books(self) -> tuple[int, int]:
        """Triggers that were heard, and those of them that are closed."""
        with closing(sqlite3.connect(self.station.data_dir / "triggers.db", timeout=10)) as db:
            seen, closed = db.execute("SELECT count(*), coalesce(sum(recorded), 0) FROM triggers").fetchone()
        return int(seen), int(closed)

    def trigger_facts(self) -> TriggerFacts:
        said = [one for one in self.plc.heard if one.text[:1] in {"P", "F", "U"} and one.text[1:].isdigit()]
        return TriggerFacts(
            sent=self.boards,
            said=[(one.text[0], int(one.text[1:]), one.at_s) for one in said],
            seen=self.books()[0],
            closed=self.books()[1],
            unseen=self.capped,
            unwritten=self.unwritten,
        )
