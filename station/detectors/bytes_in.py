"""
Has an int8 network take the picture's bytes: a change of its file's content, for ONNX Runtime on the processor.

The first step of such a network makes 256 steps of the floats 0..1 that were made of bytes before. Steps of 1/255 are
these bytes again, without a loss, so it may as well be given them: a quarter of the memory, no table, no rounding,
0.6 ms of a picture of 640 x 640 less. The file that ships keeps its float input, which other programs expect.

Written by hand: the protobuf library would take 6 MB in every station, for one string, one number and one step less.
Source of the numbers: onnx.proto (github.com/onnx/onnx), protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

GRAPH, FUNCTION = 7, 25  # of ModelProto
NODE, INITIALIZER, INPUT, OUTPUT = 1, 5, 11, 12  # of GraphProto
NODE_INPUT, NODE_OUTPUT, NODE_KIND, NODE_DOMAIN = 1, 2, 4, 7  # of NodeProto
VALUE_NAME, VALUE_TYPE = 1, 2  # of ValueInfoProto
TENSOR_TYPE, ELEMENT_TYPE = 1, 1  # of TypeProto and TypeProto.Tensor
DATA_TYPE, FLOATS, INT32S, TENSOR_NAME, RAW = 2, 4, 5, 8, 9  # of TensorProto
FLOAT, UINT8 = 1, 2  # of TensorProto.DataType
STEP = 1 / 255
OWN_DOMAINS = {"", "ai.onnx", "com.microsoft"}  # where QuantizeLinear is what it says
BRANCHES = {"If", "Loop", "Scan", "SequenceMap"}  # their inner graphs may read anything by its name

MOST_BYTES = 64 << 20  # of a file: it is held three times meanwhile, and a larger network gains little
MOST_FIELDS = 100_000  # of a message: more are no network that we know, but damage, and take seconds

VARINT, COUNTED = 0, 2  # wire types


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a message: its number, all its bytes, and what it holds: bytes, or a *value*."""

    number: int
    whole: memoryview
    content: memoryview
    value: int


@dataclass(frozen=True, slots=True)
class _Node:
    kind: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def with_bytes_in(model: bytes) -> bytes | None:
    """
    The ONNX file *model* with an input of uint8 in 0..255 in place of float in 0..1; the same numbers come out.

    None where its first step is not to round to steps of 1/255, where that cannot be told, or it is no ONNX file.
    """
    if len(model) > MOST_BYTES:
        return None
    try:
        fields = list(_fields(memoryview(model)))
        if any(one.number == FUNCTION for one in fields):
            return None
        return b"".join(_graph(one.content) if one.number == GRAPH else one.whole for one in fields)
    except (ValueError, IndexError):  # _OtherError and UnicodeDecodeError are ValueErrors
        return None


class _OtherError(ValueError):
    """Raised when a graph begins otherwise."""


def _graph(content: memoryview) -> bytes:
    """The field GRAPH anew. Raises ValueError for a graph that begins otherwise."""
    fields = list(_fields(content))
    single = dict(_single(one.content) for one in fields if one.number == INITIALIZER)
    inputs = [one for one in fields if one.number == INPUT and _text(one.content, VALUE_NAME) not in single]
    nodes = {place: _node(one.content) for place, one in enumerate(fields) if one.number == NODE}
    if len(inputs) != 1 or any(node.kind in BRANCHES for node in nodes.values()):
        raise _OtherError
    given = _text(inputs[0].content, VALUE_NAME)
    first = [place for place, node in nodes.items() if given in node.inputs]
    if len(first) != 1 or not _rounds_to_bytes(nodes[first[0]], single):
        raise _OtherError
    (steps,) = nodes[first[0]].outputs
    readers = [place for place, node in nodes.items() if steps in node.inputs]
    told = {_text(one.content, VALUE_NAME) for one in fields if one.number == OUTPUT}
    if steps in told or any(nodes[place].kind != "DequantizeLinear" for place in readers):
        raise _OtherError
    if any(nodes[place].domain not in OWN_DOMAINS for place in (*first, *readers)):
        raise _OtherError
    parts: list[bytes | memoryview] = []
    for place, one in enumerate(fields):
        if place == first[0]:
            continue
        if place in readers:
            parts.append(_written(NODE, _renamed(one.content, steps, given)))
        elif one is inputs[0]:
            parts.append(_written(INPUT, _of_bytes(one.content)))
        else:
            parts.append(one.whole)
    return _written(GRAPH, b"".join(parts))


