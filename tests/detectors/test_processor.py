"""An int8 network answers alike on old processors: those that add products of 8 bits with a loss."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from station.assets import ASSETS, SAMPLES
from station.detectors.network import Network
from station.detectors.onnx import OnnxNetwork
from station.detectors.openvino import OpenVinoNetwork
from station.detectors.preprocess import Letterbox
from station.detectors.processor import saturates
from station.picture import decode

PRECISE = "session.x64quantprecision"
MODEL = ASSETS / "pcb-demo.onnx"
FLAGS = "processor\t: 0\nmodel name\t: a processor\nflags\t\t: fpu sse4_2 avx2 {}\nbugs\t\t: none\n"


@pytest.mark.parametrize(
    ("cpuinfo", "machine", "expected"),
    [
        (FLAGS.format("avx512_vnni"), "x86_64", False),
        (FLAGS.format("avx_vnni"), "x86_64", False),
        (FLAGS.format("avx512f avx512bw"), "x86_64", True),
        (FLAGS.format(""), "x86_64", True),
        ("", "x86_64", True),
        ("processor\t: 0\nFeatures\t: fp asimd\n", "aarch64", False),
    ],
    ids=["ice-lake", "alder-lake", "skylake-server", "haswell", "unknown", "jetson"],
)
def test_which_processors_add_with_a_loss(cpuinfo: str, machine: str, expected: bool) -> None:
    assert saturates(cpuinfo, machine) is expected


def scores(network: Network) -> NDArray[np.float32]:
    box, image = Letterbox(network.input), decode((SAMPLES / "fail-open-44000062.jpg").read_bytes())
    assert image is not None
    box.fill(image)
    return network.run(box.tensor)[0, 4:]


def test_where_the_processor_adds_with_a_loss_openvino_computes_in_float(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And takes nothing for its own that was compiled for int8."""
    (tmp_path / "data").mkdir()
    cache = tmp_path / "data" / "compiled"
    in_int8 = scores(OpenVinoNetwork(MODEL, threads=2, cache=cache))
    monkeypatch.setattr("station.detectors.openvino.ours_saturates", lambda: True)
    in_float = scores(OpenVinoNetwork(MODEL, threads=2, cache=cache))
    assert not np.array_equal(in_float, in_int8)
    assert np.abs(in_float - in_int8).max() < 0.1


@pytest.mark.parametrize("saturating", [True, False])
def test_onnxruntime_takes_twice_the_time_only_where_the_processor_adds_with_a_loss(
    monkeypatch: pytest.MonkeyPatch, saturating: bool
) -> None:
    """It does what it is told to on any processor: told so everywhere, stations would be half as fast."""
    monkeypatch.setattr("station.detectors.onnx.ours_saturates", lambda: saturating)
    told = ""
    with contextlib.suppress(RuntimeError):  # it was never told anything
        told = OnnxNetwork(MODEL, threads=1)._session.get_session_options().get_session_config_entry(PRECISE)
    assert told == ("1" if saturating else "")


ON_ANOTHER = """
import sys
sys.path[:0] = sys.argv[2].split(":")
import numpy as np
from station.detectors import onnx, openvino
openvino.ours_saturates = onnx.ours_saturates = lambda: True  # the emulator shows the host's /proc/cpuinfo
from station.detectors.onnx import OnnxNetwork
from tests.detectors.test_processor import MODEL, scores
networks = {"onnxruntime": OnnxNetwork, "openvino": openvino.OpenVinoNetwork}
np.save(sys.argv[3], scores(networks[sys.argv[1]](MODEL, threads=1)))
"""


@pytest.mark.long
@pytest.mark.parametrize("processor", ["IvyBridge-v2", "Haswell-v4", "Skylake-Server-v5"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_on_an_old_processor_the_same_is_found(tmp_path: Path, backend: str, processor: str) -> None:
    """On one that is emulated. Without care onnxruntime finds a third there, and OpenVINO a tenth."""
    emulator = shutil.which("qemu-x86_64")
    assert emulator, "apt install qemu-user"
    python, answer = os.path.realpath(sys.executable), tmp_path / "answer.npy"
    paths = ":".join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    subprocess.run([emulator, "-cpu", processor, python, "-c", ON_ANOTHER, backend, paths, answer], check=True)
    expected, found = scores(OnnxNetwork(MODEL, threads=2)), np.load(answer)
    assert np.abs(expected - found).max() < 0.1
    assert abs(int((expected > 0.5).sum()) - int((found > 0.5).sum())) <= 2
