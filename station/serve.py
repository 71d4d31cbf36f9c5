"""``station serve``: the inspection API alone, by several workers on one port, without a line, a ledger or a broker."""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from uvicorn.supervisors import Multiprocess

from station import __version__
from station.config import Settings
from station.folders import make_folder
from station.web.connections import BACKLOG, BoundedConnection, HttpConfig
from station.web.server import bind
from station.web.tls import ServerTls

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from station.types import ModelDetector

log = structlog.get_logger(__name__)

COUNTS = "requests.counts"
SHARED = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client looks for it when it is imported
STOP_S = 10
# A worker that takes longer to start is killed, and a renewed certificate is not taken: a machine may be busy. But one
# that dies while uvicorn waits for its word is replaced only then.
START_S = 15
PR_SET_PDEATHSIG = 1


def serve(settings: Settings, *, workers: int) -> None:
    """Serves until SIGTERM or Ctrl-C; a worker that dies is replaced. Raises ConfigError and ModelError at once."""
    make_folder(settings.station.data_dir, "[station] data_dir")
    settings = share_of(settings, workers)
    wanted = settings.http
    tls = None if wanted.cert_file is None or wanted.key_file is None else ServerTls(wanted.cert_file, wanted.key_file)
    bound = bind(wanted.host, wanted.port)
    shared = tempfile.mkdtemp(prefix="station-metrics-")
    os.environ[SHARED] = shared
    counts = Path(shared, COUNTS)
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as trial:  # its memory goes back with it
            # What is wrong is said once, and not by every worker over and over.
            settings, fallback = trial.submit(_settle, settings, counts, os.getpid()).result()
        config = HttpConfig(
            partial(make_worker, settings, counts, fallback, os.getpid()),
            factory=True,
            workers=workers,
            http=BoundedConnection,
            ws="none",
            backlog=BACKLOG,
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_S,
            timeout_worker_healthcheck=START_S,
            ssl_certfile=wanted.cert_file,
            ssl_keyfile=wanted.key_file,
        )
        if tls is not None:  # a renewed certificate: new workers take the places of the old ones, one by one
            tls.watch(renewed=lambda: os.kill(os.getpid(), signal.SIGHUP))
        log.info("serving", host=wanted.host, port=wanted.port, workers=workers, threads=settings.detector.threads)
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        Multiprocess(config, sockets=[bound]).run()
    finally:
        if tls is not None:
            tls.stop()
        bound.close()
        shutil.rmtree(shared, ignore_errors=True)


def share_of(settings: Settings, workers: int) -> Settings:
    """A worker's own: its part of the cores."""
    return settings.with_detector(threads=settings.detector.threads or max(1, len(os.sched_getaffinity(0)) // workers))


def _settle(settings: Settings, counts: Path, parent: int) -> tuple[Settings, str | None]:
    """
    Chooses the model as the daemon does: converted if need be, self-tested, or the last good one in its place.

    Returns the settings with that very model, for workers that are started at any time, and why it is not the
    configured one, or None. Raises ConfigError, ModelError.
    """
    from station.judge import ready_judge

    _begin_process(settings, parent)
    ready = ready_judge(settings, on_progress=lambda doing: log.info("model in work", doing=doing))
    if ready.chosen is not None:
        settings = settings.with_detector(model=ready.chosen)
    make_app(settings, ready.detector, counts, fallback=ready.fallback)
    return settings, ready.fallback


def make_worker(settings: Settings, counts: Path, fallback: str | None, parent: int) -> ASGIApp:
    """In a worker's process. *counts*: the file in which all of them count requests, where there is no Redis."""
    from station.judge import build_judge

    _begin_process(settings, parent)
    return make_app(settings, build_judge(settings).detector, counts, fallback=fallback)


def _begin_process(settings: Settings, parent: int) -> None:
    from station import log as logs
    from station.memory import share_one_heap

    share_one_heap()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # not to outlive a parent that was killed
    if os.getppid() != parent:  # it was killed before that
        raise SystemExit(1)
    logs.setup(level=settings.log.level, format=settings.log.format)


def make_app(settings: Settings, detector: ModelDetector, counts: Path, *, fallback: str | None) -> ASGIApp:
    """The application of one worker. Raises ConfigError, ModelError."""
    from station.benches import guest, plain_benches, turns_at
    from station.http_metrics import HttpMetrics, WorkerMetrics
    from station.memory import give_back
    from station.web.alive import add_alive
    from station.web.api import add_metrics, new_api
    from station.web_side import add_inspection, around, build_door

    recipes = plain_benches(settings, detector, abreast=True)
    give_back()
    turns = turns_at(settings, guests_abreast=True)
    shown = WorkerMetrics(version=__version__, model=detector.model.name)
    metrics = HttpMetrics(shown.registry)
    door = build_door(settings, metrics, counts=counts)
    api = new_api()
    add_alive(api, model=detector.model.name, version=__version__, fallback=fallback)
    if settings.http.metrics:
        add_metrics(api, metrics=shown.text, dependencies=[door.access.may("read")] if door.guarded else [])
    add_inspection(
        api,
        settings,
        choose=lambda _frame: guest(recipes[settings.recipe.name], turns),
        labels=detector.labels,
        door=door,
        metrics=metrics,
    )
    return around(api, settings, metrics)
