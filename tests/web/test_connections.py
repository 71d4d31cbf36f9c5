"""What becomes of connections when the server stops."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from station.web import connections
from station.web.server import WebServer
from tests.waiting import until
from tests.web.ports import Served

QUESTION = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


class Stopping:
    """A server, and a client that is connected and has asked nothing when ``stop`` comes."""

    def __init__(self, folder: Path) -> None:
        served = Served(folder)
        self.port = served.settings.http.port
        self.server = WebServer(served.app, host="127.0.0.1", port=self.port)
        self.server._server.config.timeout_graceful_shutdown = 60
        self.server.start()
        self.client = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        until(lambda: self.server._server.server_state.connections, what="the connection")
        self._stopper = threading.Thread(target=self.server.stop, kwargs={"within_s": 60})

    def stop(self) -> None:
        self._stopper.start()
        until(self._refuses, what="no new connection")

    def ends(self) -> None:
        self._stopper.join(60)
        assert not self._stopper.is_alive()

    def _refuses(self) -> bool:
        with socket.socket() as another:
            return another.connect_ex(("127.0.0.1", self.port)) != 0


@pytest.fixture
def stopping(tmp_path: Path) -> Iterator[Stopping]:
    one = Stopping(tmp_path)
    with one.client:
        yield one
    one.ends()


def test_who_connected_before_a_stop_and_asks_after_it_is_answered(
    stopping: Stopping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "GRACE_S", 30.0)
    stopping.stop()
    stopping.client.sendall(QUESTION)
    assert stopping.client.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"


def test_who_says_nothing_then_is_hung_up_on(stopping: Stopping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "GRACE_S", 0.01)
    stopping.stop()
    assert stopping.client.recv(1) == b""
    stopping.ends()
