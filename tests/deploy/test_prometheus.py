"""deploy/prometheus and deploy/grafana against a real Prometheus that asks a real line and real API workers."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.daemon import PATIENCE_S, RED_FAILS, Daemon, drop, encoded, picture
from tests.deploy.servers import DEPLOY, documents, program, replaced, run, started
from tests.mosquitto import free_port
from tests.waiting import until

HOST = "127.0.0.2"  # not the loopback address that is open to everybody, and yet not open to the network
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
PANELS = [one for one in DASHBOARD["panels"] if one["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
ALERTS = [rule for group in documents(DEPLOY / "prometheus" / "alerts.yml")[0]["groups"] for rule in group["rules"]]
NAMES = re.compile(r"\b(?:station|process)_[a-z_]+")


def asked(query: str) -> str:
    """*query* as Grafana asks it, over what a short test has."""
    return query.replace("$instance", ".*").replace("$__rate_interval", "1m").replace("[24h]", "[5m]")


def configured(folder: Path, *, line: int, api: int, key: str) -> Path:
    """The shipped configuration with this test's addresses, asking every second."""
    (folder / "key").write_text(key)
    text = replaced(
        (DEPLOY / "prometheus" / "prometheus.yml").read_text(),
        {
            "10s": "1s",
            "/etc/prometheus/alerts.yml": str(DEPLOY / "prometheus" / "alerts.yml"),
            "/etc/prometheus/station-key": str(folder / "key"),
            '["station:8000"]': f'["{HOST}:{line}"]',
            """    dns_sd_configs:
      - names: ["api"]
        type: A
        port: 8000
        refresh_interval: 1s
""": f"""    static_configs:
      - targets: ["{HOST}:{api}"]
""",
        },
    )
    path = folder / "prometheus.yml"
    path.write_text(text)
    return path


@dataclass(frozen=True, slots=True)
class Prometheus:
    port: int

    def get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"http://127.0.0.1:{self.port}{path}", params=parameters, timeout=10.0, trust_env=False)
        document = answer.json()
        assert document["status"] == "success", document
        return document["data"]

    def query(self, text: str) -> list[Any]:
        found: list[Any] = self.get("/api/v1/query", query=text)["result"]
        return found

    def targets(self) -> dict[str, str]:
        """What it last thought of each: its health by its job, and why where that is bad."""
        active = self.get("/api/v1/targets")["activeTargets"]
        return {one["labels"]["job"]: one["lastError"] or one["health"] for one in active}


@dataclass(frozen=True, slots=True)
class Plant:
    """A line and an API that are in use, and what they say to who has the *key*."""

    prometheus: Prometheus
    line: Daemon
    api: Daemon
    key: str

    def url(self, daemon: Daemon, path: str) -> str:
        return f"http://{HOST}:{daemon.http_port}{path}"

    def metrics(self) -> str:
        said = ""
        for one in (self.line, self.api):
            answer = httpx.get(
                self.url(one, "/metrics"), headers={"Authorization": f"Bearer {self.key}"}, trust_env=False
            )
            assert answer.status_code == httpx.codes.OK, answer.text
            said += answer.text
        return said

    def use(self) -> None:
        """A board on the line, and a picture that comes twice to each API."""
        board = encoded(picture(uuid.uuid4().int % 2**32, red=RED_FAILS))
        drop(self.line.inbox, f"{uuid.uuid4()}.png", board)
        for one in (self.line, self.api):
            for _ in range(2):
                assert self.predict(one, self.key, board) == httpx.codes.OK

    def stumble(self) -> None:
        """The inbox is away for a moment: a loop fails, and is run again."""
        away = self.line.inbox.rename(self.line.folder / "away")
        until(lambda: "station_loop_restarts_total{" in self.metrics(), within_s=PATIENCE_S, what="a loop to fail")
        away.rename(self.line.inbox)
        until(lambda: ready(self.line), within_s=PATIENCE_S, what="the line to be well again")

    def predict(self, daemon: Daemon, key: str, board: bytes = b"") -> int:
        return httpx.post(
            self.url(daemon, "/predict"),
            files={"file": ("board.png", board)},
            headers={"X-API-Key": key},
            trust_env=False,
            timeout=30.0,
        ).status_code


