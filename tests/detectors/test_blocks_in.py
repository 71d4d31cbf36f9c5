"""An int8 network that is given blocks answers as it does to planes, and any other file stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from station.assets import ASSETS
from station.detectors.blocks_in import with_blocks_in
from station.detectors.bytes_in import with_bytes_in
from tests.detectors.models import damaged


def answers(model: bytes, tensor: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: tensor})[0], np.float32)


def noise(batch: int, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """Blocks, with some number in the bytes that count for nothing."""
    shape = (batch, height_px // 2, width_px // 2, 16)
    return np.random.default_rng(width_px).integers(0, 256, shape).astype(np.uint8)


def as_planes(blocks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    batch, down, across, _ = blocks.shape
    pixels = blocks.reshape(batch, down, across, 2, 2, 4)[..., :3]
    return np.ascontiguousarray(pixels.transpose(0, 5, 1, 3, 2, 4)).reshape(batch, 3, 2 * down, 2 * across)


@pytest.mark.parametrize("name", ["pcb-demo", "pcb-pair"])
def test_the_shipped_networks_answer_blocks_with_the_same_numbers(name: str) -> None:
    by_planes = with_bytes_in((ASSETS / f"{name}.onnx").read_bytes())
    assert by_planes is not None
    by_blocks = with_blocks_in(by_planes)
    assert by_blocks is not None
    onnx.checker.check_model(onnx.load_from_string(by_blocks), full_check=True)
    picture = noise(1, 640, 640)
    assert np.array_equal(answers(by_planes, as_planes(picture)), answers(by_blocks, picture))


def network(
    *,
    kernel: tuple[int, int] = (3, 3),
    strides: tuple[int, int] = (2, 2),
    pads: tuple[int, int, int, int] = (1, 1, 1, 1),
    dilation: int = 1,
    by_itself: bool = False,
    planes: int = 3,
    group: int = 1,
    zero: int = 0,
    kind: type[Any] = np.int8,
    axis: int | None = 0,
    one_scale: bool = False,
    size: tuple[int | str, int | str] | None = (12, 8),
    many: int | str = 1,
    extra: Callable[[list[onnx.NodeProto]], None] = lambda _: None,
    told: str | None = None,
    raw: bool = True,
    noted: bool = False,
) -> bytes:
    """
    A convolution of bytes by int8 weights, as onnxruntime's quantizer writes it.

    *by_itself*: it adds by its own rule. *axis*: of the weights' scales. *size* None: the file says nothing of it.
    *many*: pictures at a time. *extra* may add steps to the graph. *told*: a further output. *raw*: how the file writes
    the weights. *noted*: it tells the shapes of what lies in between.
    """
    chance = np.random.default_rng(1)
    weights = chance.integers(-60, 60, (6, planes // group, *kernel)).astype(kind)
    scales = np.full((), 0.01, np.float32) if one_scale else chance.uniform(0.01, 0.02, 6).astype(np.float32)
    scaled = helper.make_node("DequantizeLinear", ["weights", "scales", "zeros"], ["scaled"])
    if axis is not None:
        scaled.attribute.append(helper.make_attribute("axis", axis))
    going = helper.make_node("Conv", ["picture", "scaled"], ["seen"], group=group, strides=strides)
    going.attribute.append(helper.make_attribute("dilations", [dilation, dilation]))
    going.attribute.append(helper.make_attribute(*(("auto_pad", "SAME_UPPER") if by_itself else ("pads", pads))))
    nodes = [helper.make_node("DequantizeLinear", ["images", "step", "none"], ["picture"]), scaled, going]
    extra(nodes)
    held = numpy_helper.from_array(weights, "weights")
    if not raw:
        held = helper.make_tensor("weights", held.data_type, weights.shape, weights.ravel().tolist())
    shape = None if size is None else [many, planes, *size]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["many", "planes", "high", "wide"])
            for name in ("seen", *([told] if told else []))
        ],
        initializer=[
            numpy_helper.from_array(np.asarray(1 / 255, np.float32), "step"),
            numpy_helper.from_array(np.asarray(0, np.uint8), "none"),
            held,
            numpy_helper.from_array(scales, "scales"),
            numpy_helper.from_array(np.full(scales.shape, zero, kind), "zeros"),
        ],
        value_info=[helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)] if noted else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "model",
    [
        network(),
        network(one_scale=True),
        network(one_scale=True, axis=None),
        network(noted=True),
        network(kernel=(6, 6), pads=(2, 2, 2, 2)),
        network(kernel=(6, 6), strides=(4, 4)),
        network(kernel=(4, 4), strides=(4, 4), pads=(0, 0, 0, 0)),
        network(kernel=(2, 2), pads=(0, 0, 0, 0)),
        network(kernel=(1, 5), pads=(0, 2, 0, 2)),
        network(kernel=(3, 7), strides=(2, 4), pads=(1, 3, 0, 2)),
        network(kernel=(3, 3), pads=(2, 2, 1, 1)),
    ],
    ids=[
        "scales",
        "one-scale",
        "no-axis",
        "noted",
        "yolov5",
        "four-at-a-time",
        "patches",
        "small",
        "flat",
        "uneven",
        "shifted",
    ],
)
def test_a_network_that_begins_with_a_convolution_in_even_steps_takes_blocks(model: bytes) -> None:
    changed = with_blocks_in(model)
    assert changed is not None
    onnx.checker.check_model(onnx.load_from_string(changed), full_check=True)
    picture = noise(1, 12, 8)
    expected = answers(model, as_planes(picture))
    assert answers(changed, picture) == pytest.approx(expected, abs=1e-4)
    assert np.abs(expected).max() > 1


def test_any_number_of_pictures_stays_so() -> None:
    model, pictures = network(many="many"), noise(3, 12, 8)
    changed = with_blocks_in(model)
    assert changed is not None
    assert answers(changed, pictures) == pytest.approx(answers(model, as_planes(pictures)), abs=1e-4)


def pooled(nodes: list[onnx.NodeProto]) -> None:
    nodes[2:] = [
        helper.make_node("MaxPool", ["picture"], ["pooled"], kernel_shape=[1, 1]),
        helper.make_node("Conv", ["pooled", "scaled"], ["seen"]),
    ]


@pytest.mark.parametrize(
    "other",
    [
        network(planes=6),
        network(group=3),
        network(strides=(1, 1)),
        network(strides=(2, 3)),
        network(dilation=2),
        network(by_itself=True),
        network(kernel=(1, 1), strides=(8, 8), pads=(0, 0, 0, 0)),
        network(size=("high", "wide")),
        network(size=(11, 8)),
        network(zero=1),
        network(kind=np.uint8),
        network(size=None),
        network(raw=False),
        network(extra=pooled),
        network(extra=lambda nodes: nodes.append(helper.make_node("Identity", ["picture"], ["again"]))),
        network(extra=lambda nodes: nodes.append(helper.make_node("Identity", ["images"], ["again"]))),
        network(extra=lambda nodes: nodes.append(helper.make_node("Identity", ["scaled"], ["again"]))),
        network(extra=lambda nodes: nodes.append(helper.make_node("Identity", ["weights"], ["again"]))),
        network(told="picture"),
        network(told="scaled"),
        b"",
        b"no network",
        bytes(99),
        b"\xff" * 99,
    ],
    ids=[
        "six-planes",
        "plane-by-plane",
        "one-by-one",
        "by-three",
        "dilated",
        "pads-by-itself",
        "leaves-some-out",
        "any-size",
        "half-a-block",
        "around-one",
        "unsigned",
        "no-size",
        "weights-in-numbers",
        "pooled-first",
        "picture-read-twice",
        "images-read-twice",
        "scaled-read-twice",
        "weights-read-twice",
        "picture-told",
        "weights-told",
        "empty",
        "text",
        "zeros",
        "ones",
    ],
)
def test_any_other_stays_as_it_is(other: bytes) -> None:
    changed = with_blocks_in(other)
    assert changed is None or changed == other, "a file without a graph has nothing to change"


def test_weights_whose_scales_are_by_input_stay_as_they_are() -> None:
    """There would be one scale too few."""
    by_input = onnx.load_from_string(network())
    by_input.graph.node[1].attribute[0].i = 1
    assert with_blocks_in(by_input.SerializeToString()) is None


def test_a_picture_with_a_scale_for_each_plane_stays_as_it_is() -> None:
    """There would be one scale too few."""
    each = onnx.load_from_string(network())
    (step,) = (one for one in each.graph.initializer if one.name == "step")
    step.CopyFrom(numpy_helper.from_array(np.full(3, 1 / 255, np.float32), "step"))
    (none,) = (one for one in each.graph.initializer if one.name == "none")
    none.CopyFrom(numpy_helper.from_array(np.zeros(3, np.uint8), "none"))
    each.graph.node[0].attribute.append(helper.make_attribute("axis", 1))
    assert answers(each.SerializeToString(), as_planes(noise(1, 12, 8))).size > 0
    assert with_blocks_in(each.SerializeToString()) is None


@pytest.mark.parametrize("lengths", [[0, 3, 100_000, 100_000], [6, 3, 1 << 31, 1 << 31], [0, 3, 3, 3]])
def test_weights_that_are_none_take_no_time(lengths: list[int]) -> None:
    """A damaged file of 600 bytes once took minutes."""
    without = onnx.load_from_string(network())
    (weights,) = (one for one in without.graph.initializer if one.name == "weights")
    weights.dims[:] = lengths
    weights.raw_data = b""
    assert with_blocks_in(without.SerializeToString()) is None


WHOLE = network(noted=True)


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(1, len(WHOLE)))
@settings(max_examples=300, deadline=None)
def test_damage_is_no_traceback(at: int, value: int, length: int) -> None:
    for one in damaged(WHOLE, at=at, value=value, length=length):
        changed = with_blocks_in(one)
        assert changed is None or isinstance(changed, bytes)
