"""HTTP as bytes on a socket: what no client library would send."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30.0)


def answer(port: int, request: bytes) -> bytes:
    """All that comes back for *request*, which asks for ``Connection: close`` or deserves it."""
    with connected(port) as sock:
        with suppress(OSError):  # it may have said no, and closed, before all was sent
            sock.sendall(request)
        return rest(sock)


def rest(sock: socket.socket) -> bytes:
    """What comes until the other end closes, or resets."""
    said = b""
    with suppress(ConnectionError):
        while chunk := sock.recv(65536):
            said += chunk
    return said


def statuses(said: bytes) -> list[int]:
    """The status of each answer in *said*."""
    return [int(one[:3]) for one in said.split(b"HTTP/1.1 ")[1:]]


def is_closed(sock: socket.socket) -> bool:
    """Whether the other end has closed it; what it said before is thrown away."""
    sock.settimeout(0.0)
    try:
        while sock.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  # a count, no paths


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS:"))
