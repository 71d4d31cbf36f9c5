"""Chooses what computes a network: as configured, or by a short measurement that is remembered."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import structlog

from station.detectors import processor
from station.detectors.network import Network, checked_file, cores
from station.durable import replace_file
from station.errors import ConfigError, DetectorError, ModelError
from station.extras import how_to_add

log = structlog.get_logger(__name__)

Backend: TypeAlias = Literal["auto", "onnxruntime", "openvino"]
Runtime: TypeAlias = Literal["onnxruntime", "openvino"]

RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino")

WARM_UPS = 3  # the first runs are slower: memory is taken, caches are cold
RUNS = 9  # of each, in turn, so that what else the machine does meets both
WORTH_IT = 0.95  # OpenVINO takes a second library and more memory: it has to be that much faster
REMEMBERED = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for a model, and the milliseconds a run that were measured (none where there was no contest)."""

    runtime: Runtime
    run_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Places:
    """
    Where a station keeps what saves it time, in its data folder: both may be deleted at any time.

    *compiled*: a folder for compiled models; *choices*: a JSON file of what was measured.
    """

    compiled: Path
    choices: Path

    @staticmethod
    def below(data_dir: Path) -> Places:
        return Places(data_dir / "compiled", data_dir / "backends.json")


def open_network(
    path: Path,
    *,
    backend: Backend = "auto",
    threads: int = 0,
    sha256: str | None = None,
    places: Places | None = None,
) -> Network:
    """
    The network of *path*, loaded by *backend*; ``auto``: by the faster of those that are installed.

    *threads* 0: as many as there are cores for us. *sha256*: what the file must have. *places* None: nothing is kept.
    Raises ModelError for a file that cannot be used, ConfigError for a backend that is not installed.
    """
    if backend == "openvino" and not has_openvino():
        raise ConfigError(f'[detector] backend = "openvino", which is not installed: {how_to_add("openvino")}')
    if backend != "auto":
        return _open(backend, path, threads=threads, sha256=sha256, places=places)
    choice = choose(path, threads=threads, sha256=sha256, places=places)
    if choice.run_ms:  # else there was no choice
        log.info("backend chosen", model=path.name, backend=choice.runtime, run_ms=choice.run_ms)
    return _open(choice.runtime, path, threads=threads, sha256=sha256, places=places)


def choose(path: Path, *, threads: int = 0, sha256: str | None = None, places: Places | None = None) -> Choice:
    """
    What ``auto`` takes for *path*: measured now, or remembered in *places*. Raises ModelError.

    A runtime that failed is tried again at the next start: what was wrong with it may have been mended since.
    """
    if not has_openvino():
        return Choice("onnxruntime", {})
    key = _key(checked_file(path, sha256), threads or cores())
    known = {} if places is None else _remembered(places.choices)
    if key in known:
        return known[key]
    choice = _contest(path, threads=threads, sha256=sha256, places=places)
    if places is not None and _has_both(choice):
        _remember(places.choices, {**known, key: choice})
    return choice


def has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def _open(runtime: Runtime, path: Path, *, threads: int, sha256: str | None, places: Places | None) -> Network:
    # Late: each takes time and memory that a station which uses the other need not spend.
    match runtime:
        case "onnxruntime":
            from station.detectors.onnx import OnnxNetwork

            engines = None if places is None else places.compiled
            return OnnxNetwork(path, threads=threads, sha256=sha256, engines=engines)
        case "openvino":
            try:
                from station.detectors.openvino import OpenVinoNetwork
            except ImportError as error:
                hint = how_to_add("openvino")
                raise ConfigError(f"openvino is installed but cannot be imported ({error}): {hint}") from None
            cache = None if places is None else places.compiled
            return OpenVinoNetwork(path, threads=threads, sha256=sha256, cache=cache)


def _contest(path: Path, *, threads: int, sha256: str | None, places: Places | None) -> Choice:
    """The faster one, by a median of some runs; one that cannot run the model loses."""
    from station.detectors.onnx import offers_gpu

    if offers_gpu():  # whoever installed that onnxruntime wants it used
        return Choice("onnxruntime", {})
    networks: dict[Runtime, Network] = {}
    for runtime in RUNTIMES:
        try:
            networks[runtime] = _open(runtime, path, threads=threads, sha256=sha256, places=places)
        except (ModelError, ConfigError) as error:  # noqa: PERF203  # two rounds
            log.warning("backend not usable", backend=runtime, model=path.name, reason=str(error))
    times_ms: dict[Runtime, list[float]] = {runtime: [] for runtime in networks}
    for number in range(WARM_UPS + RUNS):
        for runtime, network in networks.items():
            if runtime not in times_ms:
                continue
            try:
                run_ms = _timed(network)
            except DetectorError as error:
                log.warning("backend not usable", backend=runtime, model=path.name, reason=str(error))
                del times_ms[runtime]
                continue
            if number >= WARM_UPS:
                times_ms[runtime].append(run_ms)
    run_ms_of = {str(runtime): round(statistics.median(times), 2) for runtime, times in times_ms.items()}
    return Choice(_winner(run_ms_of), run_ms_of)


def _winner(run_ms: Mapping[str, float]) -> Runtime:
    by_onnxruntime, by_openvino = run_ms.get("onnxruntime"), run_ms.get("openvino")
    if by_openvino is None:  # and if neither could, onnxruntime says why
        return "onnxruntime"
    return "openvino" if by_onnxruntime is None or by_openvino < by_onnxruntime * WORTH_IT else "onnxruntime"


def _timed(network: Network) -> float:
    """Milliseconds of one run. Raises DetectorError."""
    tensor = np.zeros(network.input.shape(), network.input.dtype)
    began_s = time.perf_counter()
    network.run(tensor)
    return (time.perf_counter() - began_s) * 1000


def _has_both(choice: Choice) -> bool:
    """Whether both were measured, so that it says which is faster, and not which one happened to work."""
    return all(math.isfinite(choice.run_ms.get(runtime, math.inf)) for runtime in RUNTIMES)


def _key(sha256: str, threads: int) -> str:
    """All that the answer depends on: the model, the libraries, the processor, and how much of it is ours."""
    parts = [sha256, *(f"{one} {_version(one)}" for one in ("onnxruntime", "onnxruntime-gpu", "openvino"))]
    if processor.ours_saturates():
        parts.append("without saturation")  # both compute otherwise there than they did once
    return hashlib.sha256("\n".join([*parts, processor.name(), str(threads)]).encode()).hexdigest()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _remembered(file: Path) -> dict[str, Choice]:
    """A file that is missing or damaged is an empty one: what it says can be measured again."""
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))["chosen"]
        known = {
            str(one["key"]): Choice(
                next(runtime for runtime in RUNTIMES if runtime == one["backend"]),
                {str(name): float(run_ms) for name, run_ms in one["run_ms"].items()},
            )
            for one in listed
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return {}
    return {key: choice for key, choice in known.items() if _has_both(choice)}  # older stations kept failures, too


def _remember(file: Path, choices: Mapping[str, Choice]) -> None:
    """A disk that takes nothing only costs the next start a second."""
    if not file.parent.is_dir():  # `station check` before the first start: it makes no data folder
        return
    latest = list(choices.items())[-REMEMBERED:]
    document = {"chosen": [{"key": key, "backend": one.runtime, "run_ms": one.run_ms} for key, one in latest]}
    try:
        replace_file(file, json.dumps(document, indent=1).encode() + b"\n", synced=False, adopted=True)
    except OSError as error:
        log.warning("backend not remembered", file=str(file), reason=str(error.strerror))
