"""What Prometheus may ask of the HTTP port: the route's path as a label, never what a caller wrote."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

SIZES_BYTES = (1e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class HttpMetrics:
    """The collectors of one HTTP port, in *registry*."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter("station_http_requests", "Requests", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "station_http_request_duration_seconds", "Time of a request", ["path"], buckets=SECONDS, registry=registry
        )
        self._uploads = Histogram(
            "station_upload_bytes", "Size of a picture that was sent", buckets=SIZES_BYTES, registry=registry
        )
        self._hits = Counter("station_cache_hits", "Answers that were known already", registry=registry)
        self._failures = Counter(
            "station_http_auth_failures", "Callers who were not let in", ["reason"], registry=registry
        )
        self._inference = Histogram(
            "station_predict_duration_seconds", "Time of the network for a request", buckets=SECONDS, registry=registry
        )
        for reason in ("login", "scope"):
            self._failures.labels(reason)

    def counted(self, path: str, status: int, took_s: float) -> None:
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(took_s)

    def uploaded(self, size_bytes: int) -> None:
        self._uploads.observe(size_bytes)

    def hit(self) -> None:
        self._hits.inc()

    def inferred(self, seconds: float) -> None:
        self._inference.observe(seconds)

    def not_let_in(self, reason: str) -> None:
        """*reason*: login (no key or token, or a wrong one) or scope."""
        self._failures.labels(reason).inc()


class WorkerMetrics:
    """
    One worker's registry, and ``text`` of those of all workers together (prometheus_client's multiprocess mode).

    Memory and CPU are sums over the workers that are alive.
    """

    def __init__(self, *, version: str, model: str) -> None:
        self.registry = CollectorRegistry()
        self._memory = Gauge(
            "station_workers_resident_memory_bytes",
            "Memory of all workers",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._cpu = Gauge(
            "station_workers_cpu_seconds",
            "CPU time of all workers",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        build = Gauge(
            "station_build_info",
            "What runs here",
            ["version", "model"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        build.labels(version=version, model=model).set(1)
        self._look()

    def text(self) -> bytes:
        """The exposition format, of all workers."""
        self._look()
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if folder is None:
            return generate_latest(self.registry)
        for file in Path(folder).glob("gauge_live*_*.db"):
            pid = file.stem.rpartition("_")[2]
            if not Path("/proc", pid).exists():
                multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]  # it has no types
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # ditto
        return generate_latest(together)

    def _look(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._cpu.set(usage.ru_utime + usage.ru_stime)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        self._memory.set(pages * resource.getpagesize())
