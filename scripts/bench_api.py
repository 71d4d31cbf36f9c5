"""
How many pictures the inspection API judges in a second, beside the bare network and beside the guide's own design.

    scripts/bench --api [--boards 200] [--peer PYTHON --weights best.pt]

Eight clients send the sample boards over HTTP, each when it has its last answer; nothing is cached. One worker answers,
and then one for each core. --peer names an interpreter that has ultralytics, fastapi and uvicorn: it serves the same
pictures as the deployment guide does, by ultralytics on a temporary file, with the weights (.pt) and with ultralytics'
own ONNX export of them, by as many workers. Memory is a worker's own and its share of what all of them use (PSS).
"""

from __future__ import annotations

import contextlib
import http.client
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
from bench_rig import Figure, bare_run_ms
from ports import free_port

from station.detectors.backends import has_openvino

CLIENTS = 8
ALLOWANCE_MS = 5.0
TIMES_PT, TIMES_ONNX = 4.0, 2.0
GUIDE = Path(__file__).with_name("bench_guide.py")


@dataclass(frozen=True, slots=True)
class Served:
    """All requests over their number, single ones, and the memory (PSS) of the worker that takes most."""

    request_ms: float
    median_ms: float
    p99_ms: float
    worker_mb: float


def measure(home: Path, pictures: list[Path], boards: int, peer: str | None, weights: Path | None) -> Iterator[Figure]:
    models: list[tuple[Path, float]] = []
    if peer is not None and weights is not None:
        models = [(weights, TIMES_PT), (exported(peer, home / "export", weights), TIMES_ONNX)]
    for workers in sorted({1, len(os.sched_getaffinity(0))}):
        by = f"{workers} worker{'s' if workers > 1 else ''}"
        found: dict[str, Served] = {}
        for backend in ("onnxruntime", *(["openvino"] if has_openvino() else [])):
            before_ms = bare_run_ms(pictures)
            with station(home / f"{backend}-{workers}", backend=backend, workers=workers) as (process, port):
                alone = asked(process, port, pictures, boards, clients=1)
                found[backend] = asked(process, port, pictures, boards, clients=CLIENTS)
            if backend == "onnxruntime":
                bare_ms = (before_ms + bare_run_ms(pictures)) / 2
                told = f"bare {bare_ms:.1f} + {ALLOWANCE_MS:g} ms"
                if workers == 1:  # several have one core each
                    yield Figure("a request, one client", alone.median_ms, "ms", bare_ms + ALLOWANCE_MS, told)
                yield Figure(f"eight clients, {by}", found[backend].request_ms, "ms", bare_ms + ALLOWANCE_MS, told)
            yield Figure(f"its p99, {backend}", found[backend].p99_ms, "ms", None, by)
        for model, times in models:
            assert peer is not None  # there are no models without
            with guide(peer, model, workers) as (process, port):
                theirs = asked(process, port, pictures, max(40, boards // 4), clients=CLIENTS)
            told = f"the guide's with {model.suffix}, {by}: {theirs.request_ms:.1f} ms / {times:g}"
            for backend, ours in found.items():
                yield Figure(f"eight clients, {backend}, {by}", ours.request_ms, "ms", theirs.request_ms / times, told)
                half = f"half of the guide's with {model.suffix}"
                yield Figure(f"memory of a worker, {backend}", ours.worker_mb, "MB", theirs.worker_mb / 2, half)


def asked(process: psutil.Process, port: int, pictures: list[Path], boards: int, *, clients: int) -> Served:
    """*clients* ask until *boards* are answered. They must cost little: they share the cores with who answers."""
    bodies = [
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="board.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + one.read_bytes() + b"\r\n--b--\r\n"
        for one in pictures
    ]
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(boards):
        waiting.put(number)
    times: list[float] = []

    def ask() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        with contextlib.closing(client), contextlib.suppress(queue.Empty):
            while True:
                body = bodies[waiting.get_nowait() % len(bodies)]
                began_s = time.perf_counter()
                client.request("POST", "/predict", body, {"Content-Type": "multipart/form-data; boundary=b"})
                answer = client.getresponse()
                answer.read()
                times.append((time.perf_counter() - began_s) * 1e3)
                if answer.status != 200:
                    raise SystemExit(f"/predict answered {answer.status}")

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    began_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - began_s
    worker_mb = max(one.memory_full_info().pss for one in (process, *process.children(recursive=True))) / 1e6
    return Served(took_s / boards * 1e3, statistics.median(times), statistics.quantiles(times, n=100)[98], worker_mb)


@contextlib.contextmanager
def station(home: Path, *, backend: str, workers: int) -> Iterator[tuple[psutil.Process, int]]:
    home.mkdir(parents=True)
    port = free_port()
    config = home / "station.toml"
    config.write_text(
        f'[station]\ndata_dir = "{home}/data"\n[http]\nport = {port}\ncache_mb = 0\nrequests_per_minute = 0\n'
        f'[detector]\nbackend = "{backend}"\n[log]\nlevel = "warning"\n'
    )
    command = [sys.executable, "-m", "station", "serve", "--workers", str(workers), "-c", str(config)]
    with served(command, port) as process:
        yield process, port


@contextlib.contextmanager
def guide(python: str, model: Path, workers: int) -> Iterator[tuple[psutil.Process, int]]:
    port = free_port()
    with served([python, str(GUIDE), str(model), str(port), str(workers)], port) as process:
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
        "from torchvision_stand_in import allow_missing_torchvision; allow_missing_torchvision(); "
        f"from ultralytics import YOLO; YOLO({str(copy)!r}).export(format='onnx', imgsz=640)"
    )
    environment = {**os.environ, "PYTHONPATH": str(GUIDE.parent)}
    subprocess.run([python, "-c", program], check=True, capture_output=True, cwd=home, env=environment)
    return copy.with_suffix(".onnx")
