"""
Has a YOLO head work out the boxes of its best candidates only; needs the ``quantize`` extra (onnx).

YOLOv8 to 12 describe each side of a box by a distribution over 16 distances, and take the mean of it (DFL, Li et al.
2020) for all of 8,400 candidates, of which a few hundred at most are ever looked at. On a processor that is a fifth of
the time of an int8 YOLO11n at 640 pixels. Here the best are chosen first, by their scores, which are there by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

MOST = 1000  # candidates: a defect has up to ten, and 300 detections are the most that are told of a picture
AXES_BECAME_AN_INPUT = 18  # of ReduceMax: the opset
_AT = "station.best_at"
_BEHIND_DFL = frozenset({"Reshape", "Conv", "Slice", "Sub", "Add", "Div", "Concat", "Mul", "Shape", "Gather"})


@dataclass(frozen=True, slots=True)
class _Head:
    """
    The end of a YOLO, by names of tensors: *boxes* (1 x 4R x N, or 1 x 4R x rows x columns: the distributions) and
    *scores* (1 x C x N, before the sigmoid); *after* is what is made of them, up to the output.
    """

    boxes: str
    scores: str
    candidates: int
    after: frozenset[str]


def keep_best(model: ModelProto, *, most: int = MOST) -> ModelProto:
    """
    *model* with an output of 1 x (4 + C) x *most*: the columns of the best candidates, by their best class.

    They are the same numbers as before, in another order. A model with another end, or with no more candidates, comes
    back as it is.
    """
    import onnx
    from onnx import helper, numpy_helper

    head = _head_of(model.graph)
    if head is None or head.candidates <= most:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    constants = _constants(graph)

    def constant(name: str, values: list[int]) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def gather(name: str, *, axis: int, whole: str | None = None) -> NodeProto:
        return helper.make_node("Gather", [whole or name, _AT], [f"{name}.best"], f"station.gather.{name}", axis=axis)

    best, at, boxes = "station.best", "station.best_at_in_rows", "station.boxes"
    inserted = [
        _maximum(
            head.scores, best, axes=None if _opset(model) < AXES_BECAME_AN_INPUT else constant("station.axes", [1])
        ),
        helper.make_node("TopK", [best, constant("station.most", [most])], ["station.best_scores", at], "station.top"),
        helper.make_node("Reshape", [at, constant("station.flat", [-1])], [_AT], "station.at"),
        # A head of one grid comes as rows and columns: its way to a list is merged into the one behind it.
        helper.make_node("Reshape", [head.boxes, constant("station.listed", [1, -1, head.candidates])], [boxes], boxes),
        gather(head.boxes, axis=2, whole=boxes),
        gather(head.scores, axis=2),
    ]
    renewed = {head.boxes, head.scores}
    for node in graph.node:
        if node.output[0] not in head.after:
            continue
        for place, name in enumerate(node.input):
            if name in constants and name not in renewed:
                value = constants[name]
                if node.op_type == "Reshape" and head.candidates in value.tolist():
                    constant(f"{name}.best", [most if one == head.candidates else int(one) for one in value.tolist()])
                    renewed.add(name)
                elif value.ndim and value.shape[-1] == head.candidates:  # the centres of the cells, and their strides
                    inserted.append(gather(name, axis=value.ndim - 1))
                    renewed.add(name)
            if name in renewed:
                node.input[place] = f"{name}.best"
    before = [node for node in graph.node if node.output[0] not in head.after]
    after = [node for node in graph.node if node.output[0] in head.after]
    nodes = [*before, *inserted, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # the lengths that tensors had before
    wanted = {name for node in nodes for name in node.input}
    kept = [one for one in graph.initializer if one.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.output[0].type.tensor_type.shape.dim[2].dim_value = most
    onnx.checker.check_model(changed)
    return changed


def _head_of(graph: GraphProto) -> _Head | None:
    """The head of a YOLOv8 to 12 as ultralytics exports it; None for any other."""
    maker: dict[str, NodeProto] = {made: node for node in graph.node for made in node.output}
    constants = _constants(graph)

    def made_by(name: str, kind: str) -> NodeProto | None:
        node = maker.get(name)
        return node if node is not None and node.op_type == kind else None

    output = graph.output[0]
    lengths = [one.dim_value for one in output.type.tensor_type.shape.dim]
    end = made_by(output.name, "Concat")
    sigmoid = made_by(end.input[-1], "Sigmoid") if end is not None else None
    if len(graph.output) > 1 or len(lengths) != 3 or end is None or sigmoid is None:
        return None
    after, todo = {end.output[0], sigmoid.output[0]}, [*end.input[:-1]]
    softmax: list[NodeProto] = []
    while todo:
        node = maker.get(name := todo.pop())
        if name in after or name in constants:
            continue
        if node is not None and node.op_type == "Softmax":
            softmax.append(node)
        elif node is None or node.op_type not in _BEHIND_DFL:
            return None
        else:
            todo += node.input
        after.add(name)
    transpose = made_by(softmax[0].input[0], "Transpose") if len(softmax) == 1 else None
    reshape = made_by(transpose.input[0], "Reshape") if transpose is not None else None
    if transpose is None or reshape is None:
        return None
    return _Head(
        boxes=reshape.input[0],
        scores=sigmoid.input[0],
        candidates=lengths[2],
        after=frozenset(after | {transpose.output[0], reshape.output[0]}),
    )


def _constants(graph: GraphProto) -> Mapping[str, NDArray[Any]]:
    """All numbers that the file has under a name: exports that nobody simplified write them as nodes."""
    from onnx import numpy_helper

    found = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _opset(model: ModelProto) -> int:
    return next((int(one.version) for one in model.opset_import if one.domain in {"", "ai.onnx"}), 0)


def _maximum(scores: str, best: str, *, axes: str | None) -> NodeProto:
    """Of all classes: 1 x C x N to 1 x N."""
    from onnx import helper

    if axes is None:
        return helper.make_node("ReduceMax", [scores], [best], "station.best_class", axes=[1], keepdims=0)
    return helper.make_node("ReduceMax", [scores, axes], [best], "station.best_class", keepdims=0)
