"""A serial port whose loop runs as the supervisor runs it, for tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from station.errors import GateError
from station.health import Health
from station.serial_port import SerialOptions, SerialPort
from station.supervise import Worker


class Open:
    """In a ``with``, *port* is read by a Worker, which opens it again whenever it was lost."""

    def __init__(self, where: Path | str, *, monotonic: Callable[[], float] = time.monotonic, **options: Any) -> None:
        self.health = Health()
        self.turns = 0
        self.port = SerialPort(
            replace(SerialOptions(str(where)), **options), name="serial", beat=self._beat, monotonic=monotonic
        )
        self._worker = Worker("serial", self.port.run, health=self.health, on_restart=lambda _: None)

    def __enter__(self) -> Open:
        self._worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._worker.stop(within_s=30)

    def _beat(self, loop: str) -> None:
        self.turns += 1
        self.health.beat(loop)

    def faults(self) -> dict[str, str]:
        return {fault.code: fault.detail for fault in self.health.faults()}


class FakePort:
    """Implements ``types.Port`` in memory: *sent* is what was written, ``say`` is what comes."""

    def __init__(self) -> None:
        self.connected = True
        self.sent: list[bytes] = []
        self._listeners: list[tuple[Any, Any]] = []
        self.lock = threading.Lock()

    def listen(self, on_line: Any, on_open: Any = lambda: None) -> None:
        self._listeners.append((on_line, on_open))

    def write(self, data: bytes) -> None:
        if not self.connected:
            raise GateError("the serial port is away")
        self.sent.append(data)

    def say(self, line: bytes, at_s: float = 0.0) -> bool:
        return any(on_line(line, at_s) for on_line, _ in self._listeners)

    def open(self) -> None:
        self.connected = True
        for _, on_open in self._listeners:
            on_open()
