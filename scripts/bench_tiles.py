"""
What is around the network: a big board beside its tiles, its memory, and what comes before and after a run.

    scripts/bench --models    # shows these beside the others

Each network that ships, on each runtime that is installed, on one thread and in processor time: so it does not matter
what else the machine does. A paired network is given its template in place, as registration leaves it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from bench_rig import Figure, high_water_mb
from deeppcb import grey, picture

from station.assets import ASSETS, SAMPLES
from station.detectors.backends import RUNTIMES, Runtime, has_openvino, open_network
from station.detectors.network import Floats, Network, Tensor
from station.detectors.tiles import USUAL_OVERLAP, plan
from station.detectors.yolo import NetworkDetector, Tiling
from station.memory import give_back
from station.picture import keep_to_one_core
from station.types import Defect, Grey, Image

MODELS = ("pcb-demo", "pcb-pair")
BOARD, TEMPLATE = SAMPLES / "fail-open-44000062.jpg", SAMPLES / "pass-template-44000062.jpg"
BIG_PX, BIGGER_PX = (3000, 2500), (6000, 5000)  # width, height
TIMES_ITS_TILES = 1.15
AROUND_MS = 2.0
MORE_MB = 5.0  # may a board take that is four times as large: peaks of one and the same run differ by a few
GREY_PLANES = 2  # of the whole board, which a paired network compares: of each a byte a pixel

Judge: TypeAlias = "Callable[[Image, Grey], list[Defect]]"
"""Judges a picture, which has its template beside it."""


def measure() -> Iterator[Figure]:
    """One network on one runtime after the other."""
    for runtime in RUNTIMES:
        if runtime == "openvino" and not has_openvino():
            continue
        for model in MODELS:
            yield from one(model, runtime)


def one(model: str, runtime: Runtime) -> Iterator[Figure]:
    """The figures of *model* on *runtime*."""
    name = f"{model} on {runtime}"
    keep_to_one_core(yes=True)
    times, tiles = times_its_tiles(model, runtime)
    against = f"{TIMES_ITS_TILES:g} x the sum of its {tiles} tiles, each alone"
    yield Figure(f"{name}: a board of {_size(BIG_PX)}", times, "x", TIMES_ITS_TILES, against)
    yield Figure(
        f"{name}: preprocessing and decoding", around_ms(model, runtime), "ms", AROUND_MS, f"{AROUND_MS:g} ms an image"
    )
    more_mb = peak_mb(model, runtime, BIGGER_PX) - peak_mb(model, runtime, BIG_PX)
    what = f"{name}: memory, {_size(BIGGER_PX)} less {_size(BIG_PX)}, without the pictures"
    planes_mb = GREY_PLANES * (np.prod(BIGGER_PX) - np.prod(BIG_PX)) / 2**20
    kept = f"; {planes_mb:.1f} MB are its {GREY_PLANES} grey planes" if model == "pcb-pair" else ""
    yield Figure(what, more_mb, "MB", MORE_MB, f"bounded by the batch, not by the board{kept}")


def times_its_tiles(model: str, runtime: Runtime, rounds: int = 5) -> tuple[float, int]:
    """How much longer a big board takes than all its tiles, each judged as a picture of its own; and how many."""
    network = open_network(ASSETS / f"{model}.onnx", backend=runtime, threads=1)
    judge = judge_of(network)
    board, template = repeated(picture(BOARD), BIG_PX), repeated(grey(TEMPLATE), BIG_PX)
    size = (network.input.height_px, network.input.width_px)
    windows = plan(*board.shape[:2], tile_px=size, overlap_px=round(min(size) * USUAL_OVERLAP))
    tiles = [(np.ascontiguousarray(one.of(board)), np.ascontiguousarray(one.of(template))) for one in windows]
    judge(board, template)
    ratios: list[float] = []
    for _ in range(rounds):
        began_s = time.process_time()
        for tile, its_template in tiles:
            judge(tile, its_template)
        alone_s = time.process_time() - began_s
        began_s = time.process_time()
        judge(board, template)
        ratios.append((time.process_time() - began_s) / alone_s)
    return statistics.median(ratios), len(tiles)


def around_ms(model: str, runtime: Runtime, runs: int = 100) -> float:
    """The median of all that judging one picture takes besides the network's own run."""
    network = Clocked(open_network(ASSETS / f"{model}.onnx", backend=runtime, threads=1))
    judge = judge_of(cast("Network", network))
    board, template = picture(BOARD), grey(TEMPLATE)
    times: list[float] = []
    for _ in range(runs + 5):
        network.ran_s = 0.0
        began_s = time.thread_time()
        judge(board, template)
        times.append(time.thread_time() - began_s - network.ran_s)
    return statistics.median(times[5:]) * 1e3


class Clocked:
    """A network that says how much of this thread's time it took."""

    def __init__(self, network: Network) -> None:
        self.ran_s = 0.0
        self._network = network

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def run(self, tensor: Tensor, *, half: bool = False) -> Floats:
        began_s = time.thread_time()
        output = self._network.run(tensor, half=half)
        self.ran_s += time.thread_time() - began_s
        return output


def peak_mb(model: str, runtime: Runtime, size_px: tuple[int, int]) -> float:
    """The most memory that a process of its own takes while it judges a board of that size, without the pictures."""
    command = [sys.executable, __file__, model, runtime, *map(str, size_px)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def judge_of(network: Network) -> Judge:
    """What the station judges with, on *network*; a template is looked at only by one that compares."""
    detector = NetworkDetector(network, name="bench", confidence=0.25, iou=0.45, tiling=Tiling())
    if detector.paired:
        return detector.detect_beside
    return lambda board, _: detector.detect(board)


def repeated(small: Image, size_px: tuple[int, int]) -> Image:
    """*small* again and again, until it fills a picture of that width and height; nothing else is allocated."""
    width_px, height_px = size_px
    big = np.empty((height_px, width_px, *small.shape[2:]), np.uint8)
    for y in range(0, height_px, small.shape[0]):
        for x in range(0, width_px, small.shape[1]):
            big[y : y + small.shape[0], x : x + small.shape[1]] = small[: height_px - y, : width_px - x]
    return big


def _size(size_px: tuple[int, int]) -> str:
    return f"{size_px[0]} x {size_px[1]}"


def _judge_and_tell(model: str, runtime: Runtime, size_px: tuple[int, int]) -> None:
    """Prints what judging takes at its peak; what loading took before does not count, nor do the pictures."""
    keep_to_one_core(yes=True)
    judge = judge_of(open_network(ASSETS / f"{model}.onnx", backend=runtime, threads=1))
    board, template = repeated(picture(BOARD), size_px), repeated(grey(TEMPLATE), size_px)
    judge(picture(BOARD), grey(TEMPLATE))
    give_back()
    Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is measured (proc(5))
    for _ in range(3):
        judge(board, template)
    print(high_water_mb(os.getpid()) - (board.nbytes + template.nbytes) / 2**20)


if __name__ == "__main__":
    wanted = cast("Runtime", sys.argv[2])
    _judge_and_tell(sys.argv[1], wanted, (int(sys.argv[3]), int(sys.argv[4])))
