"""
How fast each shipped model inspects, beside its own bare run time and beside ultralytics, in one run.

    scripts/bench --models [--boards 200] [--peer PYTHON --weights yolo11n.pt]

For every network that ships and every backend that is installed: the bare run (nothing but the network, same threads),
the whole loop from folder to PUBACK with evidence of every board, the start to READY with what was compiled before, and
the accuracy of exactly that file, from its card. --weights is what ultralytics exports by itself, to ONNX (float) and
to OpenVINO, and predicts the same boards with. Then big boards, and what is around the network (bench_tiles.py).
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench_rig import Figure, Kind, backlog, start_s, ultralytics
from bench_tiles import BOARD, TEMPLATE
from bench_tiles import measure as measure_tiles
from deeppcb import grey, picture

from station.assets import ASSETS
from station.detectors.backends import RUNTIMES, Runtime, has_openvino, open_network
from station.detectors.network import Network
from station.detectors.preprocess import Letterbox

SINGLE, PAIR = "pcb-demo", "pcb-pair"
LOOP_SHARE = 0.8  # of the bare rate
TIMES_THEIR_ONNX: dict[Runtime, float] = {"openvino": 4.0, "onnxruntime": 2.2}
TIMES_THEIR_OPENVINO = 2.0


@dataclass(frozen=True, slots=True)
class Peer:
    """Milliseconds a board that ``ultralytics predict`` takes with its own exports."""

    onnx_ms: float
    openvino_ms: float


def measure(home: Path, boards: int, peer: str | None, weights: Path | None) -> Iterator[Figure]:
    """One network on one backend after the other; the peers' figures first."""
    theirs = None
    if peer is not None and weights is not None:
        theirs = Peer(
            *(
                ultralytics(peer, home / kind, [BOARD], boards, weights, kind)["board_ms"]
                for kind in ("onnx", "openvino")
            )
        )
        yield Figure("ultralytics predict, its own ONNX (float)", theirs.onnx_ms, "ms", None, rate(theirs.onnx_ms))
        yield Figure("ultralytics predict, its own OpenVINO", theirs.openvino_ms, "ms", None, rate(theirs.openvino_ms))
    for runtime in RUNTIMES:
        if runtime == "openvino" and not has_openvino():
            continue
        for model in (SINGLE, PAIR):
            yield from one(home / f"{runtime}-{model}", model, runtime, boards, theirs)
    yield from measure_tiles()


def one(home: Path, model: str, runtime: Runtime, boards: int, theirs: Peer | None) -> Iterator[Figure]:
    """The figures of *model* on *runtime*."""
    name = f"{model} on {runtime}"
    kind = Kind(model, runtime, TEMPLATE if model == PAIR else None)
    before_ms = bare_ms(model, runtime)
    loop = backlog(home, [BOARD], boards, kind)
    bare = (before_ms + bare_ms(model, runtime)) / 2
    yield Figure(f"{name}: bare", bare, "ms", None, f"{rate(bare)}; {accuracy(model)}")
    yield Figure(f"{name}: folder to PUBACK", loop.board_ms, "ms", bare / LOOP_SHARE, "80 % of the bare rate")
    if theirs is not None:
        times = TIMES_THEIR_ONNX[runtime]
        yield Figure(f"{name}: the same", loop.board_ms, "ms", theirs.onnx_ms / times, f"{times:g} x its ONNX")
        if runtime == "openvino":
            limit_ms = theirs.openvino_ms / TIMES_THEIR_OPENVINO
            yield Figure(f"{name}: the same", loop.board_ms, "ms", limit_ms, f"{TIMES_THEIR_OPENVINO:g} x its OpenVINO")
    shutil.rmtree(home / "inbox")
    starts = [start_s(home, kind) for _ in range(3)]
    yield Figure(f"{name}: start to READY, compiled before", statistics.median(starts), "s", 1.5, "1.5 s")
    yield Figure(f"{name}: memory at the peak", loop.peak_mb, "MB", None, "")


def bare_ms(model: str, runtime: Runtime, runs: int = 100) -> float:
    """The median of the network alone, its input filled once."""
    network = open_network(ASSETS / f"{model}.onnx", backend=runtime)
    box = filled(network)
    times: list[float] = []
    for _ in range(runs + 5):
        began_s = time.perf_counter()
        network.run(box.tensor)
        times.append(time.perf_counter() - began_s)
    return statistics.median(times[5:]) * 1e3


def filled(network: Network) -> Letterbox:
    box = Letterbox(network.input)
    if network.metadata.get("station.input") == "pair":
        board, template = grey(BOARD), grey(TEMPLATE)
        box.fill_planes([board, template, board ^ template])
    else:
        box.fill(picture(BOARD))
    return box


def accuracy(model: str) -> str:
    figures = json.loads((ASSETS / f"{model}.json").read_text())["figures"]
    return f"mAP33 {figures['mAP33']:.1%}, F {figures['f_score']['value']:.1%} on boards not trained on"


def rate(board_ms: float) -> str:
    return f"{1e3 / board_ms:.0f} boards/s"
