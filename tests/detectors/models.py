"""Tiny ONNX networks for the tests: what they answer is known exactly."""

from __future__ import annotations

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
) -> Path:
    """A network that answers *output* whatever it sees (it adds zero times the picture's mean)."""
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    dtype = np.float16 if half else np.float32
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["answer", "nothing"], ["output0"]),
    ]
    constants = [
        numpy_helper.from_array(np.asarray(0, dtype), "zero"),
        numpy_helper.from_array(output.astype(dtype), "answer"),
    ]
    return _write(
        path, nodes, constants, list(output.shape), kind=kind, names=names, task=task, size=size, inputs=inputs
    )


def save_seeing(path: Path, *, size: tuple[int, int] = (64, 64)) -> Path:
    """
    An end-to-end network of one row whose score is the mean of the red channel, and whose x1 is that of the blue one.

    So it shows which channel comes first, and that 255 becomes 1.
    """
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),  # 1 x 3: R, G, B
        helper.make_node("MatMul", ["means", "weights"], ["row"]),
        helper.make_node("Add", ["row", "corner"], ["moved"]),
        helper.make_node("Unsqueeze", ["moved", "axis"], ["output0"]),
    ]
    weights = np.zeros((3, 6), np.float32)
    weights[0, 4] = 1.0
    weights[2, 0] = 10.0
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.asarray([[0, 0, 20, 20, 0, 0]], np.float32), "corner"),
        numpy_helper.from_array(np.asarray([1], np.int64), "axis"),
    ]
    return _write(path, nodes, constants, [1, 1, 6], kind=TensorProto.FLOAT, names=NAMES, task="detect", size=size)


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    shape: list[int],
    *,
    kind: int,
    names: str | None,
    task: str,
    size: tuple[int, int],
    inputs: int = 1,
) -> Path:
    given = [helper.make_tensor_value_info("images", kind, [1, 3, *size])]
    given += [helper.make_tensor_value_info(f"more{number}", kind, [1]) for number in range(inputs - 1)]
    graph = helper.make_graph(
        nodes, "test", given, [helper.make_tensor_value_info("output0", kind, shape)], initializer=constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    pairs = {"task": task} | ({"names": names} if names is not None else {})
    helper.set_model_props(model, pairs)
    onnx.save(model, str(path))
    return path
