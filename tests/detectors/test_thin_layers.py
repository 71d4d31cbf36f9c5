"""A thin layer is widened where nobody sees it, and the answers stay the same bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from station.detectors.quantize import quantize
from station.detectors.thin_layers import WIDTH, widened

Weights = dict[str, tuple[int, ...]]


def model(nodes: list[onnx.NodeProto], weights: Weights, *outputs: str) -> onnx.ModelProto:
    """1 x 3 x 16 x 16 in, *nodes* named by what they make, ``last`` and *outputs* out."""
    rng = np.random.default_rng(0)
    constants = [
        numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name) for name, shape in weights.items()
    ]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [*"bcij"]) for name in ("last", *outputs)]
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 16, 16])
    graph = helper.make_graph(nodes, "test", [given], made, initializer=constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def conv(given: str, made: str, weights: str, bias: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", [given, weights, *([bias] if bias else [])], [made], name=made, **attributes)


def node(kind: str, given: str, made: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, given.split(), [made], name=made, **attributes)


THIN: Weights = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (32, 8, 1, 1), "w3": (4, 8, 1, 1), "w4": (5, 36, 1, 1)}


def thin() -> onnx.ModelProto:
    """8 outputs, which two convolutions read; one of them is itself too thin, but seen by a concatenation."""
    nodes = [
        conv("images", "a", "w1", "b1"),
        node("Relu", "a", "b"),
        conv("b", "c", "w2"),
        conv("b", "side", "w3"),
        node("Concat", "c side", "d", axis=1),
        conv("d", "last", "w4"),
    ]
    return model(nodes, THIN)


def answers(one: onnx.ModelProto | Path, given: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    content = one.read_bytes() if isinstance(one, Path) else one.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [np.asarray(answer) for answer in session.run(None, {"images": given})]


def shapes(one: onnx.ModelProto) -> Weights:
    return {stored.name: tuple(stored.dims) for stored in one.graph.initializer}


def pictures(count: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    return [rng.random((1, 3, 16, 16), np.float32) for _ in range(count)]


def test_a_thin_layer_that_only_convolutions_read_becomes_16_wide_and_nothing_else_does() -> None:
    original = thin()
    changed = widened(original, but=())
    wide = {"w1": (WIDTH, 3, 3, 3), "b1": (WIDTH,), "w2": (32, WIDTH, 1, 1), "w3": (4, WIDTH, 1, 1)}
    assert shapes(changed) == {**THIN, **wide}
    assert shapes(original) == THIN
    for given in pictures(3):
        for before, after in zip(answers(original, given), answers(changed, given), strict=True):
            np.testing.assert_allclose(after, before, atol=1e-6)  # float sums, in another order


def test_in_int8_the_answers_are_the_same_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(thin(), str(tmp_path / "m.onnx"))
    quantize(tmp_path / "m.onnx", tmp_path / "wide.onnx", calibration=iter(pictures(16)))
    monkeypatch.setattr("station.detectors.quantize.widened", lambda model, **_others: model)
    quantize(tmp_path / "m.onnx", tmp_path / "thin.onnx", calibration=iter(pictures(16)))
    stored = [shapes(onnx.load(tmp_path / name))["w1_quantized"] for name in ("wide.onnx", "thin.onnx")]
    assert stored == [(WIDTH, 3, 3, 3), (8, 3, 3, 3)]
    for given in pictures(3):
        wide, narrow = answers(tmp_path / "wide.onnx", given), answers(tmp_path / "thin.onnx", given)
        for one, other in zip(wide, narrow, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ([conv("images", "a", "w1"), node("Concat", "a images", "b", axis=1), conv("b", "last", "w2")], (8, 11)),
        ([conv("images", "a", "w1"), conv("a", "last", "w2", group=8)], (8, 1)),
        ([conv("images", "a", "w1"), conv("a", "last", "w2"), conv("images", "x", "w1")], (8, 8)),
        ([conv("images", "a", "w1"), node("Identity", "w2", "w"), conv("a", "last", "w")], (8, 8)),
        ([conv("images", "a", "w1"), conv("a", "last", "w2")], (16, 16)),
        ([conv("images", "a", "w1"), conv("a", "last", "w2")], (1, 1)),
    ],
    ids=["concatenated", "each channel by itself", "weights of two", "weights that are made", "wide enough", "a sum"],
)
def test_what_it_cannot_widen_stays_as_it_is(nodes: list[onnx.NodeProto], weights: tuple[int, int]) -> None:
    outputs, inputs = weights
    one = model(nodes, {"w1": (outputs, 3, 1, 1), "w2": (8, inputs, 1, 1)})
    assert widened(one, but=()) is one


def plain(*outputs: str) -> onnx.ModelProto:
    nodes = [conv("images", "a", "w1"), conv("a", "last", "w2")]
    return model(nodes, {"w1": (8, 3, 1, 1), "w2": (8, 8, 1, 1)}, *outputs)


def test_what_the_network_gives_out_or_takes_in_stays_as_it_is() -> None:
    assert shapes(widened(plain(), but=()))["w1"][0] == WIDTH
    for one in (plain("a"), plain("w1")):
        assert widened(one, but=()) is one
    old = plain()  # whose constants may be given anew: torch's keep_initializers_as_inputs
    old.graph.input.extend([helper.make_tensor_value_info("w1", TensorProto.FLOAT, [8, 3, 1, 1])])
    assert widened(old, but=()) is old


def test_what_stays_float_is_not_widened() -> None:
    for name in ("a", "last"):
        assert widened(plain(), but={name}).graph.initializer[0].dims[0] == 8


def test_a_graph_within_may_read_anything_so_nothing_is_widened() -> None:
    one = plain()
    inner = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["y"])],
        "inner",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*"bcij"])],
    )
    one.graph.initializer.append(numpy_helper.from_array(np.asarray(True), "yes"))
    one.graph.node.append(helper.make_node("If", ["yes"], ["z"], then_branch=inner, else_branch=inner))
    assert widened(one, but=()) is one


def test_shapes_that_are_still_true_are_kept() -> None:
    one = plain()
    for name, channels in (("a", 8), ("last", 8)):
        told = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 16, 16])
        one.graph.value_info.append(told)
    assert [told.name for told in widened(one, but=()).graph.value_info] == ["last"]


def test_a_float_tail_of_single_outputs_stays_float(tmp_path: Path) -> None:
    """Widened first, it was no longer known for the sum over a distribution, and became int8."""
    nodes = [
        conv("images", "body", "w1"),
        conv("body", "one", "w2"),
        node("Relu", "one", "relu"),
        conv("relu", "last", "w3"),
    ]
    weights: Weights = {"w1": (20, 3, 1, 1), "w2": (1, 20, 1, 1), "w3": (1, 1, 1, 1)}
    onnx.save(model(nodes, weights), str(tmp_path / "m.onnx"))
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", calibration=iter(pictures(16)))
    given = pictures(1)[0]
    (before,), (after,) = answers(onnx.load(tmp_path / "m.onnx"), given), answers(tmp_path / "q.onnx", given)
    np.testing.assert_array_equal(after, before)
