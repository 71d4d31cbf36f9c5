"""What scripts/bench_tiles.py measures with: pictures of any size, and a network that says how long it ran."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from bench_tiles import Clocked, around_ms, judge_of, peak_mb, repeated

from station.detectors.backends import open_network
from tests.detectors.models import save
from tests.detectors.outputs import V8


def test_a_picture_is_repeated_until_it_fills_the_size() -> None:
    small = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    big = repeated(small, (5, 3))
    assert big.shape == (3, 5, 3)
    assert (big[:2, :2] == small).all()
    assert (big[2, 4] == small[0, 0]).all()
    assert repeated(small[..., 0], (3, 3)).tolist() == [[0, 3, 0], [6, 9, 6], [0, 3, 0]]


def test_what_the_network_takes_is_told_apart(tmp_path: Path) -> None:
    network = Clocked(open_network(save(tmp_path / "m.onnx", V8), backend="onnxruntime", threads=1))
    assert network.input.height_px == 64
    began_s = time.thread_time()
    network.run(np.zeros((1, 3, 64, 64), np.float32))
    assert 0 < network.ran_s <= time.thread_time() - began_s


def test_the_judge_cuts_a_big_picture(tmp_path: Path) -> None:
    judge = judge_of(open_network(save(tmp_path / "m.onnx", V8), backend="onnxruntime", threads=1))
    board = np.full((160, 160, 3), 114, np.uint8)
    assert len(judge(board, board[..., 0])) > len(judge(board[:64, :64], board[:64, :64, 0]))


def test_what_is_around_the_run_of_a_network_takes_time_of_its_own() -> None:
    assert around_ms("pcb-demo", "onnxruntime", runs=5) > 0


def test_memory_is_bounded_by_the_batch_and_not_by_the_board() -> None:
    small, large = (peak_mb("pcb-demo", "onnxruntime", size_px) for size_px in ((1280, 640), (2560, 1280)))
    assert 0 < small < 400
    assert abs(large - small) < 5
