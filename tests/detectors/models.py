"""Tiny ONNX networks for the tests: what they answer is known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

NAMES = "{0: 'open', 1: 'short'}"


def save(
    path: Path,
    output: NDArray[np.float32],
    *,
    names: str | None = NAMES,
    task: str = "detect",
    size: tuple[int, int] = (64, 64),
    half: bool = False,
    inputs: int = 1,
    channels: int = 3,
    batch: int | str = 1,
    told_size: tuple[int, int] | tuple[str, str] | None = None,
    told_output: list[int | str] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """
    A network that answers *output* whatever it sees (it adds zero times the picture's mean).

    *told_size* and *told_output*: what the file says of its input's sides and its output's shape, names where it leaves
    them open.
    """
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    dtype = np.float16 if half else np.float32
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["answer", "nothing"], ["output0" if told_output is None else "whole"]),
    ]
    constants = [
        numpy_helper.from_array(np.asarray(0, dtype), "zero"),
        numpy_helper.from_array(output.astype(dtype), "answer"),
    ]
    if told_output is not None:  # how many columns stay is known only at run time, or onnxruntime would work it out
        nodes.append(helper.make_node("Add", ["ones", "nothing"], ["weights"]))
        nodes.append(helper.make_node("Greater", ["weights", "zero"], ["which"]))
        nodes.append(helper.make_node("Compress", ["whole", "which"], ["output0"], axis=output.ndim - 1))
        constants.append(numpy_helper.from_array(np.ones(output.shape[-1], dtype), "ones"))
    return _write(
        path,
        nodes,
        constants,
        told_output or list(output.shape),
        kind=kind,
        metadata={"task": task} | ({} if names is None else {"names": names}) | (metadata or {}),
        picture=[batch, channels, *(told_size or size)],
        inputs=inputs,
    )


def save_seeing(
    path: Path,
    *,
    size: tuple[int, int] = (64, 64),
    batch: int | str = 1,
    end_to_end: bool = True,
    metadata: dict[str, str] | None = None,
) -> Path:
    """
    An end-to-end network of two rows, of which it needs one: its score is the mean of the red channel, and its x1 that
    of the blue one. Or one as YOLOv8's: so is the centre's x.

    So it shows which channel comes first, and that 255 becomes 1.
    """
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),  # 1 x 3: R, G, B
        helper.make_node("MatMul", ["means", "weights"], ["row"]),
        helper.make_node("Add", ["row", "corner"], ["moved"]),
        helper.make_node("Unsqueeze", ["moved", "axis"], ["one"]),
        helper.make_node("Pad", ["one", "beside"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["output0"], perm=[0, 1, 2] if end_to_end else [0, 2, 1]),
    ]
    weights = np.zeros((3, 6), np.float32)
    weights[0, 4] = 1.0
    weights[2, 0] = 10.0
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.asarray([[0, 0, 20, 20, 0, 0]], np.float32), "corner"),
        numpy_helper.from_array(np.asarray([1], np.int64), "axis"),
        numpy_helper.from_array(np.asarray([0, 0, 0, 0, 1, 0], np.int64), "beside"),
    ]
    return _write(
        path,
        nodes,
        constants,
        [batch, 2, 6] if end_to_end else [batch, 6, 2],
        kind=TensorProto.FLOAT,
        metadata={"task": "detect", "names": NAMES} | (metadata or {}),
        picture=[batch, 3, *size],
    )


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    shape: Sequence[int | str],
    *,
    kind: int,
    metadata: dict[str, str],
    picture: Sequence[int | str],
    inputs: int = 1,
) -> Path:
    given = [helper.make_tensor_value_info("images", kind, picture)]
    given += [helper.make_tensor_value_info(f"more{number}", kind, [1]) for number in range(inputs - 1)]
    graph = helper.make_graph(
        nodes, "test", given, [helper.make_tensor_value_info("output0", kind, shape)], initializer=constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
    return path


def damaged(whole: bytes, *, at: int, value: int, length: int) -> tuple[bytes, bytes]:
    """The file *whole* with another byte *at* a place, and its first *length* bytes."""
    changed = bytearray(whole)
    changed[at] = value
    return bytes(changed), whole[:length]
