"""deploy/nginx/nginx.conf as a real nginx runs it: in front of a real line and two real `station serve`."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.daemon import Daemon, drop, encoded, picture
from tests.deploy.servers import (
    DEPLOY,
    listens,
    program,
    replaced,
    run,
    serving,
    started,
    throw_away_certificate,
    trusting,
)
from tests.mosquitto import free_port
from tests.waiting import until

BOARD = encoded(picture(1))


@dataclass(frozen=True, slots=True)
class Proxy:
    """A real nginx in *folder*; *client* trusts its certificate."""

    folder: Path
    plain_port: int
    client: httpx.Client

    def log(self) -> list[dict[str, object]]:
        """Its access log, a line a request."""
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]


def configured(folder: Path, *, line: int, apis: list[int], plain: int, tls: int) -> Path:
    """The shipped configuration with this test's ports and folders."""
    folder.mkdir(exist_ok=True)
    cert, key = throw_away_certificate(folder)
    one = "server api:8000 max_fails=1 fail_timeout=5s;"
    text = replaced(
        (DEPLOY / "nginx" / "nginx.conf").read_text(),
        {
            "/tmp/": f"{folder}/",  # noqa: S108  # what stands in the file
            one: "\n        ".join(one.replace("api:8000", f"127.0.0.1:{port}") for port in apis),
            "server station:8000;": f"server 127.0.0.1:{line};",
            "listen 8080;": f"listen 127.0.0.1:{plain};",
            "listen 8443 ssl;": f"listen 127.0.0.1:{tls} ssl;",
            "/etc/nginx/tls/cert.pem": str(cert),
            "/etc/nginx/tls/key.pem": str(key),
            "/dev/stderr": f"{folder}/error.log",
            "/dev/stdout": f"{folder}/access.log",
        },
    )
    path = folder / "nginx.conf"
    path.write_text(text)
    return path


@contextmanager
def proxying(folder: Path, *, line: int, apis: list[int]) -> Iterator[Proxy]:
    plain, tls = free_port(), free_port()
    config = configured(folder, line=line, apis=apis, plain=plain, tls=tls)
    command = [program("nginx"), "-e", f"{folder}/error.log", "-c", str(config), "-g", "daemon off;"]
    with (
        started(command, port=tls, log=folder / "nginx.log"),
        httpx.Client(
            base_url=f"https://localhost:{tls}", verify=trusting(folder / "cert.pem"), timeout=30.0, trust_env=False
        ) as client,
    ):
        yield Proxy(folder, plain, client)


@dataclass(frozen=True, slots=True)
class Site:
    proxy: Proxy
    line: Daemon
    apis: tuple[Daemon, Daemon]
    key: str


# Their own limits are out of the way: here the proxy's are looked at.
OPEN = {"requests_per_minute": 0, "trusted_proxies": ["127.0.0.1"]}
SHUT = {**OPEN, "auth": "required"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    program("nginx")
    folder = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        line = stack.enter_context(Daemon(folder / "line", changes={"http": SHUT, "mqtt": {"enabled": False}}))
        line.start()
        made = line.call("key", "create", "page", "--scope", "read")
        assert made.returncode == 0, made.stderr
        apis = (
            Daemon(folder / "api-1", changes={"http": OPEN}),
            Daemon(folder / "api-2", changes={"http": SHUT}),
        )
        for one in apis:
            stack.enter_context(serving(one))
        ports = [one.http_port for one in apis]
        proxy = stack.enter_context(proxying(folder / "proxy", line=line.http_port, apis=ports))
        yield Site(proxy, line, apis, made.stdout.strip())


def predict(client: httpx.Client, data: bytes = BOARD) -> httpx.Response:
    return client.post("/predict", files={"file": ("board.png", data)})


def patiently(client: httpx.Client, data: bytes = BOARD) -> httpx.Response:
    """As ``predict``, again while the proxy says that it was too often."""
    answers: list[httpx.Response] = []

    def answered() -> bool:
        answers.append(predict(client, data))
        return answers[-1].status_code != httpx.codes.TOO_MANY_REQUESTS

    until(answered, what="an answer that is no 429")
    return answers[-1]


def test_nginx_finds_nothing_wrong_with_the_configuration(tmp_path: Path) -> None:
    config = configured(tmp_path, line=8000, apis=[8001, 8002], plain=free_port(), tls=free_port())
    said = run(program("nginx"), "-t", "-e", tmp_path / "error.log", "-c", config)
    assert said.returncode == 0, said.stderr
    assert "[warn]" not in said.stderr
    assert "[emerg]" not in said.stderr


def test_requests_are_spread_over_the_workers_behind_it(site: Site) -> None:
    def both() -> bool:
        patiently(site.proxy.client)
        seen = {one["upstream"] for one in site.proxy.log() if one["path"] == "/predict"}
        return {f"127.0.0.1:{one.http_port}" for one in site.apis} <= seen

    until(both, what="requests at both workers")


def test_plain_http_is_sent_on_to_tls(site: Site) -> None:
    answer = httpx.get(f"http://127.0.0.1:{site.proxy.plain_port}/docs?a=1", trust_env=False)
    assert answer.status_code == httpx.codes.MOVED_PERMANENTLY
    assert answer.headers["location"] == "https://127.0.0.1/docs?a=1"


def test_the_line_and_its_documentation_are_behind_the_same_address(site: Site) -> None:
    assert site.proxy.client.get("/livez").text == "ok\n"
    docs = site.proxy.client.get("/docs")
    assert docs.status_code == httpx.codes.OK
    assert docs.headers["strict-transport-security"]
    assert site.proxy.client.get("/redoc").status_code == httpx.codes.OK


def test_the_metrics_are_not_for_the_outside(site: Site) -> None:
    assert site.line.get("/metrics").status_code == httpx.codes.OK
    assert site.proxy.client.get("/metrics").status_code == httpx.codes.NOT_FOUND


def test_answers_are_compressed(site: Site) -> None:
    answer = site.proxy.client.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["info"]["title"] == "station"


def test_a_flood_is_answered_429_with_when_to_come_again(site: Site) -> None:
    def flood() -> bool:
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda _: site.proxy.client.get("/predict"), range(64))
        seen.extend(one for one in answers if one.status_code == httpx.codes.TOO_MANY_REQUESTS)
        return bool(seen)

    seen: list[httpx.Response] = []
    until(flood, what="a 429")
    assert seen[0].headers["retry-after"] == "1"
    assert seen[0].headers["content-type"] == "application/problem+json"
    assert seen[0].json()["status"] == httpx.codes.TOO_MANY_REQUESTS
    assert site.proxy.client.get("/livez").status_code == httpx.codes.OK  # who looks at the page is not in the way


