"""A real mosquitto on a loopback port of its own, which a test may kill, stop and start again."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.waiting import until

WHERE = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))  # Debian's is in no user's PATH


def mosquitto_path() -> str:
    """The broker's program. Without it the test is skipped on a laptop, and fails where CI=true."""
    found = shutil.which("mosquitto", path=WHERE)
    if found is not None:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail("mosquitto is missing, and in CI it must be there")
    pytest.skip("mosquitto is not installed")


def free_port() -> int:
    """
    A TCP port on loopback that nobody has at the moment.

    Below those that the system gives to outgoing connections: one of these would take it while a server is away.
    """
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


class Mosquitto:
    """
    One broker, with its files in *folder*, not started yet. In a ``with`` it is started, and gone at the end.

    *lines* are added to its configuration, where they apply to its one listener. With ``anonymous`` anybody may do
    anything. With ``persistence`` what it has acknowledged survives ``stop`` (and, as brokers go, mostly ``kill``).
    """

    def __init__(
        self,
        folder: Path,
        *,
        lines: Iterable[str] = (),
        anonymous: bool = True,
        persistence: bool = False,
        port: int | None = None,
    ) -> None:
        self._program = mosquitto_path()
        self.port = free_port() if port is None else port
        self.folder = folder
        self._log = folder / "mosquitto.log"
        self._config = folder / "mosquitto.conf"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        mine = [
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {'true' if anonymous else 'false'}",
            "max_queued_messages 0",
            "set_tcp_nodelay true",
        ]
        if persistence:
            mine += ["persistence true", f"persistence_location {folder}/", "autosave_interval 1"]
        if os.geteuid() == 0:
            mine.append("user root")  # else it drops to a user who cannot read the test's folder
        self._config.write_text("\n".join([*mine, *lines]) + "\n")

    def __enter__(self) -> Mosquitto:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *, within_s: float = 30.0) -> None:
        """Starts it, on the same port every time, and waits until it takes connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-v", "-c", str(self._config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(lambda: not self.running or self._listens(), within_s=within_s, what=f"mosquitto on port {self.port}")
        assert self.running, f"mosquitto did not start:\n{self.log()}"

    def kill(self) -> None:
        """SIGKILL: what it held in memory is gone, and its clients see the connection end. Not running is fine."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def stop(self) -> None:
        """SIGTERM: it tells its MQTT 5 clients that it shuts down, saves where it persists, and ends."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def log(self) -> str:
        """What it wrote so far, over all its lives."""
        return self._log.read_text(errors="replace")

    def _listens(self) -> bool:
        with socket.socket() as sock:
            sock.settimeout(5.0)
            return sock.connect_ex(("127.0.0.1", self.port)) == 0
