"""What every benchmark needs: a figure beside its limit, the floors, a station as a process, a broker, a subscriber."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import paho.mqtt.client as paho
from deeppcb import picture
from paho.mqtt.enums import CallbackAPIVersion
from ports import answers, free_port

from station.assets import ASSETS
from station.decide import unknown
from station.events import GATE_OFF, Aftermath, event_of
from station.ledger import open_ledger
from station.outbox import SqliteOutbox
from station.types import Entry, Frame, Inspection, Message, ModelInfo

MODEL = ASSETS / "pcb-demo.onnx"
TOPIC = "bench/aoi-1"
OWED = 2000  # events
PATIENCE_S = 30.0  # for what takes a moment


@dataclass(frozen=True, slots=True)
class Kind:
    """What a station inspects with: a model's name, a backend, and the template that a paired model needs."""

    model: str = "pcb-demo"
    backend: str = "onnxruntime"
    template: Path | None = None


PLAIN = Kind()


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement: *value* against *limit*, which is a floor plus an allowance or a peer's own value."""

    what: str
    value: float
    unit: str
    limit: float | None
    against: str

    @property
    def reached(self) -> bool | None:
        return None if self.limit is None else self.value <= self.limit


def bare_run_ms(pictures: list[Path], runs: int = 60) -> float:
    """The median time of InferenceSession.run alone, same model and threads, pictures prepared beforehand."""
    one_ms = bare_run(pictures)
    return statistics.median([one_ms() for _ in range(runs + 5)][5:])


def bare_run(pictures: list[Path]) -> Callable[[], float]:
    """What runs the session once at each call, on the next picture, and says how many milliseconds that took."""
    session = onnxruntime.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
    images = [picture(one) for one in pictures]
    tensors = [np.ascontiguousarray(one[..., ::-1].transpose(2, 0, 1)[None], np.float32) / 255 for one in images]
    following = itertools.cycle(tensors)

    def run_ms() -> float:
        tensor = next(following)
        began_s = time.perf_counter()
        session.run(None, {"images": tensor})
        return (time.perf_counter() - began_s) * 1e3

    return run_ms


@dataclass(frozen=True, slots=True)
class Backlog:
    board_ms: float
    peak_mb: float
    start_s: float


def backlog(home: Path, pictures: list[Path], boards: int, kind: Kind = PLAIN) -> Backlog:
    """A full inbox before the start; from the first event to the last, as a subscriber receives them, and all acked."""
    inbox = home / "inbox"
    inbox.mkdir(parents=True)
    for number in range(boards):
        shutil.copyfile(pictures[number % len(pictures)], inbox / f"board-{number:05}.jpg")
    with mosquitto() as port, subscriber(port) as arrivals, daemon(home, port, kind) as (process, started_s):
        times = [arrivals.get(timeout=120) for _ in range(boards)]
        until_nothing_owed(home)
        peak_mb = high_water_mb(process.pid)
    return Backlog((times[-1] - times[0]) / (boards - 1) * 1e3, peak_mb, started_s)


