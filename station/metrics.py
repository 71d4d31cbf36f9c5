"""What Prometheus may ask of the station: base units, and never a board's own number as a label."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from station.types import Inspection, Verdict

# From a tenth of a frame at full rate to a detector in trouble.
STAGE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0)


@dataclass(frozen=True, slots=True)
class Gauges:
    """Values that are read when somebody asks: what is owed, how old the oldest of it is, and is the broker there."""

    outbox_events: float
    outbox_oldest_age_s: float
    mqtt_connected: bool


class Metrics:
    """All collectors of one station, in a registry of their own so that tests and processes do not share them."""

    def __init__(self, *, version: str, model: str, read: Callable[[], Gauges]) -> None:
        self.registry = registry = CollectorRegistry()
        self._inspections = Counter("station_inspections", "Boards answered", ["verdict"], registry=registry)
        self._defects = Counter("station_defects", "Defects that failed a board", ["label"], registry=registry)
        self._stages = Histogram(
            "station_stage_duration_seconds",
            "Time a board spends",
            ["stage"],
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self._publishes = Counter("station_mqtt_publishes", "Events sent, by outcome", ["outcome"], registry=registry)
        self._restarts = Counter(
            "station_loop_restarts", "Loops run again after a failure", ["loop"], registry=registry
        )
        self._backlog = Gauge("station_source_backlog", "Pictures that wait in the folder", registry=registry)
        self._last = Gauge(
            "station_last_inspection_timestamp_seconds", "When the last board was answered", registry=registry
        )
        self._build = Gauge("station_build_info", "What runs here", ["version", "model"], registry=registry)
        self._build.labels(version=version, model=model).set(1)
        for verdict in Verdict:
            self._inspections.labels(verdict.value)
        for outcome in ("acked", "refused", "resent"):
            self._publishes.labels(outcome)
        registry.register(_Read(read))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def inspected(self, inspection: Inspection) -> None:
        decision = inspection.decision
        self._inspections.labels(decision.verdict.value).inc()
        for one in decision.defects:
            if one.counts:
                self._defects.labels(one.defect.label).inc()
        if inspection.detect_ms is not None:
            self._stages.labels("detect").observe(inspection.detect_ms / 1e3)
        self._stages.labels("total").observe(inspection.total_ms / 1e3)
        self._last.set_to_current_time()

    def published(self, outcome: str, count: int = 1) -> None:
        """*outcome*: acked, refused or resent."""
        self._publishes.labels(outcome).inc(count)

    def restarted(self, loop: str) -> None:
        self._restarts.labels(loop).inc()

    def backlog(self, files: int) -> None:
        self._backlog.set(files)

    def text(self) -> bytes:
        """The exposition format, text/plain; version=1.0.0."""
        return generate_latest(self.registry)


class _Read(Collector):
    def __init__(self, read: Callable[[], Gauges]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()  # nothing is read before somebody asks

    def collect(self) -> Iterable[Metric]:
        now = self._read()
        yield GaugeMetricFamily("station_outbox_events", "Events the broker has not acknowledged", now.outbox_events)
        yield GaugeMetricFamily(
            "station_outbox_oldest_age_seconds", "Age of the oldest of them", now.outbox_oldest_age_s
        )
        yield GaugeMetricFamily("station_mqtt_connected", "1 while the broker is there", float(now.mqtt_connected))
