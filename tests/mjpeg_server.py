"""A motion-JPEG camera on loopback that can be rude: it stalls, freezes, sends halves, loses parts, or goes away."""

from __future__ import annotations

import base64
import socket
import time
from contextlib import suppress

import cv2
import numpy as np

from tests.camera_server import CameraServer

HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
REFUSED = b'HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm="camera"\r\nContent-Length: 0\r\n\r\n'
PERIOD_S = 0.04


class MjpegServer(CameraServer):
    """
    In a ``with``, pictures with a running number in their grey are served at ``url``.

    *mood* is ``well``, ``stall`` (the connection stays and nothing comes), ``freeze`` (one picture for ever), ``half``
    (a picture that ends in its middle, then silence), ``cut`` (pictures that all lack their second half), ``cuts`` (as
    does every third) or ``reset``. ``sent`` counts whole pictures. *login*, as
    ``user:password``, is asked for.
    """

    def __init__(self, *, width: int = 64, height: int = 48, port: int = 0, login: str = "") -> None:
        super().__init__(port)
        self.mood = "well"
        self.sent = 0
        self._size = (width, height)
        self._login = base64.b64encode(login.encode()).decode()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/video.mjpg"

    def _serve(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            request = peer.recv(65536).decode("latin-1")
            if self._login not in request:
                peer.sendall(REFUSED)
                return
            peer.sendall(HEAD)
            next_s, ring, held = time.monotonic(), 0, bytearray()
            while not self._stop.wait(max(0.0, next_s - time.monotonic())):
                next_s += PERIOD_S
                match self.mood:
                    case "stall":
                        continue
                    case "reset":
                        return
                    case "half":
                        data = self._picture(self.sent)
                        peer.sendall(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + data[: len(data) // 2])
                        self._stop.wait()
                        return
                    case "freeze":
                        pass
                    case "ring":
                        ring = (ring + 1) % 4
                    case _:
                        self.sent += 1
                data = self._picture(self.sent - ring)
                if self.mood == "cut" or (self.mood == "cuts" and self.sent % 3 == 0):
                    data = cut(data)
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
                held += head + data + b"\r\n"
                if self.mood != "held":
                    peer.sendall(held)
                    held.clear()

    def _picture(self, number: int) -> bytes:
        width, height = self._size
        image = np.full((height, width, 3), 20 + number % 200, np.uint8)
        image[: height // 2] = 255 - (20 + number % 200)
        ok, data = cv2.imencode(".jpg", image)
        assert ok
        return data.tobytes()


def cut(jpeg: bytes) -> bytes:
    """Without the second half of its coded data: decoders show its first, and fill up the rest."""
    return jpeg[: (jpeg.index(b"\xff\xda") + 14 + len(jpeg)) // 2]
