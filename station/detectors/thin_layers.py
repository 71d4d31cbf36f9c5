"""
Gives a network's thinnest layers the width that int8 is computed in; needs the ``quantize`` extra (onnx).

onnxruntime's quick int8 convolutions make 16 outputs at a time. One with fewer, as YOLO11n's first bottleneck with 8,
goes another way, which copies the surroundings of each pixel first: 4.5 MB for each run at 640 pixels, and 2 % more
time. With SiLU instead of ReLU it gains nothing: what is float there is larger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

WIDTH = 16
_STANDARD = frozenset({"", "ai.onnx"})


def widened(model: ModelProto, *, but: Collection[str]) -> ModelProto:
    """
    *model* (float) with its convolutions of 2 to 15 outputs widened to 16, where a ReLU at most lies between them and
    those that read them, convolutions too. None whose name is in *but*: what stays float gains nothing.

    Who reads it weighs what is added with zero, so every answer stays the same, but for a float's last digit. A model
    without such a convolution comes back as it is, and so does one with graphs or functions of its own within.
    """
    import onnx

    if model.functions or any(one.HasField("g") or one.graphs for node in model.graph.node for one in node.attribute):
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    weights = _own(graph)
    stale: set[str] = set()
    for node in graph.node:
        behind, readers = _behind(node, graph)
        touched = {*node.input[1:], *(one.input[1] for one in readers)}
        if not readers or not touched <= weights.keys() or {node.name, *(one.name for one in readers)} & {*but}:
            continue
        outputs = weights[node.input[1]]
        if 1 < outputs < WIDTH:
            for name in node.input[1:]:
                _pad(graph, name, WIDTH - outputs, axis=0)
            for reader in readers:
                _pad(graph, reader.input[1], WIDTH - outputs, axis=1)
            stale |= behind
    if not stale:
        return model
    kept = [one for one in graph.value_info if one.name not in stale]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    return changed


def _own(graph: GraphProto) -> dict[str, int]:
    """The first dimension of each constant that is stored once, read once, and given neither in nor out."""
    stored = Counter(one.name for one in graph.initializer)
    read = Counter(name for node in graph.node for name in node.input)
    outside = {one.name for one in (*graph.input, *graph.output)}
    return {
        one.name: int(one.dims[0])
        for one in graph.initializer
        if one.dims and stored[one.name] == read[one.name] == 1 and one.name not in outside
    }


def _behind(node: NodeProto, graph: GraphProto) -> tuple[set[str], list[NodeProto]]:
    """The tensors between *node* and those that read it, all convolutions; none where others see how wide it is."""
    if not _mixes(node):
        return set(), []
    outputs = {one.name for one in graph.output}
    found: list[NodeProto] = []
    seen = [node.output[0]]
    for name in seen:  # which grows
        for reader in graph.node:
            if name not in reader.input:
                continue
            if _mixes(reader) and name not in reader.input[1:]:
                found.append(reader)
            elif reader.op_type == "Relu" and reader.domain in _STANDARD:
                seen.append(reader.output[0])
            else:
                return set(), []
    return ({*seen}, found) if not outputs & {*seen} else (set(), [])


def _mixes(node: NodeProto) -> bool:
    """Whether it is a convolution each of whose outputs sees all of its inputs."""
    grouped = any(one.i != 1 for one in node.attribute if one.name == "group")
    return node.op_type == "Conv" and node.domain in _STANDARD and not grouped


def _pad(graph: GraphProto, name: str, missing: int, *, axis: int) -> None:
    """Zeros behind what there is of it along *axis*."""
    from onnx import numpy_helper

    stored = next(one for one in graph.initializer if one.name == name)
    values = numpy_helper.to_array(stored)
    margins = [(0, missing if at == axis else 0) for at in range(values.ndim)]
    stored.CopyFrom(numpy_helper.from_array(np.pad(values, margins), name))