def test_passwords_cannot_be_tried_by_the_hundred(site: Site) -> None:
    answers = [site.proxy.client.post("/token").status_code for _ in range(30)]
    assert answers.count(httpx.codes.TOO_MANY_REQUESTS) >= 10  # one a second and five at once, however slow this is


def test_what_a_client_claims_to_be_forwarded_for_is_not_believed(site: Site) -> None:
    def refused() -> bool:
        site.proxy.client.post("/predict", headers={"X-Forwarded-For": "203.0.113.9", "X-API-Key": "st_x_y"})
        return "caller not let in" in log.read_text()

    log = site.apis[1].folder / "serve.log"
    until(refused, what="a refusal in the worker's log")
    said = [json.loads(line) for line in log.read_text().splitlines() if "caller not let in" in line]
    assert {one["address"] for one in said} == {"127.0.0.1"}


def test_a_large_picture_is_refused_by_the_station_and_a_flood_of_bytes_by_the_proxy(site: Site) -> None:
    by_station = patiently(site.proxy.client, b"x" * 11_000_000)
    assert by_station.status_code in {httpx.codes.REQUEST_ENTITY_TOO_LARGE, httpx.codes.UNAUTHORIZED}
    by_proxy = patiently(site.proxy.client, b"x" * 13_000_000)
    assert by_proxy.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert "client_max_body_size" in by_proxy.json()["detail"]
    assert "buffered to a temporary file" not in (site.proxy.folder / "error.log").read_text()  # never on the disk


def test_the_page_is_logged_in_by_a_cookie_for_tls_alone_and_hears_boards_at_once(site: Site) -> None:
    def logged_in() -> bool:
        answer = site.proxy.client.post("/login", data={"key": site.key})
        cookies.append(answer.headers.get("set-cookie", ""))
        return answer.status_code == httpx.codes.NO_CONTENT

    cookies: list[str] = []
    assert site.proxy.client.get("/live").status_code == httpx.codes.UNAUTHORIZED
    until(logged_in, what="a login that was not too often")
    assert {"Secure", "HttpOnly", "SameSite=strict"} <= {word.strip() for word in cookies[-1].split(";")}
    with site.proxy.client.stream("GET", "/live") as answer:
        assert answer.status_code == httpx.codes.OK
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith("data:"))
        drop(site.line.inbox, "live.png", encoded(picture(77)))
        assert next(line for line in lines if "live.png" in line)


def test_a_worker_that_dies_costs_no_request(tmp_path: Path) -> None:
    program("nginx")
    first, second = (Daemon(tmp_path / name, changes={"http": OPEN}) for name in ("api-1", "api-2"))
    with (
        serving(first) as process,
        serving(second),
        proxying(tmp_path / "proxy", line=free_port(), apis=[first.http_port, second.http_port]) as proxy,
    ):
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert not listens(first.http_port)
        answers = [patiently(proxy.client).status_code for _ in range(20)]
        assert set(answers) == {httpx.codes.OK}


def test_without_any_station_behind_it_the_proxy_says_so(tmp_path: Path) -> None:
    with proxying(tmp_path / "proxy", line=free_port(), apis=[free_port()]) as proxy:
        for path in ("/", "/predict", "/live"):
            answer = proxy.client.get(path)
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert answer.headers["retry-after"] == "5"
            assert "no station behind it" in answer.json()["detail"]
