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
    INITIALIZER,
    INPUT,
    INT32S,
    OUTPUT,
    OWN_DOMAINS,
    RAW,
    TENSOR_NAME,
    TENSOR_TYPE,
    UINT8,
    VALUE_NAME,
    VALUE_TYPE,
    Field,
    Node,
    OtherError,
    fields_of,
    nodes_of,
    number_written,
    numbers_of,
    only_input,
    renamed,
    replaced,
    rewritten,
    text_of,
    within,
    written,
)

STEP = 1 / 255


def with_bytes_in(model: bytes) -> bytes | None:
    """
    The ONNX file *model* with an input of uint8 in 0..255 in place of float in 0..1; the same numbers come out.

    None where its first step is not to round to steps of 1/255, where that cannot be told, or it is no ONNX file.
    """
    return rewritten(model, _graph)


def _graph(fields: list[Field]) -> bytes:
    """The graph anew. Raises ValueError for one that begins otherwise."""
    single = dict(_single(one.content) for one in fields if one.number == INITIALIZER)
    picture, nodes = only_input(fields, single), nodes_of(fields)
    if any(node.kind in BRANCHES for node in nodes.values()):
        raise OtherError
    given = text_of(picture.content, VALUE_NAME)
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
        elif one is picture:
            parts.append(written(INPUT, _of_bytes(one.content)))
        else:
            parts.append(one.whole)
    return b"".join(parts)


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
    way = (VALUE_TYPE, TENSOR_TYPE)
    tensor = within(value, way)
    if numbers_of(tensor, ELEMENT_TYPE) != [FLOAT]:
        raise OtherError
    parts = (
        number_written(ELEMENT_TYPE, UINT8) if one.number == ELEMENT_TYPE else one.whole for one in fields_of(tensor)
    )
    return replaced(value, way, b"".join(parts))
