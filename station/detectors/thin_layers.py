"""
Gives a network's thinnest layers the width that int8 is computed in; needs the ``quantize`` extra (onnx).

onnxruntime's quick int8 convolutions make 16 outputs at a time. One with fewer, as YOLO11n's first bottleneck with 8,
goes another way, which copies the surroundings of each pixel first: 4.5 MB for each run at 640 pixels, and 2 % more
time. With SiLU instead of ReLU it gains nothing: what is float there is larger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

WIDTH = 16


def widened(model: ModelProto) -> ModelProto:
    """
    *model* (float) with its convolutions of fewer than 16 outputs widened to 16, where a ReLU at most lies between them
    and those that read them, convolutions too.

    Who reads it weighs what is added with zero, so every answer stays the same. A model without such a convolution
    comes back as it is.
    """
    import onnx

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    users: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    shapes = {one.name: tuple(one.dims) for one in graph.initializer if len(users.get(one.name, [])) == 1}
    added = False
    for node in graph.node:
        readers = _readers(node, graph, users)
        if not readers or not {*node.input[1:], *(one.input[1] for one in readers)} <= shapes.keys():
            continue
        missing = WIDTH - shapes[node.input[1]][0]
        if missing > 0:
            for name in node.input[1:]:
                _pad(graph, name, missing, axis=0)
            for reader in readers:
                _pad(graph, reader.input[1], missing, axis=1)
            added = True
    if not added:
        return model
    del graph.value_info[:]  # the shapes that tensors had before
    onnx.checker.check_model(changed)
    return changed


def _readers(node: NodeProto, graph: GraphProto, users: dict[str, list[NodeProto]]) -> list[NodeProto]:
    """The convolutions that read *node*, a convolution too; none where anything else sees how wide it is."""
    if not _mixes(node):
        return []
    found: list[NodeProto] = []
    seen = [node.output[0]]
    for name in seen:  # which grows
        for reader in users.get(name, []):
            if _mixes(reader) and reader.input[0] == name:
                found.append(reader)
            elif reader.op_type == "Relu":
                seen.append(reader.output[0])
            else:
                return []
    return [] if any(one.name in seen for one in graph.output) else found


def _mixes(node: NodeProto) -> bool:
    """Whether it is a convolution each of whose outputs sees all of its inputs."""
    return node.op_type == "Conv" and all(one.i == 1 for one in node.attribute if one.name == "group")


def _pad(graph: GraphProto, name: str, missing: int, *, axis: int) -> None:
    """Zeros behind what there is of it along *axis*."""
    from onnx import numpy_helper

    stored = next(one for one in graph.initializer if one.name == name)
    values = numpy_helper.to_array(stored)
    margins = [(0, missing if at == axis else 0) for at in range(values.ndim)]
    stored.CopyFrom(numpy_helper.from_array(np.pad(values, margins), name))
