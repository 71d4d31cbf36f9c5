"""
How many pictures the inspection API judges in a second, beside the bare network and beside the guide's own design.

    scripts/bench --api [--boards 200] [--peer PYTHON --weights best.pt]

Eight clients send the sample boards over HTTP, each when it has its last answer; nothing is cached. --peer names an
interpreter that has ultralytics, fastapi and uvicorn: it serves the same pictures as the deployment guide does, by
ultralytics on a temporary file, with the weights (.pt) and with ultralytics' own ONNX export of them.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from bench import Figure, bare_run_ms, free_port

CLIENTS = 8
ALLOWANCE_MS = 5.0
TIMES_PT, TIMES_ONNX = 4.0, 2.0
GUIDE = Path(__file__).with_name("bench_guide.py")


@dataclass(frozen=True, slots=True)
class Served:
    """Answers in a second, their times, and the memory of the worker that takes most."""

    per_s: float
    median_ms: float
    p99_ms: float
    worker_mb: float


def measure(home: Path, pictures: list[Path], boards: int, peer: str | None, weights: Path | None) -> Iterator[Figure]:
    before_ms = bare_run_ms(pictures)
    with station(home / "one", workers=1) as (process, port):
        alone = asked(process, port, pictures, boards, clients=1)
        ours = asked(process, port, pictures, boards, clients=CLIENTS)
    bare_ms = (before_ms + bare_run_ms(pictures)) / 2
    yield Figure(
        "a request, one client",
        alone.median_ms,
        "ms",
        bare_ms + ALLOWANCE_MS,
        f"bare {bare_ms:.1f} + {ALLOWANCE_MS:g} ms",
    )
    yield Figure(f"a request, {CLIENTS} clients, p99", ours.p99_ms, "ms", None, "")
    per_request_ms = 1e3 / ours.per_s
    told = f"bare {bare_ms:.1f} + {ALLOWANCE_MS:g} ms"
    yield Figure(f"time a request, {CLIENTS} clients", per_request_ms, "ms", bare_ms + ALLOWANCE_MS, told)
    yield Figure("memory of a worker", ours.worker_mb, "MB", None, "")
    if peer is None or weights is None:
        return
    for model, times in ((weights, TIMES_PT), (exported(peer, home / "export", weights), TIMES_ONNX)):
        with guide(peer, model) as (process, port):
            theirs = asked(process, port, pictures, max(40, boards // 4), clients=CLIENTS)
        what = f"the guide's own design with {model.suffix}"
        limit_ms = 1e3 / theirs.per_s / times
        told = f"{theirs.per_s:.1f} a second / {times:g}"
        yield Figure(f"time a request, beside {what}", per_request_ms, "ms", limit_ms, told)
        yield Figure(f"memory, beside {what}", ours.worker_mb, "MB", theirs.worker_mb / 2, "half of its memory")


def asked(process: psutil.Process, port: int, pictures: list[Path], boards: int, *, clients: int) -> Served:
    """*clients* ask until *boards* are answered."""
    data = [one.read_bytes() for one in pictures]
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(boards):
        waiting.put(number)
    times: list[float] = []

    def ask() -> None:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as client, contextlib.suppress(queue.Empty):
            while True:
                number = waiting.get_nowait()
                board = {"file": ("board.jpg", data[number % len(data)], "image/jpeg")}
                began_s = time.perf_counter()
                answer = client.post("/predict", files=board)
                times.append((time.perf_counter() - began_s) * 1e3)
                answer.raise_for_status()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    began_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - began_s
    worker_mb = max(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 1e6
    return Served(boards / took_s, statistics.median(times), statistics.quantiles(times, n=100)[98], worker_mb)


@contextlib.contextmanager
def station(home: Path, *, workers: int) -> Iterator[tuple[psutil.Process, int]]:
    home.mkdir(parents=True)
    port = free_port()
    config = home / "station.toml"
    config.write_text(
        f'[station]\ndata_dir = "{home}/data"\n[http]\nport = {port}\ncache_mb = 0\nrequests_per_minute = 0\n'
        '[detector]\nbackend = "onnxruntime"\n[log]\nlevel = "warning"\n'
    )
    command = [sys.executable, "-m", "station", "serve", "--workers", str(workers), "-c", str(config)]
    with served(command, port) as process:
        yield process, port


@contextlib.contextmanager
def guide(python: str, model: Path) -> Iterator[tuple[psutil.Process, int]]:
    port = free_port()
    with served([python, str(GUIDE), str(model), str(port)], port) as process:
        yield process, port


@contextlib.contextmanager
def served(command: list[str], port: int) -> Iterator[psutil.Process]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STATION_")}
    process = subprocess.Popen(command, env=environment)
    try:
        deadline_s = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"http://127.0.0.1:{port}/health", timeout=5, trust_env=False)
                break
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise SystemExit(f"{command[0]} does not serve")
            time.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def exported(python: str, home: Path, weights: Path) -> Path:
    home.mkdir(parents=True)
    copy = Path(shutil.copy(weights, home))
    program = (
        "from train import allow_missing_torchvision; allow_missing_torchvision(); "
        f"from ultralytics import YOLO; YOLO({str(copy)!r}).export(format='onnx', imgsz=640)"
    )
    environment = {**os.environ, "PYTHONPATH": str(GUIDE.parent)}
    subprocess.run([python, "-c", program], check=True, capture_output=True, cwd=home, env=environment)
    return copy.with_suffix(".onnx")
