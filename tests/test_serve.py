"""``station serve``: several workers on one port, and the two commands that make its keys and tokens."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from station.detectors.store import ModelStore
from tests.commands.test_model import damage
from tests.daemon import PATIENCE_S, Daemon, encoded, picture
from tests.waiting import until
from tests.web.test_tls import pair, serial_of


class Serving(Daemon):
    def command(self, *arguments: str) -> list[str]:
        replaced = ["serve", "--workers", "2"] if arguments == ("run",) else list(arguments)
        return super().command(*replaced)


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Serving]:
    one = Serving(tmp_path, changes={"http": {"auth": "required", "requests_per_minute": 0}})
    with one:
        yield one


def workers(station: Daemon) -> list[psutil.Process]:
    found = []
    for one in psutil.Process(station.process.pid).children():
        with suppress(psutil.Error):  # it has ended, and nobody has asked how
            found += [one] if "spawn_main" in " ".join(one.cmdline()) else []
    return found


def test_workers_share_the_port_keys_and_metrics_and_one_that_dies_is_replaced(station: Serving) -> None:
    key = station.call("key", "create", "line-2", "--scope", "predict").stdout.strip()
    assert re.fullmatch(r"st_[0-9a-f]{12}_\S{43}", key)
    assert "line-2" in station.call("key", "list").stdout
    station.start()
    until(lambda: len(workers(station)) == 2, within_s=PATIENCE_S)
    board = encoded(picture(1))
    url = f"http://127.0.0.1:{station.http_port}"

    def predict(headers: dict[str, str]) -> httpx.Response:
        return httpx.post(f"{url}/predict", files={"file": board}, headers=headers, timeout=60, trust_env=False)

    assert predict({}).status_code == 401
    assert [predict({"X-API-Key": key}).status_code for _ in range(8)] == [200] * 8
    token = station.call("token", "create", "dashboard", "--scope", "predict").stdout.strip()
    assert predict({"Authorization": f"Bearer {token}"}).status_code == 200
    assert station.metric('station_http_requests_total{path="/predict",status="200"}') == 9, "of both workers"
    memory = station.metric("station_workers_resident_memory_bytes")

    workers(station)[0].send_signal(signal.SIGKILL)
    until(lambda: len(workers(station)) == 2)
    until(lambda: predict({"X-API-Key": key}).status_code == 200, within_s=PATIENCE_S)
    until(lambda: station.metric("station_workers_resident_memory_bytes") < 1.5 * memory, what="the dead one's share")

    assert station.call("key", "revoke", "line-2").returncode == 0
    assert predict({"X-API-Key": key}).status_code == 401
    asked = [one for one in station.log("request") if one["path"] == "/predict"]
    assert {one["caller"] for one in asked} == {None, "line-2", "dashboard"}
    assert key not in station.text()
    assert token not in station.text()
    assert station.stop() == 0
    assert not [one for one in station.data_dir.parent.rglob("*.db") if "gauge" in one.name]


def test_workers_count_requests_together(station: Serving) -> None:
    station.configure({"http": {"auth": "off", "requests_per_minute": 6}})
    station.start()
    until(lambda: len(workers(station)) == 2, within_s=PATIENCE_S)
    url, board = f"http://127.0.0.1:{station.http_port}/predict", encoded(picture(1))
    answers = [httpx.post(url, files={"file": board}, timeout=60, trust_env=False).status_code for _ in range(20)]
    assert set(answers) == {200, 429}
    assert answers.count(200) in {6, 7}, "a new minute may begin"


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"detector": {"model": "away.onnx"}}, 3, "away.onnx"),
        ({"http": {"jwt_secret_file": "/nowhere/secret"}}, 2, "/nowhere/secret"),
        ({"recipe": {"thresholds": {"nonsense": 0.5}}}, 2, "nonsense"),
    ],
)
def test_what_is_wrong_is_said_once_and_ends_it(
    station: Serving, changes: dict[str, dict[str, object]], code: int, said: str
) -> None:
    station.configure(changes)
    station.start(wait=False)
    assert station.wait() == code
    (line,) = [one for one in station.text().splitlines() if one.startswith("station: ")]
    assert said in line
    assert "Traceback" not in station.text()


def test_a_model_that_is_damaged_gives_way_to_the_last_good_one_and_health_warns(station: Serving) -> None:
    station.configure({"detector": {"model": "store"}, "http": {"auth": "off"}})
    for name in ("one", "two"):
        assert station.call("model", "import", str(station.folder / "tiny.onnx"), "--name", name).returncode == 0
        assert station.call("model", "use", name).returncode == 0
        station.start()
        assert station.get("/health").json()["status"] == "pass"
        station.stop()
    damage(ModelStore(station.data_dir / "models"), "two")
    station.start()
    until(lambda: len(workers(station)) == 2, within_s=PATIENCE_S)
    url, board = f"http://127.0.0.1:{station.http_port}/predict", encoded(picture(1))
    for _ in range(8):  # whichever worker answers
        health = station.get("/health").json()
        assert (health["status"], health["notes"][0]) == ("warn", "model one")
        assert "station model use" in health["notes"][1]
        assert httpx.post(url, files={"file": board}, timeout=60, trust_env=False).json()["model"] == "one"


def test_workers_that_come_later_judge_with_the_same_model(station: Serving) -> None:
    station.configure({"detector": {"model": "store"}, "http": {"auth": "off", "requests_per_minute": 0}})
    for name in ("one", "two"):
        assert station.call("model", "import", str(station.folder / "tiny.onnx"), "--name", name).returncode == 0
    assert station.call("model", "use", "one").returncode == 0
    station.start()
    until(lambda: len(workers(station)) == 2, within_s=PATIENCE_S)
    assert station.call("model", "use", "two").returncode == 0
    first = {one.pid for one in workers(station)}
    for one in workers(station):
        one.send_signal(signal.SIGKILL)
    until(lambda: len({one.pid for one in workers(station)} - first) == 2, within_s=PATIENCE_S)
    until(station.ready, within_s=PATIENCE_S)
    assert station.get("/health").json()["notes"] == ["model one"]


def test_the_api_of_a_station_that_runs_judges_by_its_recipe_and_needs_no_key_on_loopback(tmp_path: Path) -> None:
    with Daemon(tmp_path) as station:
        station.start()
        url = f"http://127.0.0.1:{station.http_port}"
        answer = httpx.post(f"{url}/predict", files={"file": encoded(picture(1))}, timeout=60, trust_env=False).json()
        assert (answer["verdict"], answer["recipe"], answer["model"]) == ("fail", "default", "tiny")
        assert station.metric('station_http_requests_total{path="/predict",status="200"}') == 1
        assert station.metric('station_inspections_total{verdict="fail"}') == 0, "nothing is recorded"
        assert json.loads(station.call("ledger", "list", "--json").stdout or "[]") == []
        assert station.stop() == 0


def test_workers_speak_tls_and_take_over_a_renewed_certificate_without_turning_anybody_away(tmp_path: Path) -> None:
    cert, key, serial = pair(tmp_path / "now")
    new_cert, new_key, new_serial = pair(tmp_path / "new")
    with Serving(tmp_path, changes={"http": {"cert_file": str(cert), "key_file": str(key)}}) as station:
        station.start(wait=False)
        url = f"https://127.0.0.1:{station.http_port}"

        def lives() -> bool:  # whose certificate it is, is asked below
            return httpx.get(f"{url}/livez", verify=False, timeout=60, trust_env=False).is_success  # noqa: S501

        def begins() -> bool:
            with suppress(httpx.TransportError):
                return lives()
            return False

        until(begins, within_s=PATIENCE_S)
        until(lambda: len(workers(station)) == 2, within_s=PATIENCE_S)
        old = {one.pid for one in workers(station)}
        assert serial_of(url) == serial
        new_cert.replace(cert)
        new_key.replace(key)

        def renewed() -> bool:
            assert lives(), "nobody is turned away meanwhile"
            return serial_of(url) == new_serial and not old & {one.pid for one in workers(station)}

        until(renewed, within_s=PATIENCE_S, what="both workers with the new certificate")
        assert station.stop() == 0
