"""
Pads a network's thinnest layers to the width in which int8 is computed; needs the ``quantize`` extra (onnx).

onnxruntime's fast int8 convolutions make 16 outputs at a time. One with fewer, such as YOLO11n's first bottleneck with
8, takes another path, which copies the surroundings of each pixel first: 4.5 MB for each run at 640 pixels, and 2 %
more time. With SiLU instead of ReLU nothing is gained: what is float there is larger.
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
    Widens float convolutions of 2 to 15 outputs to 16, where nothing but ReLUs lies between them and the convolutions
    that read them.

    The added outputs get zero weights downstream, so results are the same up to float rounding. Skips nodes named in
    *but*, and nodes whose outputs these read: what stays float gains nothing. A model without such a convolution is
    returned as it is, and so is one with subgraphs or functions.
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
    """The tensors between *node* and the convolutions that read it, and these; none where anything else reads it."""
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
