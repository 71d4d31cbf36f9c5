"""Records a run of the real station, cuts its power at every moment, and asks what is left."""

from __future__ import annotations

import random
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from tests.chaos.weather import compiler
from tests.daemon import BLACK_PASSES, PATIENCE_S, Daemon, Subscriber, encoded, lasting_broker, picture
from tests.plc import Plc
from tests.powercut.disk import Recording, State, read
from tests.powercut.promises import INBOX, Judge, said_by
from tests.waiting import until

SOURCE = Path(__file__).with_name("recorder.c")
BOARDS = 9
TRIGGERS = 6


@dataclass(frozen=True, slots=True)
class Outcome:
    """*states* that were tried, of *moments*; *ledgers* that were opened; what was *broken*, in words."""

    ops: Counter[str]
    moments: int
    states: int
    ledgers: int
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = f"{self.states} states of the disk after {self.moments} calls, {self.ledgers} different ledgers opened"
        return "\n".join([told, *(self.broken or ["every promise was kept"])])


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run: the *recording* below *root*, the boards that it was about, and what lay there at its end."""

    root: Path
    recording: Recording
    boards: dict[str, str]
    final: dict[str, bytes]
    changes: Mapping[str, Mapping[str, object]]


def boards() -> dict[str, bytes]:
    """Good ones, bad ones, and one that is cut off."""
    found = {}
    for number in range(BOARDS):
        data = encoded(picture(number, red=BLACK_PASSES) if number % 3 == 1 else picture(number))
        found[f"board-{number}.png"] = data[: len(data) // 2] if number == BOARDS - 2 else data
    return found


def record_folder(folder: Path) -> Recorded:
    """A folder full of boards, all of them inspected, delivered and acknowledged; the station is stopped and goes."""
    files = boards()
    root = folder / "station"
    (root / INBOX).mkdir(parents=True)
    for name, data in files.items():
        (root / INBOX / name).write_bytes(data)
    changes: dict[str, dict[str, object]] = {"source": {"unchanged_s": 0.5}, "evidence": {"keep": "all"}}
    before = {str(root / INBOX / name): data for name, data in files.items()}

    def work(station: Daemon) -> None:
        until(lambda: not station.files() and not station.files("processing"), within_s=PATIENCE_S)

    named = {sha256(data).hexdigest(): name for name, data in files.items()}
    return _record(folder, root, before, changes, work, named)


def record_line(folder: Path) -> Recorded:
    """Triggers over a serial line, each answered at the gate."""
    root = folder / "station"
    (root / INBOX).mkdir(parents=True)
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(6):
        image = picture(number, red=BLACK_PASSES) if number % 2 else picture(number)
        (pictures / f"{number}.png").write_bytes(encoded(image))
    with Plc(folder) as plc:
        changes: dict[str, dict[str, object]] = {
            "source": {"kind": "camera", "path": None, "scan_s": None, "device": str(pictures), "fps": 50},
            "serial": {"port": str(plc.port)},
            "trigger": {"kind": "serial", "answer_ms": 5000},
            "gate": {"kind": "serial", "heartbeat_s": 0.2},
        }

        def work(_station: Daemon) -> None:
            plc.wait_for("READY")
            for number in range(1, TRIGGERS + 1):
                plc.say(b"T%d\r" % number)
                until(lambda number=number: any(one[1:] == str(number) for one in plc.texts()), within_s=PATIENCE_S)  # type: ignore[misc]  # bound at once

        return _record(folder, root, {}, changes, work, {})


def _record(
    folder: Path,
    root: Path,
    before: dict[str, bytes],
    changes: Mapping[str, Mapping[str, object]],
    work: Callable[[Daemon], None],
    named: dict[str, str],
) -> Recorded:
    library, paper = folder / "recorder.so", folder / "paper"
    subprocess.run([compiler(), "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    environment = {"LD_PRELOAD": str(library), "RECORD_TO": str(paper), "RECORD_FOLDER": str(root)}
    with lasting_broker(folder / "broker") as broker, Subscriber(broker.port):
        station = Daemon(root, broker_port=broker.port, changes=changes, environment=environment)
        already = {str(one): one.read_bytes() for one in root.rglob("*") if one.is_file()}
        with station:
            station.start()
            work(station)
            until(lambda: station.metric("station_outbox_events") == 0, within_s=PATIENCE_S, what="nothing is owed")
            assert station.stop() == 0
    final = {str(one.relative_to(root)): one.read_bytes() for one in root.rglob("*") if one.is_file()}
    ops = read(paper)
    mapped = {one.path for one in ops if one.kind == "a"}
    assert all(one.endswith("-shm") for one in mapped), f"written through memory, which is not recorded: {mapped}"
    # SQLite makes its shared memory anew from the WAL; the log is the harness's.
    ops = [one for one in ops if not one.path.endswith(("-shm", "station.log"))]
    folders = [str(root / INBOX)]
    return Recorded(root, Recording(root, {**already, **before}, folders, ops), named, final, changes)


def cut(recorded: Recorded, scratch: Path, *, seed: int, samples: int, every: int = 1, restarts: int = 0) -> Outcome:
    """Judges the states; *restarts* of them, drawn at random, also by starting the station on them."""
    chance = random.Random(seed)  # noqa: S311  # a replay, no secret
    said = said_by(recorded.recording.ops)
    judge = Judge(scratch / "ledgers", recorded.boards, recorded.final)
    states, broken = 0, []
    drawn: list[State] = []
    for state in recorded.recording.states(samples=samples, chance=chance, every=every):
        states += 1
        for one in judge.broken(state, said[state.after]):
            op = recorded.recording.ops[state.after - 1]
            broken.append(f"after call {state.after} ({op.kind} {Path(op.path).name}), {state.how}: {one}")
        if restarts and chance.random() < restarts / states:  # a fair draw from a stream
            if len(drawn) < restarts:
                drawn.append(state)
            else:
                drawn[chance.randrange(restarts)] = state
    for number, state in enumerate(drawn):
        found = _restarted(recorded, state, scratch / f"restart-{number}")
        broken += [f"after call {state.after}, {state.how}, restarted: {one}" for one in found]
    kinds = Counter(one.kind for one in recorded.recording.ops)
    return Outcome(kinds, len(recorded.recording.ops), states, judge.ledgers, broken)


def _restarted(recorded: Recorded, state: State, folder: Path) -> list[str]:
    """Starts the real station on what is left of a folder: each board is on record once, and all is delivered."""
    broken = []
    with lasting_broker(folder / "broker") as broker, Subscriber(broker.port) as subscriber:
        station = Daemon(folder / "station", broker_port=broker.port, changes=recorded.changes)
        for name, data in state.disk.lies().items():
            path = folder / "station" / name
            if path.suffix in {".toml", ".onnx"}:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        with station:
            station.start()
            until(lambda: not station.files() and not station.files("processing"), within_s=PATIENCE_S)
            until(lambda: station.metric("station_outbox_events") == 0, within_s=PATIENCE_S)
            with closing(sqlite3.connect(station.data_dir / "ledger.db")) as db:
                names = Counter(file for (file,) in db.execute("SELECT file FROM inspections"))
            if station.stop() != 0:
                broken.append("it did not stop well")
        events = {one["event_id"]: one for one in subscriber.events()}
        broken += [f"{name} is on record {names[name]} times" for name in recorded.boards.values() if names[name] != 1]
        broken += [f"{one['file']} passed" for one in events.values() if _red(one["file"]) and one["verdict"] == "pass"]
    return broken


def _red(name: str) -> bool:
    return int(name.removeprefix("board-").removesuffix(".png")) % 3 != 1
