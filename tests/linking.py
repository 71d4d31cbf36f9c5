"""A link whose loop runs in a thread, for the tests of MQTT."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from queue import Empty
from typing import Any

from station.health import Health
from station.mqtt import MqttLink
from station.mqtt_options import LinkOptions
from station.types import Ack, Stop
from tests.waiting import until


class Clock:
    """The monotonic clock, which a test can make leap."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead_s

    def leap(self, seconds: float) -> None:
        self._ahead_s += seconds


def state(word: str, why: str | None) -> bytes:
    return f'{{"state": "{word}", "station": "test", "why": "{why}"}}'.encode()


class Running:
    """
    In a ``with``, ``link.run`` runs in a thread until the end; what it raised is in ``raised``.

    It does not wait out its pauses: they are noted in ``pauses_s``, and last 10 ms.
    """

    def __init__(self, port: int, **options: Any) -> None:
        self.clock = Clock()
        self.health = Health()
        self.wake = threading.Event()
        self.pauses_s: list[float] = []
        self.raised: list[Exception] = []
        self.acks: list[Ack] = []
        self.commands: list[tuple[str, bytes, Callable[[bytes], None]]] = []
        self.stop: Stop = threading.Event()
        self.options = replace(
            LinkOptions(host="127.0.0.1", port=port, client_id="station-test", topic="factory/test"), **options
        )
        self.link = MqttLink(
            self.options,
            state=state,
            health=self.health,
            on_change=self.wake.set,
            on_command=lambda *command: self.commands.append(command),
            monotonic=self.clock,
            chance=lambda: 0.0,
        )
        self.link._wait = self._wait  # type: ignore[method-assign]  # a test does not wait for minutes
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def __enter__(self) -> Running:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self.stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the link did not stop"

    def send(self, payload: bytes = b"{}", topic: str = "factory/test/inspection/pass") -> int:
        """Waits until the link is ready, as the publish loop does, and sends."""
        until(self.link.ready, what="the link")
        return self.link.send(topic, payload)

    def answers(self, count: int) -> list[Ack]:
        """All acks so far, when there are at least *count*."""
        until(lambda: self._collect() >= count, what=f"{count} answers")
        return self.acks

    def faults(self) -> dict[str, str]:
        return {fault.code: fault.detail for fault in self.health.faults()}

    def _collect(self) -> int:
        try:
            while True:
                self.acks.append(self.link.acks.get_nowait())
        except Empty:
            return len(self.acks)

    def _run(self) -> None:
        try:
            self.link.run(self.stop)
        except Exception as error:  # noqa: BLE001  # as the supervisor does: the test looks at it
            self.raised.append(error)

    def _wait(self, stop: Stop, pause_s: float) -> None:
        self.pauses_s.append(pause_s)
        stop.wait(0.01)
