"""An RTSP camera on loopback that shows a film of H.264 or H.265 over and over, and can lose parts of it."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.camera_server import CameraServer

PERIOD_S = 0.04
PACKET_BYTES = 400
START = re.compile(rb"\x00\x00\x00?\x01")
DELIMITER = {
    "h264": re.compile(rb"(?=\x00\x00\x00\x01\x09)"),
    "h265": re.compile(rb"(?=\x00\x00\x00\x01\x46\x01)"),
}  # begins a picture

Packets = list[tuple[int, bytes]]
Loses = Callable[[int, Packets], Packets]


class FilmServer(CameraServer):
    """
    In a ``with``, *film* is served at ``url``, each of its pictures behind an access unit delimiter.

    *loses* is given the number of a picture, which only rises, and its packets with their numbers, and gives those that
    are sent. ``sent`` counts pictures.
    """

    def __init__(self, film: Path, loses: Loses = lambda _number, packets: packets) -> None:
        super().__init__()
        self._codec = film.suffix[1:]
        self._film = [one for one in DELIMITER[self._codec].split(film.read_bytes()) if one]
        self._loses = loses
        self.sent = 0

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/film"

    def _serve(self, peer: socket.socket) -> None:
        with peer, suppress(OSError), peer.makefile("rb") as asked:
            while words := asked.readline().split():
                head = dict(
                    re.findall(r"(?m)^(\w+): *(.*?)\r$", "".join(iter(lambda: asked.readline().decode(), "\r\n")))
                )
                answer, body = self._answer(words[0].decode())
                lines = [f"CSeq: {head['CSeq']}", "Session: 1", *answer, f"Content-Length: {len(body)}"]
                peer.sendall("\r\n".join(["RTSP/1.0 200 OK", *lines, "", body]).encode())
                if words[0] == b"PLAY":
                    self._play(peer)

    def _answer(self, asked: str) -> tuple[list[str], str]:
        match asked:
            case "OPTIONS":
                return ["Public: DESCRIBE, SETUP, PLAY"], ""
            case "DESCRIBE":
                media = f"m=video 0 RTP/AVP 96\r\na=rtpmap:96 {self._codec.upper()}/90000\r\na=control:film\r\n"
                return [
                    "Content-Type: application/sdp"
                ], f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=film\r\nt=0 0\r\n{media}"
            case "SETUP":
                return ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1"], ""
        return [], ""

    def _play(self, peer: socket.socket) -> None:
        sequence, next_s = 0, time.monotonic()
        while not self._stop.wait(max(0.0, next_s - time.monotonic())):
            next_s += PERIOD_S
            payloads = [
                one for unit in START.split(self._film[self.sent % len(self._film)]) for one in self._packets(unit)
            ]
            for number, payload in self._loses(self.sent, list(enumerate(payloads))):
                mark = 0x80 if number == len(payloads) - 1 else 0
                stamp = self.sent * int(90000 * PERIOD_S) & 0xFFFFFFFF
                packet = struct.pack(">BBHII", 0x80, mark | 96, sequence + number & 0xFFFF, stamp, 1) + payload
                peer.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
            sequence += len(payloads)
            self.sent += 1

    def _packets(self, unit: bytes) -> list[bytes]:
        """A unit as it is, or in fragments (RFC 6184, 5.8, and RFC 7798, 4.4.3)."""
        if len(unit) <= PACKET_BYTES:
            return [unit] if unit else []
        if self._codec == "h264":
            head, kind, body = bytes([unit[0] & 0xE0 | 28]), unit[0] & 31, unit[1:]
        else:
            head, kind, body = bytes([unit[0] & 0x81 | 49 << 1, unit[1]]), unit[0] >> 1 & 63, unit[2:]
        parts = [body[at : at + PACKET_BYTES] for at in range(0, len(body), PACKET_BYTES)]
        marks = [0x80, *[0] * (len(parts) - 2), 0x40]
        return [head + bytes([mark | kind]) + part for mark, part in zip(marks, parts, strict=True)]
