"""The health port: machines go by the status code, people read the rest."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest

from station.errors import ConfigError, LedgerError
from station.health import Health
from station.heartbeat import Vitals
from station.metrics import Gauges, Metrics
from station.remote import Commands
from station.today import Today
from station.web.api import create_api
from station.web.server import WebServer
from tests.boards import board
from tests.mosquitto import free_port

COMMANDS = Commands(challenge=lambda: {"announced": True})


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def vitals_of(health: Health, *, connected: bool = True, owed: int = 0) -> Vitals:
    return Vitals(
        station="aoi-1",
        version="1.2.3",
        model="pcb-demo",
        model_sha256="m",
        recipe="default",
        at="2026-11-23T12:00:00.000Z",
        uptime_s=1.0,
        inspections={"pass": 0, "fail": 0, "unknown": 0},
        last_seq=0,
        owed=owed,
        owed_oldest_s=2.5,
        refused=0,
        connected=connected,
        protocol="5",
        beats_s=health.ages_s(),
        stalled=tuple(health.stalled()),
        not_ready=health.not_ready(),
        faults=tuple(health.faults()),
        free_mb=1234.0,
        backlog=0,
        today=Today(datetime(2026, 11, 23, tzinfo=timezone.utc), 0, None),
    )


GAUGES = Gauges(
    outbox_events=3,
    outbox_oldest_age_s=4.5,
    mqtt_connected=True,
    ready=True,
    faults=("broker_busy", "disk_low"),
    disk_free_bytes=7e9,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    health = Health(monotonic=clock, wall=clock)
    health.watch("line", limit_s=30.0)
    return health


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1.2.3", model="pcb-demo", read=lambda: GAUGES)


@pytest.fixture
def client(health: Health, metrics: Metrics) -> Iterator[httpx.Client]:
    port = free_port()
    api = create_api(
        health=health, vitals=lambda: vitals_of(health), metrics=metrics.text, carry_out=COMMANDS.carry_out, answer_s=1
    )
    server = WebServer(api, host="127.0.0.1", port=port)
    server.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0, trust_env=False) as client:
        yield client
    server.stop(within_s=30.0)


def test_a_station_that_is_well_answers_ok_everywhere(client: httpx.Client) -> None:
    for path in ("/livez", "/readyz"):
        answer = client.get(path)
        assert (answer.status_code, answer.text) == (200, "ok\n")
        assert answer.headers["content-type"].startswith("text/plain")
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/health+json"
    assert answer.json()["status"] == "pass"


def test_verbose_lists_every_check_also_when_all_is_well(client: httpx.Client) -> None:
    assert client.get("/livez?verbose=1").text == "[+]line ok\nok\n"
    assert "[+]disk ok\n" in client.get("/readyz?verbose=1").text


def test_a_stalled_loop_is_not_alive_and_named(client: httpx.Client, clock: Clock) -> None:
    clock.now_s += 31.0
    answer = client.get("/livez")
    assert answer.status_code == 503
    assert "[-]line has stalled" in answer.text
    ready = client.get("/readyz")
    assert ready.status_code == 503, "it stayed ready, though no board is inspected"
    assert "[-]line it has not moved for more than" in ready.text
    whole = client.get("/health")
    assert whole.status_code == 503
    assert whole.json()["checks"]["line:beat_age"][0] == {
        "componentType": "component",
        "observedValue": 31.0,
        "observedUnit": "s",
        "status": "fail",
    }


def test_a_full_disk_is_not_ready_and_says_why_but_is_no_reason_to_restart(
    client: httpx.Client, health: Health
) -> None:
    health.cannot("disk", "3 MB free, 200 MB needed")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "[-]disk 3 MB free, 200 MB needed" in answer.text
    assert client.get("/livez").status_code == 200
    whole = client.get("/health")
    assert (whole.status_code, whole.json()["status"]) == (503, "fail")
    assert whole.json()["checks"]["disk:ready"][0]["output"] == "3 MB free, 200 MB needed"


def test_a_broker_that_is_away_is_a_warning_and_ready(client: httpx.Client, health: Health) -> None:
    health.begin("broker_away", "connection refused")
    assert client.get("/readyz").status_code == 200
    whole = client.get("/health")
    assert (whole.status_code, whole.json()["status"]) == (200, "warn")
    assert whole.json()["notes"] == ["broker_away: connection refused"]
    assert whole.json()["faults"] == [
        {"code": "broker_away", "detail": "connection refused", "since": "1970-01-01T00:01:40.000Z"}
    ]


def test_every_metric_of_the_interface_is_there_before_the_first_board(client: httpx.Client, metrics: Metrics) -> None:
    text = client.get("/metrics").text
    for line in (
        'station_inspections_total{verdict="unknown"} 0.0',
        "station_outbox_events 3.0",
        "station_outbox_oldest_age_seconds 4.5",
        "station_mqtt_connected 1.0",
        "station_ready 1.0",
        'station_fault{code="broker_busy"} 1.0',
        'station_fault{code="disk_low"} 1.0',
        "station_disk_free_bytes 7e+09",
        'station_mqtt_publishes_total{outcome="resent"} 0.0',
        "station_source_backlog 0.0",
        'station_build_info{model="pcb-demo",version="1.2.3"} 1.0',
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
    ):
        assert line in text, line
    metrics.inspected(board())
    assert 'station_inspections_total{verdict="pass"} 1.0' in client.get("/metrics").text
    assert "station_stage_duration_seconds_count" in client.get("/metrics").text


def test_the_last_board_is_no_news_of_1970_and_is_known_over_a_restart(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "station_last_inspection_timestamp_seconds"
    assert name not in metrics.text().decode(), "there was none yet"
    again = Metrics(version="1.2.3", model="pcb-demo", read=lambda: GAUGES, last_s=1700000000.5)
    assert f"\n{name} 1.7000000005e+09\n" in again.text().decode()
    monkeypatch.setattr("time.time", lambda: 1800000000.0)
    again.inspected(board())
    assert f"\n{name} 1.8e+09\n" in again.text().decode()


def test_there_is_no_second_series_beside_each_counter(metrics: Metrics) -> None:
    metrics.inspected(board())
    assert "_created" not in metrics.text().decode()


@pytest.mark.parametrize(
    "ask", [lambda client: client.get("/nothing"), lambda client: client.post("/livez"), lambda client: client.get("/")]
)
def test_what_is_not_there_is_a_client_error_and_no_traceback(
    client: httpx.Client, ask: Callable[[httpx.Client], httpx.Response]
) -> None:
    assert 400 <= ask(client).status_code < 500


def test_a_ledger_that_cannot_be_read_is_a_503_that_says_so(health: Health, clock: Clock) -> None:
    def unreadable() -> Vitals:
        raise LedgerError("the disk answers with errors")

    def gauges() -> Gauges:
        raise LedgerError("the disk answers with errors")

    port, metrics = free_port(), Metrics(version="1.2.3", model="pcb-demo", read=gauges)
    server = WebServer(
        create_api(health=health, vitals=unreadable, metrics=metrics.text, carry_out=COMMANDS.carry_out, answer_s=1),
        host="127.0.0.1",
        port=port,
    )
    server.start()
    try:
        for path in ("/health", "/metrics"):
            answer = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=30.0, trust_env=False)
            assert answer.status_code == 503
            assert "the disk answers with errors" in answer.text
    finally:
        server.stop(within_s=30.0)


def test_a_port_that_is_taken_is_a_config_error_that_names_it(health: Health, metrics: Metrics) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        api = create_api(
            health=health,
            vitals=lambda: vitals_of(health),
            metrics=metrics.text,
            carry_out=COMMANDS.carry_out,
            answer_s=1,
        )
        with pytest.raises(ConfigError, match=rf"\[http\] port: 127\.0\.0\.1:{port} cannot be used"):
            WebServer(api, host="127.0.0.1", port=port).start()


def test_a_server_that_was_stopped_gives_its_port_back(health: Health, metrics: Metrics) -> None:
    api, port = (
        create_api(
            health=health,
            vitals=lambda: vitals_of(health),
            metrics=metrics.text,
            carry_out=COMMANDS.carry_out,
            answer_s=1,
        ),
        free_port(),
    )
    for _ in range(2):
        server = WebServer(api, host="127.0.0.1", port=port)
        server.start()
        assert httpx.get(f"http://127.0.0.1:{port}/livez", timeout=30.0, trust_env=False).status_code == 200
        server.stop(within_s=30.0)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False)


def test_a_command_is_answered_with_its_response(client: httpx.Client) -> None:
    answer = client.post("/command/challenge", json={})
    assert (answer.status_code, answer.json()) == (200, {"command": "challenge", "ok": True, "announced": True})


@pytest.mark.parametrize(
    ("name", "send", "status", "why"),
    [
        ("recipe", {"json": {"name": "b"}}, 400, "not allowed"),
        ("challenge", {"content": b"{", "headers": {"content-type": "application/json"}}, 400, "no JSON"),
    ],
)
def test_a_command_that_is_refused_says_why(
    client: httpx.Client, name: str, send: dict[str, Any], status: int, why: str
) -> None:
    answer = client.post(f"/command/{name}", **send)
    assert answer.status_code == status
    assert answer.json()["ok"] is False
    assert why in answer.json()["error"]


@pytest.mark.parametrize(
    ("send", "status", "detail"),
    [
        ({"content": b"{}"}, 415, "send it as Content-Type: application/json"),
        (
            {"data": {"number": "1"}},
            415,
            "send it as Content-Type: application/json",
        ),  # a form, as any page may send it
        ({"json": {"x": "y" * 5000}}, 413, "a command has at most 4096 bytes"),
    ],
)
def test_what_cannot_be_a_command_at_all_is_an_error_as_everywhere(
    client: httpx.Client, send: dict[str, Any], status: int, detail: str
) -> None:
    answer = client.post("/command/challenge", **send)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (answer.json()["status"], answer.json()["detail"]) == (status, detail)


def test_a_trigger_that_nobody_answers_ends_all_the_same(
    health: Health, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("station.web.command.GRACE_S", 0.0)
    api = create_api(
        health=health,
        vitals=lambda: vitals_of(health),
        metrics=metrics.text,
        carry_out=lambda _command: None,
        answer_s=0.01,
    )
    port = free_port()
    server = WebServer(api, host="127.0.0.1", port=port)
    server.start()
    try:
        answer = httpx.post(f"http://127.0.0.1:{port}/command/trigger", json={}, timeout=30.0, trust_env=False)
        assert (answer.status_code, answer.json()["ok"]) == (504, False)
    finally:
        server.stop(within_s=30.0)
