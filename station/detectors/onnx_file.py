"""
The parts of an ONNX file that the station changes before it is loaded: fields, nodes, numbers.

Written by hand: the protobuf library would take 6 MB in every station, for a few numbers and names.
Source of the numbers: onnx.proto (github.com/onnx/onnx), protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

GRAPH, FUNCTION = 7, 25  # of ModelProto
NODE, INITIALIZER, INPUT, OUTPUT, VALUE = 1, 5, 11, 12, 13  # of GraphProto
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_KIND, ATTRIBUTE, NODE_DOMAIN = 1, 2, 3, 4, 5, 7  # of NodeProto
ATTRIBUTE_NAME, NUMBER, TEXT, NUMBERS, ATTRIBUTE_TYPE = 1, 3, 4, 8, 20  # of AttributeProto
NUMBERS_TYPE = 7  # of AttributeProto.AttributeType
VALUE_NAME, VALUE_TYPE = 1, 2  # of ValueInfoProto
TENSOR_TYPE, ELEMENT_TYPE, SHAPE, LENGTH, KNOWN = 1, 1, 2, 1, 1  # of TypeProto, its Tensor, and TensorShapeProto
LENGTHS, DATA_TYPE, FLOATS, INT32S, TENSOR_NAME, RAW = 1, 2, 4, 5, 8, 9  # of TensorProto
FLOAT, UINT8, INT8 = 1, 2, 3  # of TensorProto.DataType
OWN_DOMAINS = {"", "ai.onnx", "com.microsoft"}  # where QuantizeLinear is what it says
BRANCHES = {"If", "Loop", "Scan", "SequenceMap"}  # their inner graphs may read anything by its name

MOST_BYTES = 64 << 20  # of a file: it is held three times meanwhile, and a larger network gains little
MOST_FIELDS = 100_000  # of a message: more are no network that we know, but damage, and take seconds

VARINT, COUNTED = 0, 2  # wire types


class OtherError(ValueError):
    """Raised when a file is none that can be changed."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: its number, all its bytes, and what it holds: bytes, or a *value*."""

    number: int
    whole: memoryview
    content: memoryview
    value: int


@dataclass(frozen=True, slots=True)
class Node:
    kind: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def rewritten(model: bytes, graph: Callable[[list[Field]], bytes]) -> bytes | None:
    """
    The ONNX file *model* with its graph as *graph* makes it of the fields that it has.

    None where that raises ValueError or IndexError, and for a file that is too large, has functions of its own, or is
    none.
    """
    if len(model) > MOST_BYTES:
        return None
    try:
        fields = list(fields_of(memoryview(model)))
        if any(one.number == FUNCTION for one in fields):
            return None
        made = (
            written(GRAPH, graph(list(fields_of(one.content)))) if one.number == GRAPH else one.whole for one in fields
        )
        return b"".join(made)
    except (ValueError, IndexError):  # OtherError and UnicodeDecodeError are ValueErrors
        return None


def only_input(graph: Sequence[Field], constants: Container[str]) -> Field:
    """What a graph is given: older files list its *constants* as inputs, too. Raises OtherError for more or none."""
    given = [one for one in graph if one.number == INPUT and text_of(one.content, VALUE_NAME) not in constants]
    if len(given) != 1:
        raise OtherError
    return given[0]


def nodes_of(graph: Sequence[Field]) -> dict[int, Node]:
    """By their places among the fields of a graph."""
    return {place: node_of(one.content) for place, one in enumerate(graph) if one.number == NODE}


def within(content: memoryview, way: Sequence[int]) -> memoryview:
    """What lies at the end of the *way* through a message. Raises OtherError where it is not there once."""
    for number in way:
        found = [one.content for one in fields_of(content) if one.number == number]
        if len(found) != 1:
            raise OtherError
        content = found[0]
    return content


def replaced(content: memoryview, way: Sequence[int], made: bytes) -> bytes:
    """The message with *made* in place of what lies at the end of the *way*."""
    if not way:
        return made
    return b"".join(
        written(way[0], replaced(one.content, way[1:], made)) if one.number == way[0] else bytes(one.whole)
        for one in fields_of(content)
    )


def fields_of(message: memoryview) -> Iterator[Field]:
    """Raises ValueError or IndexError for what is no message."""
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
        yield Field(key >> 3, message[begin:at], message[held:at], value)


def text_of(content: memoryview, number: int) -> str:
    return str(next((one.content for one in fields_of(content) if one.number == number), b""), "utf-8")


def numbers_of(content: memoryview, number: int) -> list[int]:
    """What the repeated field holds, in either of the ways in which it can be written."""
    found: list[int] = []
    for one in fields_of(content):
        if one.number == number and one.whole[0] & 7 == VARINT:
            found.append(one.value)
        elif one.number == number:
            at = 0
            while at < len(one.content):
                value, at = _varint(one.content, at)
                found.append(value)
    return found


def node_of(content: memoryview) -> Node:
    texts: dict[int, list[str]] = {}
    for one in fields_of(content):
        if one.number in {NODE_INPUT, NODE_OUTPUT, NODE_KIND, NODE_DOMAIN}:
            texts.setdefault(one.number, []).append(str(one.content, "utf-8"))
    kind, domain = (texts.get(number, [""])[0] for number in (NODE_KIND, NODE_DOMAIN))
    return Node(kind, domain, tuple(texts.get(NODE_INPUT, ())), tuple(texts.get(NODE_OUTPUT, ())))


def attributes_of(node: memoryview) -> dict[str, memoryview]:
    """What a node carries besides its inputs: AttributeProtos by name."""
    return {text_of(one.content, ATTRIBUTE_NAME): one.content for one in fields_of(node) if one.number == ATTRIBUTE}


def attribute_of(node: memoryview, name: str, *, otherwise: list[int]) -> list[int]:
    """The whole numbers that the node carries under *name*, or the one; *otherwise* if it does not."""
    found = attributes_of(node).get(name)
    return otherwise if found is None else numbers_of(found, NUMBERS) or numbers_of(found, NUMBER)


def attribute_written(name: str, numbers: Sequence[int]) -> bytes:
    """A field ATTRIBUTE with whole numbers, of 0 or more."""
    parts = [number_written(NUMBERS, one) for one in numbers]
    kind = number_written(ATTRIBUTE_TYPE, NUMBERS_TYPE)
    return written(ATTRIBUTE, b"".join([written(ATTRIBUTE_NAME, name.encode()), *parts, kind]))


def renamed(node: memoryview, old: str, new: str) -> bytes:
    """A field NODE that reads *new* where it read *old*."""
    parts = (
        written(NODE_INPUT, new.encode()) if one.number == NODE_INPUT and one.content == old.encode() else one.whole
        for one in fields_of(node)
    )
    return written(NODE, b"".join(parts))


def written(number: int, content: bytes) -> bytes:
    """A field that holds *content*."""
    return bytes([number << 3 | COUNTED]) + _digits(len(content)) + content


def number_written(number: int, value: int) -> bytes:
    """A field that holds the number *value*, 0 or more."""
    key = number << 3 | VARINT
    return _digits(key) + _digits(value)


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """The number that is written at *at* in sevens of bits, and where it ends. Raises IndexError at the end."""
    number = 0
    for shift in range(0, 70, 7):
        number |= (content[at] & 0x7F) << shift
        at += 1
        if content[at - 1] < 0x80:
            return number, at
    raise ValueError("a number of more than 64 bits")


def _digits(value: int) -> bytes:
    """*value* in sevens of bits."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
