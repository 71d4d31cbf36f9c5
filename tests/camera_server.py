"""What cameras on loopback have in common: who calls is served in a thread, until the test is over."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TypeVar

Own = TypeVar("Own", bound="CameraServer")


class CameraServer(ABC):
    """Listens on *port* (0: any) in a ``with``."""

    def __init__(self, port: int = 0) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def port(self) -> int:
        return int(self._server.getsockname()[1])

    def __enter__(self: Own) -> Own:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._server.close()
        for thread in self._threads:
            thread.join(10)

    @abstractmethod
    def _serve(self, peer: socket.socket) -> None:
        """Talks to *peer*, and ends soon after ``_stop`` is set."""

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()
