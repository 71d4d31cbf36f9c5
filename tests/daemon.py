"""The real station as a process, and who meets it: a subscriber, and the service manager that started it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from station.types import Image
from tests.detectors.models import save_seeing
from tests.mosquitto import Mosquitto, free_port
from tests.waiting import until

PATIENCE_S = 60.0  # a limit, not a measure: the machine may be busy with something else
TOPIC = "factory/test/aoi-1"
RED_FAILS, BLACK_PASSES = 230, 0  # of the tiny network: its score is the red channel's mean

Overrides = Mapping[str, Mapping[str, object]]


def lasting_broker(folder: Path) -> Mosquitto:
    """A broker that keeps what it has acknowledged over a restart; not started yet."""
    return Mosquitto(folder, persistence=True, lines=["autosave_on_changes true"])


def stays(condition: Callable[[], object], *, for_s: float, what: str) -> None:
    """Fails as soon as *condition* is not true. For what must not happen: there is no condition to wait for."""
    end_s = time.monotonic() + for_s
    while time.monotonic() < end_s:
        assert condition(), what
        time.sleep(0.05)


def picture(seed: int, *, red: int = RED_FAILS, size_px: int = 64) -> Image:
    """A board like no other (*seed*), which fails the tiny network when it is red and passes when it is not."""
    image: Image = np.random.default_rng(seed).integers(0, 25, (size_px, size_px, 3), np.uint8)
    image[:, :, 2] = np.maximum(image[:, :, 2] if red else 0, red)
    return image


def encoded(image: Image, suffix: str = ".png") -> bytes:
    ok, data = cv2.imencode(suffix, image)
    assert ok
    return data.tobytes()


def drop(folder: Path, name: str, data: bytes) -> Path:
    """Puts a whole file into *folder* as a careful writer does: under a hidden name, then renamed."""
    hidden = folder / f".{name}.part"
    hidden.write_bytes(data)
    return hidden.rename(folder / name)


class Daemon:
    """
    ``station run`` as a process in *folder*, on free ports and with the tiny network, until told otherwise.

    *changes* go into its station.toml, by section. ``start`` may be called again after ``kill`` or ``stop``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        broker_port: int | None = None,
        changes: Overrides | None = None,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "station"),
    ) -> None:
        self.folder = folder
        self.inbox = folder / "inbox"
        self.data_dir = folder / "data"
        self.http_port = free_port()
        self.config = folder / "station.toml"
        self._environment = dict(environment or {})
        self._program = list(program)
        self._log = folder / "station.log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.inbox.mkdir(exist_ok=True)
        self._sections: dict[str, dict[str, object]] = {
            "station": {"name": "aoi-1", "topic": TOPIC, "data_dir": str(self.data_dir)},
            "source": {"path": str(self.inbox), "scan_s": 1.0},
            "detector": {"model": str(save_seeing(folder / "tiny.onnx")), "threads": 1, "backend": "onnxruntime"},
            "mqtt": {"port": broker_port or free_port(), "heartbeat_s": 0.5, "keepalive_s": 5},
            "http": {"port": self.http_port},
            "evidence": {"stop_below_mb": 2},
            "ledger": {"stop_below_mb": 1},
            "log": {"format": "json"},
        }
        self.configure(changes or {})

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def configure(self, changes: Overrides) -> None:
        """Writes station.toml anew with *changes* (None: without that key); they hold from the next start."""
        for section, values in changes.items():
            merged = {**self._sections.get(section, {}), **values}
            self._sections[section] = {key: value for key, value in merged.items() if value is not None}
        self.data_dir = Path(str(self._sections["station"]["data_dir"]))
        lines = []
        for section, values in self._sections.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
        self.config.write_text("\n".join(lines), encoding="utf-8")

    def start(self, *, wait: bool = True) -> Daemon:
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self.command("run"), cwd=self.folder, env=self.environment(), stdout=out, stderr=out
            )
        if wait:
            until(self.ready, within_s=PATIENCE_S, what=f"/readyz 200 ({self.text()[-2000:]})")
        return self

    def command(self, *arguments: str) -> list[str]:
        """``station ARGUMENTS -c`` this station's file."""
        return [sys.executable, *self._program, *arguments, "-c", str(self.config)]

    def environment(self) -> dict[str, str]:
        """Ours, without what would configure a station or a service."""
        foreign = re.compile(r"STATION_|NOTIFY_SOCKET|WATCHDOG_|CREDENTIALS_DIRECTORY|LOG_LEVEL|MODEL_PATH|CONFIDENCE_")
        return {key: value for key, value in os.environ.items() if not foreign.match(key)} | self._environment

    def environment_extra(self, **more: str) -> None:
        """What its environment holds besides, from the next start."""
        self._environment.update(more)

    def call(self, *arguments: str, within_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Runs another command on this station's configuration to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, when it ends by itself."""
        return self.process.wait(PATIENCE_S)

    def stop(self) -> int:
        """SIGTERM, as systemd sends it; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, if it is still there."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.http_port}{path}", timeout=10.0, trust_env=False)

    def status(self, path: str) -> int | None:
        """The status code of *path*; None while nobody answers."""
        try:
            return self.get(path).status_code
        except httpx.TransportError:
            return None

    def ready(self) -> bool:
        assert self.alive(), f"the station ended: {self.text()[-2000:]}"
        return self.status("/readyz") == httpx.codes.OK

    def text(self) -> str:
        """All that it has printed, over all starts."""
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """Its log lines, or only those that say *event*. Fails on a line that is no JSON."""
        lines: list[dict[str, Any]] = [json.loads(line) for line in self.text().splitlines()]
        return [line for line in lines if event in (None, line["event"])]

    def metric(self, name: str) -> float:
        """The value of the metric written exactly so, labels and all."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics").text, re.MULTILINE)
        assert found, f"no metric {name}"
        return float(found[1])

    def files(self, place: str = "") -> list[Path]:
        """The pictures in *place* (``done``, ``failed``, ``processing``), or those that still wait in the inbox."""
        folder = self.inbox / place
        found = folder.rglob("*") if place else folder.glob("*")
        return [one for one in found if one.is_file() and one.suffix in {".png", ".jpg"} and one.name[0] != "."]


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it came, without the station's own topic before it."""

    topic: str
    payload: bytes
    retained: bool

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.payload)
        return document


