"""As much of MQTT as it takes to see events and their acknowledgements pass by."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

CONNECT, PUBLISH, PUBACK = 0x10, 0x30, 0x40
QOS_1 = 0x02


def packets(source: socket.socket) -> Iterator[tuple[int, bytes]]:
    """(first byte, whole packet) of each MQTT control packet, until the connection ends."""
    data = bytearray()
    while chunk := source.recv(65536):
        data += chunk
        while (length := packet_length(data)) is not None and len(data) >= length:
            yield data[0], bytes(data[:length])
            del data[:length]


def packet_length(data: bytearray) -> int | None:
    """The whole packet's, or None while its header is not complete."""
    size, shift = 0, 0
    for index, byte in enumerate(data[1:5], start=1):
        size |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return 1 + index + size
    return None


def body_of(packet: bytes) -> bytes:
    index = 1
    while packet[index] & 0x80:
        index += 1
    return packet[index + 1 :]


def published(body: bytes, *, properties: bool) -> tuple[int, bytes]:
    """(packet id, payload) of a PUBLISH at QoS 1."""
    at = 2 + int.from_bytes(body[:2], "big")
    packet_id = int.from_bytes(body[at : at + 2], "big")
    rest = body[at + 2 :]
    if not properties:
        return packet_id, rest
    size, shift, index = 0, 0, 0
    while True:
        size |= (rest[index] & 0x7F) << shift
        shift += 7
        index += 1
        if not rest[index - 1] & 0x80:
            return packet_id, rest[index + size :]


def event_id_of(payload: bytes) -> str | None:
    """Of an inspection event; None for what is told in passing."""
    try:
        document = json.loads(payload)
    except ValueError:
        return None
    return document.get("event_id") if isinstance(document, dict) and "verdict" in document else None
