"""
Makes an int8 model of a float one; needs the ``quantize`` extra (onnx).

Static, in QDQ form, which onnxruntime and OpenVINO both run: weights signed, one scale a channel; activations unsigned,
one scale a tensor, from the least to the most that the calibration pictures gave. The end of the network stays float.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from station.detectors import onnx as runtime  # before onnxruntime: it switches the reports to its maker off
from station.detectors.best_boxes import keep_best
from station.detectors.thin_layers import widened
from station.errors import ModelError
from station.extras import how_to_add

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

# What runs in int8 from one convolution to the next. The rest of a network (the attention's MatMul and Softmax) stays
# float: with it YOLO11n with ReLU is no faster (66.5 and 66.3 ms, beside a training) and no better.
WORTH_IT = ("Conv", "Relu", "Add", "Concat", "MaxPool", "Resize", "Split")
FEWEST = 8  # pictures: fewer leave ranges that the next board exceeds
MIN_OPSET = 13  # the first in which a scale for each channel can be written


def quantize(model: Path, out: Path, *, calibration: Iterable[NDArray[np.float32]]) -> None:
    """
    Writes the int8 version of *model* (float .onnx) to *out*; labels and all other metadata stay as they are. Where its
    head is one that ``best_boxes`` knows, only the best 1,000 candidates get boxes.

    *calibration*: what the network is given on the line, each 1 x C x H x W float32 as the letterbox makes it, of some
    30 to 300 typical boards. They are read one by one, once. Raises ModelError for a model that cannot be quantised,
    for too few pictures, and when onnx is not installed. Of accuracy it knows nothing: compare before using it.

    On DeepPCB (YOLO11n with ReLU, 48 pictures) 90.7 % mAP became 90.6 %, and 112 ms on two busy cores 66 ms. Processors
    without VNNI add 8-bit products in 16 bits, which can saturate: the model's self-test tells on the machine itself.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    except ImportError:
        raise ModelError(f"quantising needs onnx, which is not installed: {how_to_add('quantize')}") from None
    try:
        loaded = onnx.load(model)
    except (OSError, DecodeError) as error:
        raise ModelError(f"{model} cannot be read as ONNX: {error}") from None
    name = _checked(loaded, model)
    loaded = keep_best(loaded)
    kept_float = tail(loaded.graph)
    loaded = widened(loaded, but=kept_float)
    batches = _Batches(name, calibration)
    errors: tuple[type[Exception], ...] = (*runtime.ERRORS, onnx.checker.ValidationError, KeyError)
    # Only what is whole gets the name: a file half written would be loaded by nobody, but imported by somebody.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".quantize-") as folder, _quiet():
        half = Path(folder) / "model.onnx"
        try:
            quantize_static(
                loaded,
                half,
                batches,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=list(WORTH_IT),
                nodes_to_exclude=sorted(kept_float),
            )
        except errors as error:
            if batches.ended and batches.count < FEWEST:
                raise ModelError(_too_few(batches.count)) from None
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ModelError(f"{model} cannot be quantised: {first}") from None
        if batches.count < FEWEST:
            raise ModelError(_too_few(batches.count))
        half.replace(out)


def tail(graph: GraphProto) -> set[str]:
    """
    The names of the nodes from the last layer of each head on: what turns the network's answer into boxes and scores.

    They stay float: coordinates of 0 to 640 and scores of 0 to 1 share tensors there, and 256 steps are too few for
    both. Found by structure, for names differ between exports: back from the outputs to the nearest convolutions, past
    those with a single output channel (the sum over a distribution, "DFL", which is written as one).
    """
    maker: dict[str, NodeProto] = {made: node for node in graph.node for made in node.output}
    shapes = {one.name: tuple(one.dims) for one in graph.initializer}
    found: set[str] = set()
    todo = [one.name for one in graph.output]
    while todo:
        node = maker.get(todo.pop())
        if node is None or node.name in found:
            continue
        found.add(node.name)
        if node.op_type != "Conv" or shapes.get(node.input[1], (0,))[0] == 1:
            todo += node.input
    return found


def _checked(loaded: ModelProto, model: Path) -> str:
    """The name of the input; the model is one that can be quantised."""
    from onnx import TensorProto

    weights = {one.name: one.data_type for one in loaded.graph.initializer}
    inputs = [one for one in loaded.graph.input if one.name not in weights]
    kinds = {node.op_type for node in loaded.graph.node}
    opset = next((one.version for one in loaded.opset_import if one.domain in {"", "ai.onnx"}), 0)
    if kinds & {"QuantizeLinear", "QLinearConv", "ConvInteger"}:
        raise ModelError(f"{model} is quantised already")
    if "Conv" not in kinds or len(inputs) != 1:
        raise ModelError(f"{model} has no convolutions over one input: there is nothing to quantise")
    layers = {weights.get(node.input[1], TensorProto.FLOAT) for node in loaded.graph.node if node.op_type == "Conv"}
    # An export with half=True may take floats, and cast them.
    if layers | {inputs[0].type.tensor_type.elem_type} != {TensorProto.FLOAT}:
        raise ModelError(f"{model} is not a float32 model: export it with half=False, and quantise that")
    if opset < MIN_OPSET:
        raise ModelError(f"{model} has opset {opset}, and {MIN_OPSET} is needed: export it again with opset=17")
    if any(not node.name for node in loaded.graph.node):  # a node is excluded by its name
        for number, node in enumerate(loaded.graph.node):
            node.name = node.name or f"unnamed_{number}"
    return str(inputs[0].name)


def _too_few(count: int) -> str:
    return f"{count} pictures are too few to quantise with: give at least {FEWEST}, better 30 to 300, of typical boards"


class _Batches:
    """Implements onnxruntime's CalibrationDataReader: by duck, for its base class cannot be imported lazily."""

    def __init__(self, name: str, tensors: Iterable[NDArray[np.float32]]) -> None:
        self._name = name
        self._left = iter(tensors)
        self.count = 0
        self.ended = False

    def get_next(self) -> dict[str, Any] | None:
        tensor = next(self._left, None)
        if tensor is None:
            self.ended = True
            return None
        self.count += 1
        return {self._name: tensor}

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> dict[str, Any]:
        following = self.get_next()
        if following is None:
            raise StopIteration
        return following


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's tool recommends preparations by the root logger and print: they change nothing for our models."""
    logger = logging.getLogger()
    kept = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(kept)