@dataclass(slots=True)
class Subscriber:
    """Receives everything below *topic* at QoS 1 in a session that outlives both connections and broker restarts."""

    port: int
    name: str = "listener"
    topic: str = TOPIC
    username: str | None = None
    password: str | None = None
    messages: list[Received] = field(default_factory=list)
    _subscribed: threading.Event = field(default_factory=threading.Event)
    _client: paho.Client | None = None

    def __enter__(self) -> Subscriber:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Subscriber:
        self._subscribed.clear()  # a broker that lost its memory has lost the last one too
        client = self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=self.name, clean_session=False, protocol=paho.MQTTv311
        )
        if self.username is not None:
            client.username_pw_set(self.username, self.password)
        client.reconnect_delay_set(1, 1)
        client.on_connect = lambda client, *_: client.subscribe(f"{self.topic}/#", qos=1)
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.on_message = lambda _client, _data, message: self.messages.append(
            Received(message.topic.removeprefix(f"{self.topic}/"), bytes(message.payload), message.retain)
        )
        client.connect_async("127.0.0.1", self.port, keepalive=5)
        client.loop_start()
        until(self._subscribed.is_set, within_s=PATIENCE_S, what="the subscription")
        return self

    def stop(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def below(self, topic: str) -> list[Received]:
        """What came on *topic* or below it."""
        return [one for one in list(self.messages) if one.topic == topic or one.topic.startswith(f"{topic}/")]

    def events(self) -> list[dict[str, Any]]:
        """Every inspection event, repeats and all."""
        return [one.document for one in self.below("inspection")]

    def faults(self, code: str, what: str) -> list[dict[str, Any]]:
        found = [one.document for one in self.below("fault")]
        return [one for one in found if (one["code"], one["what"]) == (code, what)]


class ServiceManager:
    """systemd's side of sd_notify: a socket that gathers what the service says."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.settimeout(0.2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._gather, name="service-manager")
        self._thread.start()

    def __enter__(self) -> ServiceManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def count(self, line: str) -> int:
        return sum(line in message.splitlines() for message in list(self.said))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _gather(self) -> None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                self.said.append(self._socket.recv(4096).decode())
