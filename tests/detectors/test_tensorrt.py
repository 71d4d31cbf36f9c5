"""TensorRT's engine cache: it is keyed by all that an engine fits, and what does not fit is made anew."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import structlog

from station.detectors.onnx import OnnxNetwork
from station.detectors.tensorrt import TENSORRT, Engines
from tests.detectors.models import save
from tests.detectors.outputs import V8

CARD = "NVIDIA A2, 550.54.15, 8.6"


def engines(folder: Path | None, *, device: str = CARD, sha256: str = "ab" * 32) -> Engines:
    return Engines(folder, sha256, ask=lambda: device)


def kept_in(made: Engines) -> Path:
    configured = made.configured(TENSORRT)
    assert isinstance(configured, tuple)
    options = configured[1]
    assert options["trt_engine_cache_enable"] == "True"
    assert options["trt_timing_cache_path"] == options["trt_engine_cache_path"]
    return Path(options["trt_engine_cache_path"])


def test_engines_are_kept_apart_by_device_driver_and_model(tmp_path: Path) -> None:
    places = {
        kept_in(engines(tmp_path)),
        kept_in(engines(tmp_path, device="NVIDIA A2, 560.00, 8.6")),
        kept_in(engines(tmp_path, device="NVIDIA L4, 550.54.15, 8.9")),
        kept_in(engines(tmp_path, sha256="cd" * 32)),
    }
    assert len(places) == 4
    assert kept_in(engines(tmp_path)) in places
    assert all(one.is_dir() and one.parent == tmp_path for one in places)


def test_other_providers_are_given_as_they_are(tmp_path: Path) -> None:
    assert engines(tmp_path).configured("CUDAExecutionProvider") == "CUDAExecutionProvider"


@pytest.mark.parametrize("device", ["", CARD])
def test_nothing_is_kept_where_there_is_no_folder_or_no_device_to_ask(tmp_path: Path, device: str) -> None:
    assert engines(tmp_path, device="").configured(TENSORRT) == TENSORRT
    assert engines(None, device=device).configured(TENSORRT) == TENSORRT


def test_a_folder_that_cannot_be_made_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert engines(tmp_path / "file").configured(TENSORRT) == TENSORRT


def test_what_does_not_fit_is_discarded_once(tmp_path: Path) -> None:
    made = engines(tmp_path)
    assert not made.discard(), "nothing was asked for"
    folder = kept_in(made)
    assert not made.discard(), "nothing is kept"
    (folder / "an.engine").write_bytes(b"of another TensorRT")
    assert made.discard()
    assert not folder.exists()
    kept_in(made)
    (folder / "an.engine").write_bytes(b"made anew")
    assert not made.discard(), "it is not the cache, then"


def test_an_engine_that_does_not_load_is_made_anew_before_the_gpu_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = onnxruntime.InferenceSession
    tried: list[list[str]] = []
    monkeypatch.setattr("station.detectors.onnx.Engines", lambda folder, sha256: engines(folder, sha256=sha256))

    def session(path: str, options: object, *, providers: list[object], enable_fallback: int) -> object:
        first = providers[0]
        if not isinstance(first, tuple):
            return real(path, options, providers=providers, enable_fallback=enable_fallback)
        folder = Path(first[1]["trt_engine_cache_path"])
        tried.append([one.name for one in folder.iterdir()])
        (folder / "an.engine").touch()
        raise RuntimeError("engine deserialization failed")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with structlog.testing.capture_logs() as logs:
        network = OnnxNetwork(save(tmp_path / "m.onnx", V8), threads=1, engines=tmp_path / "engines")
    assert network.provider == "CPUExecutionProvider"
    assert tried == [[], []], "the second time it was empty again"
    assert [one["event"] for one in logs] == ["engine cache discarded", "provider not usable"]
