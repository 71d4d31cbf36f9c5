"""What computes a network: as configured, else the faster one, measured once and remembered."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import structlog

from station.detectors import backends
from station.detectors.backends import Choice, Places, choose, has_openvino, open_network
from station.detectors.network import Input, checked_file
from station.errors import ConfigError, DetectorError, ModelError
from tests.detectors.models import save
from tests.detectors.outputs import V8

NEEDS_OPENVINO = pytest.mark.skipif(not has_openvino(), reason="openvino is not installed")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "m.onnx", V8)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "data").mkdir()
    return Places.below(tmp_path / "data")


@pytest.fixture
def contests(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """No contest is held: OpenVINO wins each, and the models are noted."""
    held: list[Path] = []

    def hold(path: Path, **_: object) -> Choice:
        held.append(path)
        return Choice("openvino", {"onnxruntime": 30.0, "openvino": 15.0})

    monkeypatch.setattr(backends, "_contest", hold)
    monkeypatch.setattr(backends, "has_openvino", lambda: True)
    return held


def test_openvino_that_is_not_installed_says_how_to_install_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "has_openvino", lambda: False)
    with pytest.raises(ConfigError, match=r"bin/pip install 'openvino"):
        open_network(model, backend="openvino")


def test_auto_without_openvino_is_onnxruntime_and_measures_nothing(
    model: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "has_openvino", lambda: False)
    assert open_network(model, places=places).computed_by.startswith("onnxruntime")
    assert not places.choices.exists()


@NEEDS_OPENVINO
def test_auto_measures_both_says_what_it_chose_and_remembers_it(model: Path, places: Places) -> None:
    with structlog.testing.capture_logs() as logs:
        network = open_network(model, places=places, threads=1)
    (said,) = (one for one in logs if one["event"] == "backend chosen")
    assert set(said["run_ms"]) == {"onnxruntime", "openvino"}
    assert network.computed_by.lower().startswith(said["backend"])
    assert choose(model, places=places, threads=1) == Choice(said["backend"], said["run_ms"])


def test_what_was_chosen_is_not_measured_again(model: Path, places: Places, contests: list[Path]) -> None:
    assert choose(model, places=places) == choose(model, places=places)
    assert len(contests) == 1


@pytest.mark.parametrize("change", ["model", "threads", "version", "processor"])
def test_it_is_measured_again_for_another_model_or_machine(
    model: Path, places: Places, contests: list[Path], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    choose(model, places=places, threads=1)
    if change == "model":
        save(model, V8, metadata={"date": "tomorrow"})
    if change == "version":
        monkeypatch.setattr(backends, "_version", lambda _: "99")
    if change == "processor":
        monkeypatch.setattr("station.detectors.processor.name", lambda: "another")
    choose(model, places=places, threads=2 if change == "threads" else 1)
    assert len(contests) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"chosen": [{"key": 1}]}', b'{"chosen": 7}', b"\xff\xfe"])
def test_a_damaged_memory_is_an_empty_one(model: Path, places: Places, contests: list[Path], content: bytes) -> None:
    places.choices.write_bytes(content)
    choose(model, places=places)
    choose(model, places=places)
    assert len(contests) == 1


def test_a_memory_that_cannot_be_written_costs_only_time(model: Path, places: Places, contests: list[Path]) -> None:
    places.choices.mkdir()
    with structlog.testing.capture_logs() as logs:
        assert choose(model, places=places).runtime == "openvino"
    assert [one["event"] for one in logs] == ["backend not remembered"]
    assert len(contests) == 1


def test_the_memory_does_not_grow_for_ever(
    model: Path, places: Places, contests: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "REMEMBERED", 2)
    for threads in (1, 2, 3, 3):
        choose(model, places=places, threads=threads)
    choose(model, places=places, threads=1)
    assert len(contests) == 4


@pytest.mark.parametrize(
    ("run_ms", "winner"),
    [
        ({"onnxruntime": 30.0, "openvino": 15.0}, "openvino"),
        ({"onnxruntime": 15.0, "openvino": 30.0}, "onnxruntime"),
        ({"onnxruntime": 30.0, "openvino": 29.0}, "onnxruntime"),  # not worth a second library
        ({"onnxruntime": 30.0}, "onnxruntime"),
        ({"openvino": 30.0}, "openvino"),
        ({}, "onnxruntime"),
    ],
)
def test_the_faster_one_wins_if_it_is_clearly_so(run_ms: Mapping[str, float], winner: str) -> None:
    assert backends._winner(run_ms) == winner


class Stub:
    """A network that takes *run_ms* a run, or fails."""

    path, input = Path("m.onnx"), Input(1, 32, 32, np.uint8)

    def __init__(self, run_ms: float | None) -> None:
        self._run_ms = run_ms

    def run(self, _: object) -> None:
        if self._run_ms is None:
            raise DetectorError("the network failed: out of memory")
        time.sleep(self._run_ms / 1000)


@pytest.mark.parametrize("trouble", ["cannot be imported", "cannot load it", "fails at a run"])
def test_a_backend_that_fails_loses_and_is_tried_again_at_the_next_start(
    model: Path, places: Places, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    working = dict[str, Stub](onnxruntime=Stub(2.0), openvino=Stub(0.1))
    failing = {"cannot be imported": ConfigError("broken"), "cannot load it": ModelError("an operator")}
    broken = True

    def opened(runtime: str, *_: object, **__: object) -> object:
        if runtime == "openvino" and broken:
            if trouble in failing:
                raise failing[trouble]
            return Stub(None)
        return working[runtime]

    monkeypatch.setattr(backends, "has_openvino", lambda: True)
    monkeypatch.setattr(backends, "_open", opened)
    monkeypatch.setattr("station.detectors.onnx.offers_gpu", lambda: False)
    with structlog.testing.capture_logs() as logs:
        choice = choose(model, places=places)
    assert (choice.runtime, [*choice.run_ms]) == ("onnxruntime", ["onnxruntime"])
    assert [(one["event"], one["backend"]) for one in logs] == [("backend not usable", "openvino")]
    broken = False
    assert choose(model, places=places).runtime == "openvino"
    kept = json.loads(places.choices.read_text(), parse_constant=pytest.fail)  # Infinity is no JSON
    assert [one["backend"] for one in kept["chosen"]] == ["openvino"]


@pytest.mark.parametrize("run_ms", ['{"onnxruntime": 30.0}', '{"onnxruntime": 30.0, "openvino": Infinity}', "{}"])
def test_a_failure_that_an_older_station_remembered_is_forgotten(
    model: Path, places: Places, contests: list[Path], run_ms: str
) -> None:
    key = backends._key(checked_file(model, None), 1)
    places.choices.write_text(f'{{"chosen": [{{"key": "{key}", "backend": "onnxruntime", "run_ms": {run_ms}}}]}}')
    assert choose(model, places=places, threads=1).runtime == "openvino"
    assert len(contests) == 1


def test_a_model_that_nobody_can_load_says_why(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(999))
    with pytest.raises(ModelError, match="cannot be loaded as ONNX"):
        open_network(path)


@NEEDS_OPENVINO
def test_a_gpu_build_of_onnxruntime_is_used_without_a_contest(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("station.detectors.onnx.offers_gpu", lambda: True)
    assert choose(model) == Choice("onnxruntime", {})
