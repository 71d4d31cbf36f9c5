"""What Prometheus may ask of the station: base units, and never a board's own number as a label."""

from __future__ import annotations

import time
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
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from station.types import Inspection, Verdict

# From a tenth of a frame at full rate to a detector in trouble.
STAGE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0)


@dataclass(frozen=True, slots=True)
class Gauges:
    """
    Values that are read when somebody asks: what is owed, how old the oldest of it is, and is the broker there.

    *ready* is what ``/readyz`` says, *faults* the codes of what is wrong at the moment.
    """

    outbox_events: float
    outbox_oldest_age_s: float
    mqtt_connected: bool
    ready: bool
    faults: tuple[str, ...]
    disk_free_bytes: float


class Metrics:
    """
    All collectors of one station, in a registry of their own so that tests and processes do not share them.

    *last_s* is when the last board was answered before this start (UNIX time), None if there was none.
    """

    def __init__(self, *, version: str, model: str, read: Callable[[], Gauges], last_s: float | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # only OpenMetrics knows what to do with them
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
        self._skipped = Counter(
            "station_frames_skipped", "Pictures of the camera that came while the line was busy", registry=registry
        )
        self._triggers = Counter("station_triggers", "Triggers that came", registry=registry)
        self._missed = Counter(
            "station_triggers_missed", "Triggers answered without a picture", ["reason"], registry=registry
        )
        for reason in ("late", "queue"):
            self._missed.labels(reason)
        self._backlog = Gauge("station_source_backlog", "Pictures that wait in the folder", registry=registry)
        self._build = Gauge("station_build_info", "What runs here", ["version", "model"], registry=registry)
        self._build.labels(version=version, model=model).set(1)
        for verdict in Verdict:
            self._inspections.labels(verdict.value)
        for outcome in ("acked", "refused", "resent"):
            self._publishes.labels(outcome)
        self._last_s = last_s
        registry.register(_Read(read, last_s=lambda: self._last_s))
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
        self._last_s = time.time()

    def published(self, outcome: str, count: int = 1) -> None:
        """*outcome*: acked, refused or resent."""
        self._publishes.labels(outcome).inc(count)

    def skipped(self, pictures: int) -> None:
        self._skipped.inc(pictures)

    def triggered(self, missed: str | None) -> None:
        """A trigger came; *missed* says why there will be no picture for it."""
        self._triggers.inc()
        if missed is not None:
            self.missed("queue")

    def missed(self, reason: str) -> None:
        """*reason*: late (no result in time) or queue (too many waited)."""
        self._missed.labels(reason).inc()

    def restarted(self, loop: str) -> None:
        self._restarts.labels(loop).inc()

    def backlog(self, files: int) -> None:
        self._backlog.set(files)

    def text(self) -> bytes:
        """The exposition format, text/plain; version=1.0.0."""
        return generate_latest(self.registry)


class _Read(Collector):
    def __init__(self, read: Callable[[], Gauges], *, last_s: Callable[[], float | None]) -> None:
        self._read = read
        self._last_s = last_s

    def describe(self) -> Iterable[Metric]:
        return ()  # nothing is read before somebody asks

    def collect(self) -> Iterable[Metric]:
        now = self._read()
        yield GaugeMetricFamily("station_outbox_events", "Events the broker has not acknowledged", now.outbox_events)
        yield GaugeMetricFamily(
            "station_outbox_oldest_age_seconds", "Age of the oldest of them", now.outbox_oldest_age_s
        )
        yield GaugeMetricFamily("station_mqtt_connected", "1 while the broker is there", float(now.mqtt_connected))
        yield GaugeMetricFamily("station_ready", "1 while boards can be inspected", float(now.ready))
        faults = GaugeMetricFamily("station_fault", "1 while the fault lasts", labels=["code"])
        for code in now.faults:
            faults.add_metric([code], 1.0)
        yield faults
        yield GaugeMetricFamily(
            "station_disk_free_bytes", "Free where it is least: data folder or inbox", now.disk_free_bytes
        )
        last_s = self._last_s()
        if last_s is not None:  # absent before the first board: a zero would read as 1970
            yield GaugeMetricFamily(
                "station_last_inspection_timestamp_seconds", "When the last board was answered", last_s
            )
