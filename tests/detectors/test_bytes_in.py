"""An int8 network that is given bytes answers as it does to floats, and any other file stays as it is."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from station.assets import ASSETS
from station.detectors.bytes_in import with_bytes_in
from station.detectors.network import Input
from station.detectors.onnx import OnnxNetwork
from station.errors import ModelError
from tests.detectors.models import damaged, save
from tests.detectors.outputs import V8


def answers(model: bytes, tensor: NDArray[np.float32 | np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: tensor})[0], np.float32)


@pytest.mark.parametrize("name", ["pcb-demo", "pcb-pair"])
def test_the_shipped_networks_answer_bytes_with_the_same_numbers(name: str) -> None:
    original = (ASSETS / f"{name}.onnx").read_bytes()
    changed = with_bytes_in(original)
    assert changed is not None
    onnx.checker.check_model(onnx.load_from_string(changed))
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, 640, 640)).astype(np.uint8)
    floats = picture.astype(np.float32) / np.float32(255)
    assert np.array_equal(answers(original, floats), answers(changed, picture))


def test_on_the_processor_a_shipped_network_takes_bytes_and_another_what_its_file_says(tmp_path: Path) -> None:
    shipped = OnnxNetwork(ASSETS / "pcb-pair.onnx", threads=2)
    shipped.halve()
    assert shipped.input == Input(1, 640, 640, np.uint8, blocks=True)
    picture = np.random.default_rng(0).integers(0, 256, shipped.input.shape()).astype(np.uint8)
    assert np.array_equal(shipped.run(picture), shipped.run(picture, half=True))
    assert OnnxNetwork(save(tmp_path / "m.onnx", V8), threads=1).input.dtype is np.float32


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8])
def test_a_file_that_takes_something_of_the_shape_of_blocks_is_refused(tmp_path: Path, kind: int) -> None:
    """It was taken for one that the station had changed, and filled with rubbish."""
    taken = helper.make_tensor_value_info("images", kind, [1, 32, 32, 16])
    given = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 6, 84])
    constant = helper.make_node("Constant", [], ["output0"], value=numpy_helper.from_array(V8))
    graph = helper.make_graph([constant], "test", [taken], [given])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"names": "{0: 'open', 1: 'short'}"})
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ModelError, match="not one colour picture"):
        OnnxNetwork(tmp_path / "odd.onnx", threads=1)


def test_where_the_change_cannot_be_loaded_the_file_itself_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("station.detectors.onnx.with_bytes_in", lambda _: b"no network")
    assert OnnxNetwork(save(tmp_path / "m.onnx", V8), threads=1).input.dtype is np.float32


def network(
    *,
    step: float = 1 / 255,
    kind: int = TensorProto.UINT8,
    zero: int = 0,
    reads_twice: bool = False,
    reader: str = "DequantizeLinear",
    raw: bool = True,
    domain: str = "",
    branches: bool = False,
    told: bool = False,
    given: int = TensorProto.FLOAT,
    functions: bool = False,
) -> bytes:
    """
    The mean of a picture, which is rounded to steps first; *raw*: how the file writes numbers. *told*: the steps are an
    output too. *branches*: a part that runs or not, and may read anything.
    """
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "step", "zero"], ["steps"], domain=domain),
        helper.make_node("DequantizeLinear", ["steps", "step", "zero"], ["rounded"]),
        helper.make_node("ReduceMean", ["rounded"], ["mean"], axes=[1, 2, 3], keepdims=0),
    ]
    if reader != "DequantizeLinear":
        nodes.insert(1, helper.make_node(reader, ["steps"], ["others"]))
    if branches:
        inner = helper.make_graph([helper.make_node("Identity", ["images"], ["seen"])], "then", [], [])
        nodes.append(helper.make_node("If", ["step"], ["either"], then_branch=inner, else_branch=inner))
    if reads_twice:
        nodes.append(helper.make_node("Identity", ["images"], ["again"]))

    def number(name: str, value: NDArray[np.generic], kind: int) -> TensorProto:
        if raw:
            return numpy_helper.from_array(value, name)
        return helper.make_tensor(name, kind, [], [value.item()])

    constants = [
        number("step", np.asarray(step, np.float32), TensorProto.FLOAT),
        number("zero", np.asarray(zero, np.uint8 if kind == TensorProto.UINT8 else np.int8), kind),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", given, [1, 3, 2, 2])],
        [
            helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1]),
            *([helper.make_tensor_value_info("steps", TensorProto.UINT8, [1, 3, 2, 2])] if told else []),
        ],
        initializer=constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if functions:
        model.functions.add(name="QuantizeLinear", domain="of.somebody")
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("raw", [True, False])
def test_a_network_that_rounds_to_bytes_first_takes_them(raw: bool) -> None:
    changed = with_bytes_in(network(raw=raw))
    assert changed is not None
    assert answers(changed, np.full((1, 3, 2, 2), 51, np.uint8)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "other",
    [
        lambda: network(step=1 / 127),
        lambda: network(step=1.001 / 255),
        lambda: network(zero=1),
        lambda: network(kind=TensorProto.INT8),
        lambda: network(reads_twice=True),
        lambda: network(reader="Identity"),
        lambda: network(domain="of.somebody"),
        lambda: network(branches=True),
        lambda: network(told=True),
        lambda: network(given=TensorProto.INT32),
        lambda: network(functions=True),
        lambda: b"",
        lambda: b"no network",
        lambda: bytes(99),
        lambda: b"\xff" * 99,
    ],
    ids=[
        "step",
        "nearly",
        "zero",
        "signed",
        "read-twice",
        "steps-read",
        "domain",
        "if",
        "told",
        "int32",
        "functions",
        "empty",
        "text",
        "zeros",
        "ones",
    ],
)
def test_any_other_stays_as_it_is(other: Callable[[], bytes]) -> None:
    changed = with_bytes_in(other())
    assert changed is None or changed == other(), "a file without a graph has nothing to change"


@pytest.mark.parametrize("damage", [bytes(20 << 20), b"\x08\x01" * (10 << 20)], ids=["zeros", "numbers"])
def test_a_file_that_a_power_cut_left_without_content_takes_neither_time_nor_memory(damage: bytes) -> None:
    """It once took 240 times its size, and half a minute."""
    tracemalloc.start()
    try:
        assert with_bytes_in(damage) is None
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def test_a_large_network_stays_as_it_is() -> None:
    """It would be held three times."""
    assert with_bytes_in(WHOLE + bytes([0x42, 0x80, 0x80, 0x80, 0x20]) + bytes(64 << 20)) is None


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning:onnxruntime")  # it is that there is no GPU
def test_where_a_gpu_does_not_load_the_halves_are_given_what_the_whole_is(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_and_processor = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("station.detectors.onnx._offered", lambda _: list(gpu_and_processor))
    with structlog.testing.capture_logs():
        network = OnnxNetwork(ASSETS / "pcb-pair.onnx", threads=2)
        network.halve()
    assert network.provider == "CPUExecutionProvider"
    picture = np.zeros(network.input.shape(), network.input.dtype)
    assert np.array_equal(network.run(picture, half=True), network.run(picture))


WHOLE = network()


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(1, len(WHOLE)))
@settings(max_examples=300, deadline=None)
def test_damage_is_no_traceback(at: int, value: int, length: int) -> None:
    for one in damaged(WHOLE, at=at, value=value, length=length):
        changed = with_bytes_in(one)
        assert changed is None or isinstance(changed, bytes)