def made_key(daemon: Daemon, *scopes: str) -> str:
    made = daemon.call("key", "create", "prometheus", *(word for scope in scopes for word in ("--scope", scope)))
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    binary = program("prometheus")
    folder = tmp_path_factory.mktemp("plant")
    http = {"host": HOST, "auth": "required", "requests_per_minute": 0}
    with ExitStack() as stack:
        line = stack.enter_context(Daemon(folder / "line", changes={"http": http}))
        data_dir = str(line.data_dir)  # as in compose.yaml: one volume, one set of keys
        api = Daemon(folder / "api", changes={"http": http, "station": {"data_dir": data_dir}})
        key = made_key(line, "read", "predict")
        line.start(wait=False)
        stack.enter_context(
            started(
                api.command("serve", "--workers", "2"),
                port=api.http_port,
                host=HOST,
                log=folder / "serve.log",
                environment=api.environment(),
            )
        )
        for one in (line, api):
            until(lambda one=one: ready(one), within_s=PATIENCE_S, what=f"/readyz of {one.folder}")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        config = configured(folder, line=line.http_port, api=api.http_port, key=key)
        port = free_port()
        command = [
            *(binary, f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb"),
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        stack.enter_context(started(command, port=port, log=folder / "prometheus.log"))
        plant = Plant(Prometheus(port), line, api, key)
        for one in (line, api):
            assert plant.predict(one, "st_a_stranger") == httpx.codes.UNAUTHORIZED
        plant.stumble()
        yield plant


def ready(daemon: Daemon) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{daemon.http_port}/readyz", trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def test_prometheus_finds_nothing_wrong_with_configuration_and_rules(tmp_path: Path) -> None:
    promtool = program("promtool")
    config = configured(tmp_path, line=8000, api=8001, key="x")
    for words in (("config", config), ("rules", DEPLOY / "prometheus" / "alerts.yml")):
        said = run(promtool, "check", *words)
        assert said.returncode == 0, said.stdout + said.stderr
    shipped = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    untouched = tmp_path / "shipped.yml"
    untouched.write_text(replaced(shipped, {"/etc/prometheus/": f"{DEPLOY}/prometheus/"}))
    said = run(promtool, "check", "config", "--syntax-only", untouched)
    assert said.returncode == 0, said.stdout + said.stderr


def test_each_alert_fires_when_it_should_and_is_silent_otherwise() -> None:
    said = run(program("promtool"), "test", "rules", DEPLOY / "prometheus" / "alerts_test.yml")
    assert said.returncode == 0, said.stdout + said.stderr
    tests = documents(DEPLOY / "prometheus" / "alerts_test.yml")[0]["tests"]
    tried = {(one["alert_rule_test"][0]["alertname"], bool(one["alert_rule_test"][0]["exp_alerts"])) for one in tests}
    assert tried == {(alert["alert"], fires) for alert in ALERTS for fires in (True, False)}


def test_each_alert_says_what_to_do() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert "$labels.instance" in alert["annotations"]["summary"]
        assert len(alert["annotations"]["description"]) > 20


def test_line_and_api_are_asked_with_the_key_and_are_up(plant: Plant) -> None:
    until(
        lambda: plant.prometheus.targets() == {"station": "up", "api": "up"},
        within_s=PATIENCE_S,
        what=f"both targets up ({plant.prometheus.targets()})",
    )


def test_without_the_key_there_are_no_metrics_and_prometheus_says_why(plant: Plant) -> None:
    for one in (plant.line, plant.api):
        answer = httpx.get(plant.url(one, "/metrics"), trust_env=False)
        assert answer.status_code == httpx.codes.UNAUTHORIZED


def test_every_rule_is_evaluated_without_an_error(plant: Plant) -> None:
    def rules() -> list[Any]:
        return [rule for group in plant.prometheus.get("/api/v1/rules")["groups"] for rule in group["rules"]]

    until(
        lambda: all(one["lastEvaluation"] > "2000" for one in rules()), within_s=PATIENCE_S, what="every rule evaluated"
    )
    assert {one["name"]: one["health"] for one in rules()} == {one["alert"]: "ok" for one in ALERTS}


def test_every_metric_of_the_rules_and_the_dashboard_exists(plant: Plant) -> None:
    def missing() -> set[str]:
        plant.use()
        said = set(re.findall(r"^([a-z_]+)", plant.metrics(), re.MULTILINE))
        return wanted - said

    wanted = {name for text in [*QUERIES, *(one["expr"] for one in ALERTS)] for name in NAMES.findall(text)}
    until(lambda: not missing(), within_s=PATIENCE_S, what=f"every metric in /metrics; missing: {missing()}")


def test_every_query_of_the_dashboard_is_answered_with_data(plant: Plant) -> None:
    left = dict.fromkeys(QUERIES)

    def nothing_left() -> bool:
        plant.use()
        for query in list(left):
            if plant.prometheus.query(asked(query)):
                del left[query]
        return not left

    try:
        until(nothing_left, within_s=2 * PATIENCE_S)
    except AssertionError:
        pytest.fail("no data for\n" + "\n".join(left))


def test_the_panels_are_told_apart_and_do_not_lie_on_each_other() -> None:
    ids = [one["id"] for one in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_dashboard_asks_the_data_source_that_is_provisioned() -> None:
    (source,) = documents(DEPLOY / "grafana" / "datasource.yml")[0]["datasources"]
    asked_of = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert asked_of == {source["uid"]}
    (provider,) = documents(DEPLOY / "grafana" / "dashboards.yml")[0]["providers"]
    compose = (DEPLOY.parent / "compose.yaml").read_text()
    assert f"dashboard.json:{provider['options']['path']}/" in compose