def _rounds_to_bytes(node: _Node, single: Mapping[str, tuple[int, bytes]]) -> bool:
    """Whether it is QuantizeLinear to uint8 in steps of 1/255 from 0 on."""
    if node.kind != "QuantizeLinear" or len(node.inputs) != 3:
        return False
    (kind, scale), zero = (single.get(name, (0, b"")) for name in node.inputs[1:])
    if kind != FLOAT or len(scale) != 4 or zero != (UINT8, b"\0"):
        return False
    return abs(float(struct.unpack("<f", scale)[0]) / STEP - 1) < 1e-6


def _single(tensor: memoryview) -> tuple[str, tuple[int, bytes]]:
    """Name, type and content of a tensor that is a single number; of any other its name."""
    fields = list(_fields(tensor))
    kind = next((one.value for one in fields if one.number == DATA_TYPE), 0)
    data = [one.content for one in fields if one.number in {FLOATS, INT32S, RAW}]
    single = len(data) == 1 and len(data[0]) <= 4
    return _text(tensor, TENSOR_NAME), (kind, bytes(data[0]) if single else b"")


def _node(content: memoryview) -> _Node:
    texts: dict[int, list[str]] = {}
    for one in _fields(content):
        if one.number in {NODE_INPUT, NODE_OUTPUT, NODE_KIND, NODE_DOMAIN}:
            texts.setdefault(one.number, []).append(str(one.content, "utf-8"))
    kind, domain = (texts.get(number, [""])[0] for number in (NODE_KIND, NODE_DOMAIN))
    return _Node(kind, domain, tuple(texts.get(NODE_INPUT, ())), tuple(texts.get(NODE_OUTPUT, ())))


def _renamed(node: memoryview, old: str, new: str) -> bytes:
    return b"".join(
        _written(NODE_INPUT, new.encode()) if one.number == NODE_INPUT and one.content == old.encode() else one.whole
        for one in _fields(node)
    )


def _of_bytes(value: memoryview) -> bytes:
    """A ValueInfoProto whose tensor holds uint8, and not float. Raises ValueError for one that held another type."""

    def changed(content: memoryview, *way: int) -> bytes:
        parts: list[bytes | memoryview] = []
        for one in _fields(content):
            if one.number != way[0]:
                parts.append(one.whole)
            elif len(way) == 1:
                if one.value != FLOAT:
                    raise _OtherError
                parts.append(bytes([way[0] << 3 | VARINT, UINT8]))
            else:
                parts.append(_written(way[0], changed(one.content, *way[1:])))
        return b"".join(parts)

    return changed(value, VALUE_TYPE, TENSOR_TYPE, ELEMENT_TYPE)


def _text(content: memoryview, number: int) -> str:
    return str(next((one.content for one in _fields(content) if one.number == number), b""), "utf-8")


def _fields(message: memoryview) -> Iterator[_Field]:
    at = count = 0
    while at < len(message):
        begin = at
        key, at = _varint(message, at)
        count += 1
        if key < 8 or count > MOST_FIELDS:
            raise ValueError("a field without a number, or too many")
        held, value = at, 0
        match key & 7:
            case 0:  # VARINT: a number, in sevens of bits
                value, at = _varint(message, at)
                held = at
            case 1:  # eight bytes
                at += 8
            case 2:  # COUNTED: so many bytes
                length, held = _varint(message, at)
                at = held + length
            case 5:  # four bytes
                at += 4
            case _:
                raise ValueError("no wire type")
        if at > len(message):
            raise ValueError("a field goes on behind the end")
        yield _Field(key >> 3, message[begin:at], message[held:at], value)


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """The number that is written at *at* in sevens of bits, and where it ends. Raises IndexError at the end."""
    number = 0
    for shift in range(0, 70, 7):
        number |= (content[at] & 0x7F) << shift
        at += 1
        if content[at - 1] < 0x80:
            return number, at
    raise ValueError("a number of more than 64 bits")


def _written(number: int, content: bytes) -> bytes:
    """A field that holds *content*."""
    length, digits = len(content), bytearray([number << 3 | COUNTED])
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    return bytes(digits) + content
