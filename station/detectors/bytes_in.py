"""
Has an int8 network take the picture's bytes: a change of its file's content, for ONNX Runtime on the processor.

The first step of such a network makes 256 steps of the floats 0..1 that were made of bytes before. Steps of 1/255 are
these bytes again, without a loss, so it may as well be given them: a quarter of the memory, no table, no rounding,
0.6 ms of a picture of 640 x 640 less. The file that ships keeps its float input, which other programs expect.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from station.detectors.onnx_file import (
    BRANCHES,
    DATA_TYPE,
    ELEMENT_TYPE,
    FLOAT,
    FLOATS,
    FUNCTION,
    GRAPH,
    INITIALIZER,
    INPUT,
    INT32S,
    MOST_BYTES,
    NODE,
    OUTPUT,
    OWN_DOMAINS,
    RAW,
    TENSOR_NAME,
    TENSOR_TYPE,
    UINT8,
    VALUE_NAME,
    VALUE_TYPE,
    Node,
    OtherError,
    fields_of,
    node_of,
    number_written,
    renamed,
    text_of,
    written,
)

STEP = 1 / 255


def with_bytes_in(model: bytes) -> bytes | None:
    """
    The ONNX file *model* with an input of uint8 in 0..255 in place of float in 0..1; the same numbers come out.

    None where its first step is not to round to steps of 1/255, where that cannot be told, or it is no ONNX file.
    """
    if len(model) > MOST_BYTES:
        return None
    try:
        fields = list(fields_of(memoryview(model)))
        if any(one.number == FUNCTION for one in fields):
            return None
        return b"".join(_graph(one.content) if one.number == GRAPH else one.whole for one in fields)
    except (ValueError, IndexError):  # OtherError and UnicodeDecodeError are ValueErrors
        return None


def _graph(content: memoryview) -> bytes:
    """The field GRAPH anew. Raises ValueError for a graph that begins otherwise."""
    fields = list(fields_of(content))
    single = dict(_single(one.content) for one in fields if one.number == INITIALIZER)
    inputs = [one for one in fields if one.number == INPUT and text_of(one.content, VALUE_NAME) not in single]
    nodes = {place: node_of(one.content) for place, one in enumerate(fields) if one.number == NODE}
    if len(inputs) != 1 or any(node.kind in BRANCHES for node in nodes.values()):
        raise OtherError
    given = text_of(inputs[0].content, VALUE_NAME)
    first = [place for place, node in nodes.items() if given in node.inputs]
    if len(first) != 1 or not _rounds_to_bytes(nodes[first[0]], single):
        raise OtherError
    (steps,) = nodes[first[0]].outputs
    readers = [place for place, node in nodes.items() if steps in node.inputs]
    told = {text_of(one.content, VALUE_NAME) for one in fields if one.number == OUTPUT}
    if steps in told or any(nodes[place].kind != "DequantizeLinear" for place in readers):
        raise OtherError
    if any(nodes[place].domain not in OWN_DOMAINS for place in (*first, *readers)):
        raise OtherError
    parts: list[bytes | memoryview] = []
    for place, one in enumerate(fields):
        if place == first[0]:
            continue
        if place in readers:
            parts.append(renamed(one.content, steps, given))
        elif one is inputs[0]:
            parts.append(written(INPUT, _of_bytes(one.content)))
        else:
            parts.append(one.whole)
    return written(GRAPH, b"".join(parts))


def _rounds_to_bytes(node: Node, single: Mapping[str, tuple[int, bytes]]) -> bool:
    """Whether it is QuantizeLinear to uint8 in steps of 1/255 from 0 on."""
    if node.kind != "QuantizeLinear" or len(node.inputs) != 3:
        return False
    (kind, scale), zero = (single.get(name, (0, b"")) for name in node.inputs[1:])
    if kind != FLOAT or len(scale) != 4 or zero != (UINT8, b"\0"):
        return False
    return abs(float(struct.unpack("<f", scale)[0]) / STEP - 1) < 1e-6


def _single(tensor: memoryview) -> tuple[str, tuple[int, bytes]]:
    """Name, type and content of a tensor that is a single number; of any other its name."""
    fields = list(fields_of(tensor))
    kind = next((one.value for one in fields if one.number == DATA_TYPE), 0)
    data = [one.content for one in fields if one.number in {FLOATS, INT32S, RAW}]
    single = len(data) == 1 and len(data[0]) <= 4
    return text_of(tensor, TENSOR_NAME), (kind, bytes(data[0]) if single else b"")


def _of_bytes(value: memoryview) -> bytes:
    """A ValueInfoProto whose tensor holds uint8, and not float. Raises ValueError for one that held another type."""

    def changed(content: memoryview, *way: int) -> bytes:
        parts: list[bytes | memoryview] = []
        for one in fields_of(content):
            if one.number != way[0]:
                parts.append(one.whole)
            elif len(way) == 1:
                if one.value != FLOAT:
                    raise OtherError
                parts.append(number_written(way[0], UINT8))
            else:
                parts.append(written(way[0], changed(one.content, *way[1:])))
        return b"".join(parts)

    return changed(value, VALUE_TYPE, TENSOR_TYPE, ELEMENT_TYPE)
