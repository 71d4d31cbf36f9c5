"""A network on onnxruntime: which provider computes it, and that nothing is said or sent beside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import structlog
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from station.detectors.network import hushed
from station.detectors.onnx import OnnxNetwork
from station.detectors.yolo import NetworkDetector
from station.errors import DetectorError, ModelError
from tests.detectors.models import save, save_seeing
from tests.detectors.outputs import V8


def detector(path: Path, *, providers: tuple[str, ...] | None = None) -> NetworkDetector:
    return NetworkDetector(OnnxNetwork(path, threads=1, providers=providers), name="m", confidence=0.25, iou=0.45)


def test_a_network_that_fails_on_a_picture_leaves_it_unjudged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = detector(save(tmp_path / "m.onnx", V8))
    found.warm_up()

    class Failing:
        def run(self, *_: object) -> None:
            raise Fail("out of GPU memory\nat line 1")

    monkeypatch.setattr(found._network, "_session", Failing())
    with pytest.raises(DetectorError, match=r"the network failed: out of GPU memory$"):
        found.detect(np.full((64, 64, 3), 114, np.uint8))


def test_halves_are_of_the_same_file_and_a_single_thread_has_none(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", V8)
    single, several = OnnxNetwork(path, threads=1), OnnxNetwork(path, threads=4)
    for network in (single, several):
        network.halve()
    assert single._half is single._session
    assert several._half is not several._session
    assert several._half.get_session_options().intra_op_num_threads == 2
    tensor = np.zeros((1, 3, 64, 64), np.float32)
    assert np.array_equal(several.run(tensor, half=True), several.run(tensor))
    halved = several._half
    several.halve()
    assert several._half is halved, "once"
    other = OnnxNetwork(path, threads=4)
    save_seeing(path)
    with pytest.raises(ModelError, match="its sha256 is not"):
        other.halve()


def test_a_provider_that_is_not_offered_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not offer NoProvider, but: .*CPUExecutionProvider"):
        detector(save(tmp_path / "m.onnx", V8), providers=("NoProvider",))


def test_a_gpu_that_does_not_work_gives_way_to_the_cpu_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = onnxruntime.InferenceSession
    offered = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    def session(path: str, options: object, *, providers: list[str], enable_fallback: int) -> object:
        if "CUDAExecutionProvider" in providers:
            raise RuntimeError("no CUDA-capable device is detected")
        return real(path, options, providers=providers, enable_fallback=enable_fallback)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with structlog.testing.capture_logs() as logs:
        found = OnnxNetwork(save(tmp_path / "m.onnx", V8))
    assert found.provider == "CPUExecutionProvider"
    assert [one["provider"] for one in logs if one["event"] == "provider not usable"] == offered[:2]
    assert capsys.readouterr().out == "", "stdout belongs to station inspect --json"


def test_native_noise_is_hushed_only_while_it_lasts(capfd: pytest.CaptureFixture[str]) -> None:
    with hushed():
        os.write(2, b"device discovery failed")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_loading_judging_and_failing_write_nothing_on_their_own(tmp_path: Path) -> None:
    good, bad = save(tmp_path / "good.onnx", V8), tmp_path / "bad.onnx"
    bad.write_bytes(bytes(999))
    code = f"""
import numpy, pathlib
from station.detectors.onnx import OnnxNetwork
from station.detectors.yolo import NetworkDetector
from station.errors import ModelError
detector = NetworkDetector(OnnxNetwork(pathlib.Path({str(good)!r})), name="m", confidence=0.25, iou=0.45)
detector.warm_up()
assert len(detector.detect(numpy.zeros((99, 99, 3), numpy.uint8))) == 2
try:
    OnnxNetwork(pathlib.Path({str(bad)!r}))
except ModelError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_onnxruntime_reports_to_nobody_and_keeps_no_database_for_it(tmp_path: Path) -> None:
    program = (
        "import numpy; from station.detectors.onnx import OnnxNetwork; from pathlib import Path; "
        f"network = OnnxNetwork(Path({str(save(tmp_path / 'm.onnx', V8))!r})); "
        "network.run(numpy.zeros((1, 3, 64, 64), numpy.float32))"
    )
    home = tmp_path / "home"
    home.mkdir()
    # It keeps quiet on CI by itself: a factory is no CI.
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    subprocess.run([sys.executable, "-c", program], env={**environment, "HOME": str(home)}, check=True, timeout=60)
    assert list(home.rglob("*")) == []
