"""A real HTTP port with the station's API on it, judged by a fake, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, generate_latest

from station.config import Settings
from station.http_metrics import HttpMetrics
from station.inspection import Bench
from station.types import Box, Defect, Image, ModelInfo, Recipe
from station.web.api import new_api
from station.web.server import WebServer
from station.web_side import Door, add_inspection, around, build_door, build_tls
from tests.mosquitto import free_port

LABELS = ("open", "short")
SHORT = Defect("short", 0.91, Box(10, 20, 30, 40), "fake")


def png(width: int = 64, height: int = 48, *, seed: int = 0) -> bytes:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image[: height // 2] = 0
    image[height // 2 :, : width // 2] = 255
    written, data = cv2.imencode(".png", image)
    assert written
    return bytes(data)


@dataclass(frozen=True)
class _Detector:
    detect: Callable[[Image], list[Defect]]
    model: ModelInfo = field(default_factory=lambda: ModelInfo("fake", "0" * 64))


class Served:
    """The API on a free port; *bench* judges, and may be replaced between requests."""

    def __init__(
        self,
        folder: Path,
        *,
        detect: Callable[[Image], list[Defect]] | None = None,
        api: FastAPI | None = None,
        depth_bits: int = 16,
        **http: Any,
    ) -> None:
        self.settings = Settings.model_validate(
            {
                "station": {"name": "aoi-1", "data_dir": folder},
                "source": {"depth_bits": depth_bits},
                "http": {"port": free_port(), **http},
            }
        )
        self.judged = 0
        self.registry = CollectorRegistry()
        self.metrics = HttpMetrics(self.registry)

        def counting(image: Image) -> list[Defect]:
            self.judged += 1
            return [SHORT] if detect is None else detect(image)

        self.bench = Bench(_Detector(counting), Recipe("default", 0.5), "r1", "aoi-1", lambda: True)
        self.door: Door = build_door(self.settings, self.metrics)
        api = api or new_api()
        add_inspection(
            api,
            self.settings,
            choose=lambda _frame: self.bench,
            labels=LABELS,
            door=self.door,
            metrics=self.metrics,
        )
        self.api = api
        http_settings = self.settings.http
        self.url = f"{'https' if http_settings.cert_file else 'http'}://127.0.0.1:{http_settings.port}"
        self.app = around(api, self.settings, self.metrics)
        self._tls = build_tls(self.settings)

    @contextmanager
    def client(self, **options: Any) -> Iterator[httpx.Client]:
        server = WebServer(self.app, host=self.settings.http.host, port=self.settings.http.port, tls=self._tls)
        server.start()
        try:
            with httpx.Client(base_url=self.url, timeout=30, trust_env=False, **options) as client:
                yield client
        finally:
            server.stop(within_s=30)

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def metrics_text(self) -> str:
        return generate_latest(self.registry).decode()


def send(client: httpx.Client, data: bytes, path: str = "/predict", **options: Any) -> httpx.Response:
    return client.post(path, files={"file": ("board.png", data)}, **options)
