"""An int8 model sees what the float one sees, and what cannot be quantised is refused with what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from station.detectors.onnx import OnnxNetwork
from station.detectors.quantize import FEWEST, quantize, tail
from station.errors import ModelError
from tests.detectors.models import NAMES, save_seeing


def network(path: Path, *, opset: int = 17, kind: int = TensorProto.FLOAT) -> Path:
    """A little of a detector: a backbone of two convolutions, a head of one, and a sum over a distribution as one."""
    rng = np.random.default_rng(0)
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(dtype), name)

    nodes = [
        helper.make_node("Conv", ["images", "w1"], ["a"], name="first", strides=[8, 8]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="second"),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w3"], ["e"], name="head"),
        helper.make_node("Softmax", ["e"], ["f"], name="softmax", axis=1),
        helper.make_node("Conv", ["f", "w4"], ["g"], name="dfl"),
        helper.make_node("Sigmoid", ["e"], ["h"], name="sigmoid"),
        helper.make_node("Concat", ["g", "h"], ["i"], name="concat", axis=1),
        helper.make_node("Reshape", ["i", "shape"], ["output0"], name="reshape"),
    ]
    constants = [weights("w1", 8, 3, 8, 8), weights("w2", 8, 8, 1, 1), weights("w3", 5, 8, 1, 1)]
    constants += [weights("w4", 1, 5, 1, 1), numpy_helper.from_array(np.asarray([1, 6, 64], np.int64), "shape")]
    given = helper.make_tensor_value_info("images", kind, [1, 3, 64, 64])
    made = helper.make_tensor_value_info("output0", kind, [1, 6, 64])
    graph = helper.make_graph(nodes, "test", [given], [made], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, {"task": "detect", "names": NAMES, "station.input": "pair"})
    onnx.save(model, str(path))
    return path


def half_inside(path: Path) -> Path:
    """The network as an export with half=True has it: float from outside, and cast to float16 and back."""
    model = onnx.load(network(path, kind=TensorProto.FLOAT16))
    graph = model.graph
    for outer in (*graph.input, *graph.output):
        outer.type.tensor_type.elem_type = TensorProto.FLOAT
    graph.node[0].input[0], graph.node[-1].output[0] = "halved", "half"
    graph.node.insert(0, helper.make_node("Cast", ["images"], ["halved"], to=TensorProto.FLOAT16))
    graph.node.append(helper.make_node("Cast", ["half"], ["output0"], to=TensorProto.FLOAT))
    onnx.save(model, str(path))
    return path


def pictures(count: int = 16) -> Iterator[NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield rng.random((1, 3, 64, 64), np.float32)


def test_the_int8_copy_answers_like_the_original_and_keeps_what_it_says_of_itself(tmp_path: Path) -> None:
    original = network(tmp_path / "m.onnx")
    quantize(original, tmp_path / "q.onnx", calibration=pictures())
    before, after = OnnxNetwork(original, threads=1), OnnxNetwork(tmp_path / "q.onnx", threads=1)
    seen = next(pictures(1))
    assert np.abs(before.run(seen).copy() - after.run(seen)).max() < 0.05
    assert (after.labels, after.metadata["station.input"]) == (before.labels, "pair")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.onnx", "q.onnx"]


def test_the_backbone_becomes_int8_and_the_end_stays_float(tmp_path: Path) -> None:
    quantize(network(tmp_path / "m.onnx"), tmp_path / "q.onnx", calibration=pictures())
    graph = onnx.load(tmp_path / "q.onnx").graph
    stored = {one.name: one.data_type for one in graph.initializer}
    assert "w3" in stored
    assert stored["w3"] == TensorProto.FLOAT
    assert {name: stored[name] for name in ("w1_quantized", "w2_quantized")} == {
        "w1_quantized": TensorProto.INT8,
        "w2_quantized": TensorProto.INT8,
    }


def test_the_end_of_a_network_is_found_past_a_sum_over_a_distribution(tmp_path: Path) -> None:
    graph = onnx.load(network(tmp_path / "m.onnx")).graph
    assert tail(graph) == {"reshape", "concat", "sigmoid", "dfl", "softmax", "head"}


def test_what_cannot_be_quantised_says_what_to_do(tmp_path: Path) -> None:
    good, target = network(tmp_path / "m.onnx"), tmp_path / "q.onnx"
    (tmp_path / "text.onnx").write_text("no network")
    half = network(tmp_path / "half.onnx", kind=TensorProto.FLOAT16)
    cases = [
        (tmp_path / "nowhere.onnx", 16, "cannot be read"),
        (tmp_path / "text.onnx", 16, "cannot be read"),
        (save_seeing(tmp_path / "tiny.onnx"), 16, "no convolutions"),
        (half, 16, "half=False"),
        (half_inside(tmp_path / "inside.onnx"), 16, "not a float32 model: export it with half=False"),
        (network(tmp_path / "old.onnx", opset=12), 16, "opset=17"),
        (good, 0, "0 pictures are too few"),
        (good, FEWEST - 1, "too few"),
    ]
    for model, count, words in cases:
        with pytest.raises(ModelError, match=words):
            quantize(model, target, calibration=pictures(count))
        assert not target.exists()
    quantize(good, target, calibration=pictures())
    with pytest.raises(ModelError, match="quantised already"):
        quantize(target, tmp_path / "again.onnx", calibration=pictures())


def test_what_is_wrong_is_said_and_not_that_there_were_few_pictures(tmp_path: Path) -> None:
    odd = (np.zeros((1, 3, 7, 7, 7), np.float32) for _ in range(16))
    with pytest.raises(ModelError, match="cannot be quantised: "):
        quantize(network(tmp_path / "m.onnx"), tmp_path / "q.onnx", calibration=odd)


def test_without_onnx_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match=r"bin/pip install 'onnx"):
        quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", calibration=pictures())
