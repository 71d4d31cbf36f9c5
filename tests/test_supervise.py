"""A loop that fails is run again after a pause, and nobody restarts the process for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import structlog.testing

from station import supervise
from station.errors import LedgerError, LinkError, SourceError
from station.health import Health
from station.supervise import HOPELESS, Worker
from station.types import Stop
from tests.waiting import until


@contextmanager
def working(run: Callable[[Stop], None], health: Health, restarts: list[str] | None = None) -> Iterator[Worker]:
    worker = Worker("line", run, health=health, on_restart=(restarts if restarts is not None else []).append)
    worker.start()
    try:
        yield worker
    finally:
        assert worker.stop(within_s=30.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "PAUSES_S", (0.001,))


@pytest.mark.usefixtures("quick")
def test_a_loop_that_fails_is_run_again_and_counted() -> None:
    runs: list[int] = []
    restarts: list[str] = []
    health = Health()

    def run(stop: Stop) -> None:
        runs.append(1)
        if len(runs) < 3:
            raise SourceError("the camera is unplugged")
        stop.wait()

    with working(run, health, restarts):
        until(lambda: len(runs) == 3)
    assert restarts == ["line", "line"]
    assert [fault.code for fault in health.faults()] == ["line_failing"]
    assert health.not_ready() == {"line": "failed 2 times: the camera is unplugged"}, "no board can be taken"


@pytest.mark.usefixtures("quick")
def test_five_failures_without_work_between_them_make_the_station_not_ready_and_one_unit_of_work_mends_it() -> None:
    health = Health()
    mended = threading.Event()
    runs: list[int] = []

    def run(stop: Stop) -> None:
        runs.append(1)
        if not mended.is_set():
            raise LinkError("no such file")
        worker.worked()
        stop.wait()

    with working(run, health) as worker:
        until(lambda: "line" in health.not_ready())
        assert len(runs) >= HOPELESS
        assert "no such file" in health.not_ready()["line"]
        mended.set()
        until(lambda: not health.not_ready() and not health.faults())


@pytest.mark.usefixtures("quick")
def test_what_fails_all_night_in_the_same_way_is_an_error_once_and_again_when_it_changes() -> None:
    runs: list[int] = []
    health = Health()

    def run(stop: Stop) -> None:
        runs.append(1)
        if len(runs) == 6:
            worker.worked()
        if len(runs) == 8:
            stop.wait()
            return
        raise SourceError("the inbox is not there" if len(runs) < 4 else "the inbox cannot be read")

    with structlog.testing.capture_logs() as lines, working(run, health) as worker:
        until(lambda: len(runs) == 8)
        assert [fault.code for fault in health.faults()] == ["line_failing"], "however often it is said"
    told = [(line["log_level"], line["error"]) for line in lines if line["event"] == "loop failed"]
    away, closed = "the inbox is not there", "the inbox cannot be read"
    assert told == [
        ("error", away),
        ("debug", away),
        ("debug", away),
        ("error", closed),
        ("debug", closed),
        ("error", closed),  # it had worked in between
        ("debug", closed),
    ]


@pytest.mark.usefixtures("quick")
def test_work_between_failures_keeps_the_station_ready() -> None:
    health = Health()
    runs: list[int] = []

    def run(stop: Stop) -> None:
        runs.append(1)
        worker.worked()
        if len(runs) > 3 * HOPELESS:
            stop.wait()
        else:
            raise LinkError("now and then")

    with working(run, health) as worker:
        until(lambda: len(runs) > 3 * HOPELESS)
        assert health.not_ready() == {}


@pytest.mark.usefixtures("quick")
def test_a_ledger_that_cannot_commit_makes_the_station_not_ready_at_once() -> None:
    health = Health()
    runs: list[int] = []

    def run(stop: Stop) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise LedgerError("disk full")
        stop.wait()

    with working(run, health):
        until(lambda: len(runs) == 2)
        assert "disk full" in health.not_ready()["line"]


def test_the_worker_beats_for_its_loop_while_it_waits_out_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "PAUSES_S", (3600.0,))
    beats: list[str] = []
    health = Health()
    monkeypatch.setattr(health, "beat", beats.append)

    def run(_stop: Stop) -> None:
        raise SourceError("away")

    with working(run, health):
        until(lambda: len(beats) >= 2)
    assert set(beats) == {"line"}


def test_a_pause_ends_at_once_when_the_worker_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "PAUSES_S", (3600.0,))
    health = Health()

    def run(_stop: Stop) -> None:
        raise SourceError("away")

    with working(run, health):
        until(health.faults)


def test_a_loop_that_does_not_heed_its_stop_is_said_to_run_on() -> None:
    release = threading.Event()

    def run(_stop: Stop) -> None:
        release.wait()

    worker = Worker("line", run, health=Health(), on_restart=lambda _name: None)
    worker.start()
    assert not worker.stop(within_s=0.01)
    release.set()
    assert worker.stop(within_s=30.0)


def test_a_worker_that_never_started_is_stopped_without_a_wait() -> None:
    worker = Worker("line", lambda _stop: None, health=Health(), on_restart=lambda _name: None)
    assert worker.stop(within_s=30.0)


@pytest.mark.usefixtures("quick")
def test_a_loop_that_returns_before_its_stop_is_paused_and_run_again_and_never_spun() -> None:
    """A source that ends by itself breaks its promise: that is a failure like any other."""
    restarts: list[str] = []
    health = Health()
    with working(lambda _stop: None, health, restarts):
        until(lambda: "line" in health.not_ready())
    assert len(restarts) >= HOPELESS
