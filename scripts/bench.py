"""
Every performance figure of the station, each beside its floor or its peer, measured in one run on this machine.

    scripts/bench [--boards 200] [--peer PYTHON] [--json FILE] [--line | --api | --models | --operator]

The bundled model, the bundled sample boards (640x640 JPEGs), evidence of every board, a real mosquitto on loopback.
--peer names an interpreter that has ultralytics, which then predicts the same boards with the same ONNX file.
Machines are noisy: look at the ratios, not at the milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import onnxruntime
import psutil
from bench_rig import OWED, Figure, backlog, bare_run_ms, daemon, mosquitto, owed_s, start_s, subscriber, ultralytics
from rich.console import Console
from rich.table import Table

from station.assets import SAMPLES

LOOP_ALLOWANCE_MS = 3.0
LATENCY_ALLOWANCE_MS = 15.0

console = Console()


def main() -> int:
    options = parse()
    pictures = sorted(one for one in SAMPLES.iterdir() if one.name.startswith(("fail-", "pass-")))
    home = Path(tempfile.mkdtemp(prefix="station-bench-"))
    try:
        if options.models:
            from bench_models import measure as measure_models

            figures = list(measure_models(home, options.boards, options.peer, options.weights))
        elif options.api:
            from bench_api import measure as measure_api

            figures = list(measure_api(home, pictures, options.boards, options.peer, options.weights))
        elif options.line:
            from bench_line import measure as measure_line

            figures = list(measure_line(home, pictures, options.boards))
        elif options.operator:
            from bench_operator import measure as measure_operator

            figures = list(measure_operator(home, pictures, options.boards))
        else:
            figures = list(measure(home, pictures, options.boards, options.peer))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    show(figures)
    if options.json:
        document = [{**asdict(one), "reached": one.reached} for one in figures]
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--boards", type=int, default=200, help="boards of the backlog")
    parser.add_argument("--peer", help="a Python interpreter that has ultralytics")
    parser.add_argument("--models", action="store_true", help="every network that ships, on every backend instead")
    parser.add_argument("--line", action="store_true", help="from a trigger on a serial line to its answer instead")
    parser.add_argument("--operator", action="store_true", help="starts, returns, backlogs and disk space instead")
    parser.add_argument("--api", action="store_true", help="requests to the inspection API instead")
    parser.add_argument("--weights", type=Path, help="with --models or --api: YOLO11n (.pt), which the peer exports")
    parser.add_argument("--json", type=Path, help="writes the figures there too")
    return parser.parse_args()


def measure(home: Path, pictures: list[Path], boards: int, peer: str | None) -> Iterator[Figure]:
    """Floors before and after what they are the floor of: the machine may drift in between."""
    before_ms = bare_run_ms(pictures)
    loop = backlog(home / "backlog", pictures, boards)
    after_ms = bare_run_ms(pictures)
    bare_ms = (before_ms + after_ms) / 2
    yield Figure(
        "InferenceSession.run, bare (the floor)", bare_ms, "ms", None, f"{before_ms:.1f} before, {after_ms:.1f} after"
    )
    yield Figure(
        "folder to PUBACK, a board of a backlog",
        loop.board_ms,
        "ms",
        bare_ms + LOOP_ALLOWANCE_MS,
        f"bare + {LOOP_ALLOWANCE_MS:g} ms",
    )
    yield Figure("memory at the peak", loop.peak_mb, "MB", 200.0, "200 MB")
    if peer is not None:
        theirs = ultralytics(peer, home / "peer", pictures, boards)
        yield Figure(
            "the same by ultralytics predict: a board", loop.board_ms, "ms", theirs["board_ms"], "its time, same ONNX"
        )
        yield Figure(
            "the same by ultralytics predict: memory", loop.peak_mb, "MB", theirs["peak_mb"] / 2, "half of its memory"
        )
        yield Figure(
            "start to READY, beside its first result", loop.start_s, "s", theirs["first_s"], "its first result"
        )
    starts = [start_s(home / f"start-{number}") for number in range(5)]
    yield Figure("start to READY", statistics.median(starts), "s", 1.5, "1.5 s")
    idle = quiet(home / "quiet", pictures)
    yield Figure(
        "file closed to event at a subscriber, idle",
        idle.latency_ms,
        "ms",
        bare_ms + LATENCY_ALLOWANCE_MS,
        "bare + 15 ms",
    )
    yield Figure("one core when idle", idle.core_percent, "%", 1.0, "1 %")
    yield Figure(f"{OWED} owed events after the broker comes back", owed_s(home / "owed"), "s", 2.0, "2 s")


@dataclass(frozen=True, slots=True)
class Quiet:
    latency_ms: float
    core_percent: float


def quiet(home: Path, pictures: list[Path], boards: int = 20, rest_s: float = 15.0) -> Quiet:
    """A station with nothing to do: its CPU time, and how soon it answers when a board comes now and then."""
    inbox = home / "inbox"
    with mosquitto() as port, subscriber(port) as arrivals, daemon(home, port) as (process, _):
        delays: list[float] = []
        for number in range(boards):
            content = pictures[number % len(pictures)].read_bytes()
            (inbox / f"board-{number}.jpg").write_bytes(content)
            closed_s = time.perf_counter()
            delays.append(arrivals.get(timeout=30) - closed_s)
            time.sleep(0.3)  # idle in between is what is measured here
        watched = psutil.Process(process.pid)
        before = watched.cpu_times()
        time.sleep(rest_s)
        after = watched.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    return Quiet(statistics.median(delays) * 1e3, used_s / rest_s * 100)


def show(figures: list[Figure]) -> None:
    table = Table(
        "figure",
        "measured",
        "limit",
        "",
        "against",
        title=f"{os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}",
    )
    for one in figures:
        limit = "" if one.limit is None else f"{one.limit:.2f} {one.unit}"
        mark = {None: "", True: "[green]reached[/]", False: "[red]missed[/]"}[one.reached]
        table.add_row(one.what, f"{one.value:.2f} {one.unit}", limit, mark, one.against)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