def ultralytics(
    python: str, home: Path, pictures: list[Path], boards: int, model: Path = MODEL, export: str | None = None
) -> dict[str, float]:
    """What ``ultralytics predict`` needs, in a process of its own, with *model* or with its own *export* of it."""
    folder = home / "boards"
    folder.mkdir(parents=True)
    for number in range(boards):
        shutil.copyfile(pictures[number % len(pictures)], folder / f"board-{number:05}.jpg")
    program = Path(__file__).with_name("bench_ultralytics.py")
    if export is not None:  # it lays its exports beside the weights
        model = Path(shutil.copy(model, home))
    done = subprocess.run(
        [python, str(program), str(model), str(folder), *([export] if export else [])],
        check=True,
        capture_output=True,
        text=True,
        cwd=home,
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def start_s(home: Path, kind: Kind = PLAIN) -> float:
    with daemon(home, free_port(), kind) as (_, started_s):
        return started_s


def owed_s(home: Path) -> float:
    """A ledger that owes 2,000 events, a station without a broker; then the broker comes, until nothing is owed."""
    (home / "data").mkdir(parents=True)
    ledger = open_ledger(home / "data" / "ledger.db").ledger
    for number in range(OWED):
        inspection = told(number)
        ledger.record(inspection, partial(told_event, inspection), owed=True)
    ledger.close()
    port = free_port()
    with daemon(home, port), mosquitto(port):
        began_s = time.perf_counter()
        until_nothing_owed(home)
        return time.perf_counter() - began_s


def told_event(inspection: Inspection, entry: Entry) -> Message:
    return event_of(inspection, entry, Aftermath(GATE_OFF, None), station="bench")


def told(number: int) -> Inspection:
    frame = Frame(str(uuid.uuid4()), None, datetime.now(timezone.utc), "bench", file=f"{number}.jpg", problem="bench")
    return Inspection(
        frame, unknown("bench"), ModelInfo("bench", "0" * 64), "bench", "0" * 64, None, 0.0, clock_synced=True
    )


@contextlib.contextmanager
def daemon(
    home: Path, mqtt_port: int, kind: Kind = PLAIN, *, source: str | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """``station run`` as a service manager starts it, on an inbox or *source*; and the seconds to READY=1."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "inbox").mkdir(exist_ok=True)
    config = home / "station.toml"
    config.write_text(
        f'[station]\nname = "bench"\ntopic = "{TOPIC}"\ndata_dir = "{home}/data"\n'
        + (source or f'[source]\npath = "{home}/inbox"\n')
        + f"[mqtt]\nport = {mqtt_port}\n[http]\nport = {free_port()}\n"
        f'[detector]\nmodel = "{kind.model}"\nbackend = "{kind.backend}"\n'
        + (f'[recipe]\ntemplate = "{kind.template}"\n' if kind.template else "")
        + '[evidence]\nkeep = "all"\nstop_below_mb = 200\n[log]\nlevel = "error"\n'
    )
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    (home / "notify").unlink(missing_ok=True)
    notify.bind(str(home / "notify"))
    notify.settimeout(PATIENCE_S)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STATION_")}
    began_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "station", "run", "-c", str(config)],
        env={**environment, "NOTIFY_SOCKET": str(home / "notify")},
    )
    try:
        while b"READY=1" not in notify.recv(4096):
            pass
        yield process, time.perf_counter() - began_s
    finally:
        notify.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        finally:
            process.kill()


@contextlib.contextmanager
def mosquitto(port: int | None = None) -> Iterator[int]:
    port = port or free_port()
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    process = subprocess.Popen([program, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not answers(port):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise SystemExit(f"{program} does not serve on port {port}; run it with -v -p {port} to see why")
            time.sleep(0.005)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def subscriber(port: int) -> Iterator[queue.SimpleQueue[float]]:
    """The times (perf_counter) at which inspection events arrive."""
    arrivals: queue.SimpleQueue[float] = queue.SimpleQueue()
    subscribed = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bench-subscriber")
    client.on_connect = lambda client, *_: client.subscribe(f"{TOPIC}/inspection/+", qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda *_: arrivals.put(time.perf_counter())
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        if not subscribed.wait(PATIENCE_S):
            raise SystemExit(f"the broker on port {port} took no subscription within {PATIENCE_S:g} s")
        yield arrivals
    finally:
        client.disconnect()
        client.loop_stop()


def until_nothing_owed(home: Path, *, within_s: float = 60.0) -> None:
    with contextlib.closing(SqliteOutbox(home / "data" / "ledger.db")) as outbox:
        deadline_s = time.monotonic() + within_s
        while outbox.depth().owed and time.monotonic() < deadline_s:
            time.sleep(0.005)
        if outbox.depth().owed:
            raise SystemExit(f"events are still owed after {within_s:g} s")


def high_water_mb(pid: int) -> float:
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
