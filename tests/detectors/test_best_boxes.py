"""Only the best candidates get boxes: the same numbers as before, and nothing happens to a head of another kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from station.detectors.best_boxes import MOST, keep_best
from station.detectors.quantize import quantize

CLASSES, DISTANCES, GRID_PX, CELLS = 3, 4, 8, 40
CANDIDATES = CELLS * CELLS


def head(
    *, opset: int = 17, as_nodes: bool = False, merged: bool = False, last: str = "Sigmoid", softmax: str = "Softmax"
) -> onnx.ModelProto:
    """
    The head of a YOLO11 in small, as ultralytics exports it: one grid, three classes, four distances a side.

    *as_nodes*: numbers are nodes, as in an export that nobody simplified. *merged*: as in one that was, where a single
    grid is made into a list and into sides in one step.
    """
    rng = np.random.default_rng(0)
    numbers: dict[str, NDArray[np.float32] | NDArray[np.int64]] = {
        "w": rng.normal(0, 0.5, (4 * DISTANCES + CLASSES, 3, GRID_PX, GRID_PX)).astype(np.float32),
        "dfl": np.arange(DISTANCES, dtype=np.float32).reshape(1, DISTANCES, 1, 1),
        "parts": np.array([4 * DISTANCES, CLASSES], np.int64),
        "flat": np.array([1, -1, CANDIDATES], np.int64),
        "sides": np.array([1, 4, DISTANCES, CANDIDATES], np.int64),
        "four": np.array([1, 4, CANDIDATES], np.int64),
        "zero": np.array([0], np.int64),
        "two": np.array([2], np.int64),
        "end": np.array([4], np.int64),
        "one": np.array([1], np.int64),
        "centres": rng.random((1, 2, CANDIDATES)).astype(np.float32) * CELLS,
        "half": np.array(2.0, np.float32),
        "strides": np.full((1, CANDIDATES), GRID_PX, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["grid"], "conv", strides=[GRID_PX, GRID_PX]),
        helper.make_node("Split", ["grid", "parts"], ["b4", "s4"], "split", axis=1),
        helper.make_node("Reshape", ["b4", "flat"], ["boxes"], "boxes"),
        helper.make_node("Reshape", ["s4", "flat"], ["scores"], "scores"),
        helper.make_node("Reshape", ["boxes", "sides"], ["b5"], "sides"),
        helper.make_node("Transpose", ["b5"], ["b6"], "transpose", perm=[0, 2, 1, 3]),
        helper.make_node(softmax, ["b6"], ["b7"], "softmax", axis=1),
        helper.make_node("Conv", ["b7", "dfl"], ["b8"], "dfl"),
        helper.make_node("Reshape", ["b8", "four"], ["b9"], "four"),
        helper.make_node("Slice", ["b9", "zero", "two", "one"], ["lt"], "lt"),
        helper.make_node("Slice", ["b9", "two", "end", "one"], ["rb"], "rb"),
        helper.make_node("Sub", ["centres", "lt"], ["x1"], "x1"),
        helper.make_node("Add", ["centres", "rb"], ["x2"], "x2"),
        helper.make_node("Add", ["x1", "x2"], ["sum"], "sum"),
        helper.make_node("Div", ["sum", "half"], ["centre"], "centre"),
        helper.make_node("Sub", ["x2", "x1"], ["size"], "size"),
        helper.make_node("Concat", ["centre", "size"], ["box"], "box", axis=1),
        helper.make_node("Mul", ["box", "strides"], ["px"], "px"),
        helper.make_node(last, ["scores"], ["probabilities"], "last"),
        helper.make_node("Concat", ["px", "probabilities"], ["output0"], "end", axis=1),
    ]
    if merged:
        nodes = [node for node in nodes if node.name != "boxes"]
        next(node for node in nodes if node.name == "sides").input[0] = "b4"
    tensors = [numpy_helper.from_array(value, name) for name, value in numbers.items()]
    if as_nodes:
        nodes = [helper.make_node("Constant", [], [one.name], one.name, value=one) for one in tensors] + nodes
    side_px = CELLS * GRID_PX
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side_px, side_px])
    made = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 4 + CLASSES, CANDIDATES])
    graph = helper.make_graph(nodes, "head", [given], [made], initializer=[] if as_nodes else tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, {"task": "detect", "names": "{0: 'open', 1: 'short', 2: 'spur'}"})
    return model


def answer(model: onnx.ModelProto) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(1).random((1, 3, CELLS * GRID_PX, CELLS * GRID_PX), np.float32)
    return np.asarray(session.run(None, {"images": picture})[0][0].T, np.float32)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("as_nodes", [False, True])
@pytest.mark.parametrize("opset", [13, 17, 18])
def test_the_best_candidates_keep_their_boxes_and_all_their_scores(opset: int, as_nodes: bool, merged: bool) -> None:
    model = head(opset=opset, as_nodes=as_nodes, merged=merged)
    changed = keep_best(model, most=50)
    before, after = answer(model), answer(changed)
    assert after.shape == (50, 4 + CLASSES)
    assert not {one.name for one in changed.graph.initializer} - {
        one for node in changed.graph.node for one in node.input
    }
    best = before[np.argsort(-before[:, 4:].max(axis=1))[:50]]
    assert len(np.unique(best[:, 0])) > 1, "boxes that differ: else any would do"
    np.testing.assert_allclose(sorted(after.tolist()), sorted(best.tolist()), rtol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(head(last="Tanh"), id="scores that are none"),
        pytest.param(head(softmax="LogSoftmax"), id="another distribution"),
    ],
)
def test_a_head_of_another_kind_stays_as_it_is(model: onnx.ModelProto) -> None:
    assert keep_best(model, most=50) is model


def test_no_more_candidates_than_that_stay_as_they_are() -> None:
    model = head()
    assert keep_best(model, most=CANDIDATES) is model


def test_what_is_quantised_gets_boxes_for_a_thousand_only(tmp_path: Path) -> None:
    onnx.save(head(), str(tmp_path / "m.onnx"))
    rng = np.random.default_rng(2)
    side_px = CELLS * GRID_PX
    quantize(
        tmp_path / "m.onnx",
        tmp_path / "q.onnx",
        calibration=(rng.random((1, 3, side_px, side_px), np.float32) for _ in range(8)),
    )
    assert answer(onnx.load(tmp_path / "q.onnx")).shape == (MOST, 4 + CLASSES)
