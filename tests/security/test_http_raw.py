"""Bytes that no client library sends, against the HTTP port of a real station: it says no, and the line goes on."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from station.web import connections
from tests.daemon import PATIENCE_S, Daemon, Overrides, drop, encoded, picture
from tests.deploy.servers import serving
from tests.security.raw import answer, connected, descriptors, is_closed, resident_mb, rest, statuses
from tests.waiting import until
from tests.web.ports import Served

HEAD = b" HTTP/1.1\r\nHost: station\r\n"
CLOSE = b"Connection: close\r\n\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=x\r\n"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
NO = {400, 404, 405, 413, 415, 422}

REFUSED = {
    "a line of 1 MB": b"GET /" + b"a" * 1_000_000 + HEAD + CLOSE,
    "a header of 1 MB": b"GET /livez" + HEAD + b"X: " + b"a" * 1_000_000 + b"\r\n" + CLOSE,
    "a method of 1 MB": b"A" * 1_000_000 + b" /livez" + HEAD + CLOSE,
    "a chunk of no size": b"POST /predict" + HEAD + CHUNKED + b"\r\nzz\r\nabc\r\n0\r\n\r\n",
    "a chunk of less than nothing": b"POST /predict" + HEAD + CHUNKED + b"\r\n-5\r\nabc\r\n0\r\n\r\n",
    "a chunk that is longer than it says": b"POST /command/x"
    + HEAD
    + JSON
    + CHUNKED
    + b"\r\n5\r\nabcdefgh\r\n0\r\n\r\n",
    "two lengths": b"POST /login" + HEAD + b"Content-Length: 6\r\nContent-Length: 7\r\n\r\n123456",
    "a negative length": b"POST /login" + HEAD + b"Content-Length: -1\r\n\r\n",
    "a length in words": b"POST /login" + HEAD + b"Content-Length: six\r\n\r\n123456",
    "an unknown encoding": b"POST /login" + HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two encodings": b"POST /login" + HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a NUL in the path": b"GET /li\0vez" + HEAD + CLOSE,
    "a NUL in a header": b"GET /livez" + HEAD + b"X: a\0b\r\n" + CLOSE,
    "another machine's address": b"GET http://evil.example/boards" + HEAD + CLOSE,
    "a tunnel": b"CONNECT evil.example:443" + HEAD + CLOSE,
    "the whole server": b"OPTIONS *" + HEAD + CLOSE,
    "a path without a slash": b"GET livez" + HEAD + CLOSE,
    "a path of two slashes": b"GET //boards" + HEAD + CLOSE,
    "bytes in the path": "GET /bürd".encode() + HEAD + CLOSE,
    "a very long path": b"GET /page/" + b"a" * 5000 + HEAD + CLOSE,
    "a very deep path": b"GET /page/" + b"a/" * 5000 + HEAD + CLOSE,
    "half a character": b"GET /boards/%ed%a0%80" + HEAD + CLOSE,
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no Host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /livez" + HEAD + b"Host: other\r\n" + CLOSE,
    "a space before the colon": b"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n",
    "TLS on a port without": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
    "all bytes there are": bytes(range(256)) * 40,
    "a number of 22 digits": b"GET /boards?limit=9999999999999999999999" + HEAD + CLOSE,
    "a NUL for a number": b"GET /boards?before_seq=%00" + HEAD + CLOSE,
    "a review of 8,000 brackets": b"POST /boards/x/review"
    + HEAD
    + JSON
    + b"Content-Length: 8000\r\n"
    + CLOSE
    + b"[" * 8000,
    "a command of 3,000 brackets": b"POST /command/x" + HEAD + JSON + b"Content-Length: 3000\r\n" + CLOSE + b"[" * 3000,
    "a review without a type": b"POST /boards/x/review" + HEAD + b"Content-Length: 2\r\n" + CLOSE + b"{}",
}
HALVES = {
    "nothing": b"",
    "half a line": b"GET /liv",
    "half a head": b"GET /livez HTTP/1.1\r\nHo",
    "half a second head": b"GET /livez" + HEAD + b"\r\nGET /li",
    "half an upload": b"POST /predict" + HEAD + FORM + b"Content-Length: 100\r\n\r\n--x",
    "half a login": b"POST /login"
    + HEAD
    + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\nk",
    "half a command": b"POST /command/trigger" + HEAD + JSON + b"Content-Length: 100\r\n\r\n{",
    "half a review": b"POST /boards/x/review" + HEAD + JSON + b"Content-Length: 100\r\n\r\n{",
    "a chunk of 2^80 bytes": b"POST /command/trigger" + HEAD + JSON + CHUNKED + b"\r\n" + b"f" * 20 + b"\r\nabc",
    "a length of 20 digits": b"POST /predict" + HEAD + FORM + b"Content-Length: " + b"9" * 20 + b"\r\n\r\nabc",
}
UPWARDS = (
    b"..",
    b"%2e%2e",
    b".%2e",
    b"..%2f..",
    b"..%5c..",
    b"%252e%252e",
    b"..;",
    b"....//",
    b"..%00",
    b"/etc",
    b"~root",
)


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    changes: Overrides = {"mqtt": {"enabled": False}, "http": {"requests_per_minute": 0}}
    with Daemon(tmp_path_factory.mktemp("raw") / "station", changes=changes) as one:
        yield one.start()


@pytest.fixture
def unmoved(station: Daemon) -> Iterator[Daemon]:
    """The station; after the test it is alive, has failed at nothing, and judges one more board."""
    before = len(station.text())
    yield station
    assert station.status("/livez") == httpx.codes.OK
    done = len(station.files("done"))
    drop(station.inbox, f"board-{done}.png", encoded(picture(done)))
    until(lambda: len(station.files("done")) > done, within_s=PATIENCE_S, what="one more board")
    bad = [
        line for line in map(json.loads, station.text()[before:].splitlines()) if line["level"] in {"error", "critical"}
    ]
    assert not bad, [line.get("exception", line)[-600:] for line in bad]


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_request_of_ours_is_refused_and_nothing_fails(station: Daemon, what: str) -> None:
    said = statuses(answer(station.http_port, REFUSED[what]))
    assert said, "it said nothing"
    assert set(said) <= NO, said


def test_after_all_that_the_line_goes_on(unmoved: Daemon) -> None:
    for request in (*REFUSED.values(), *HALVES.values()):  # and whoever has asked has gone before he is answered
        with connected(unmoved.http_port) as sock, suppress(OSError):
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)


def test_a_length_and_an_encoding_at_once_smuggle_no_second_request(unmoved: Daemon) -> None:
    """A proxy that goes by the length and a server that goes by the encoding see different requests: RFC 9112, 6.3."""
    second = b"GET /boards" + HEAD + CLOSE
    both = b"POST /login" + HEAD + b"Content-Length: %d\r\n" % (5 + len(second)) + CHUNKED + b"\r\n0\r\n\r\n"
    assert statuses(answer(unmoved.http_port, both + second)) == [400]


def test_pipelined_requests_are_answered_one_by_one(unmoved: Daemon) -> None:
    requests = (b"GET /livez" + HEAD + b"\r\n") * 99 + b"GET /livez" + HEAD + CLOSE
    assert statuses(answer(unmoved.http_port, requests)) == [200] * 100


def test_no_path_leads_out_of_a_folder_that_is_served(unmoved: Daemon) -> None:
    drop(unmoved.inbox, "seen.png", encoded(picture(77)))
    until(lambda: unmoved.get("/boards").json()["boards"], within_s=PATIENCE_S, what="a board")
    event_id = unmoved.get("/boards").json()["boards"][0]["event_id"]
    secret = b"data_dir"  # stands in the station's own file
    served = [b"/page/", b"/docs-files/", b"/boards/", b"/boards/" + event_id.encode() + b"/image/", b"/"]
    goals = [b"station.toml", b"ledger.db", str(unmoved.config).encode(), b"data/ledger.db"]
    for place in served:
        for up in UPWARDS:
            for goal in goals:
                for depth in (1, 4, 12):
                    said = answer(unmoved.http_port, b"GET " + place + (up + b"/") * depth + goal + HEAD + CLOSE)
                    assert set(statuses(said)) <= NO, (place, up, said[:200])
                    assert secret not in said
                    assert b"SQLite format" not in said


def test_an_endless_review_is_refused_before_it_is_in_memory(tmp_path: Path) -> None:
    """FastAPI would take all of it, and only then ask who sends it: 400 MB without a key were 400 MB of memory."""
    with Daemon(tmp_path / "station", changes={"mqtt": {"enabled": False}, "http": {"auth": "required"}}) as station:
        station.start()
        before_mb = resident_mb(station.process.pid)
        with connected(station.http_port) as sock, suppress(OSError):
            sock.sendall(b"POST /boards/x/review" + HEAD + JSON + b"Content-Length: 9000000000\r\n\r\n")
            for _ in range(100):
                sock.sendall(b" " * 1_000_000)
            assert statuses(rest(sock)) == [401]
        assert resident_mb(station.process.pid) < before_mb + 50
        assert station.status("/livez") == httpx.codes.OK


def test_five_hundred_silent_connections_shut_nobody_out(unmoved: Daemon) -> None:
    horde_stays_outside(unmoved, pid=unmoved.process.pid, count=500)


@pytest.mark.long
def test_five_thousand_silent_connections_shut_nobody_out(unmoved: Daemon) -> None:
    horde_stays_outside(unmoved, pid=unmoved.process.pid, count=5000)


def horde_stays_outside(station: Daemon, *, pid: int, count: int) -> None:
    before, before_mb = descriptors(pid), resident_mb(pid)
    with ExitStack() as stack:
        horde = [stack.enter_context(connected(station.http_port)) for _ in range(count)]
        assert station.status("/livez") == httpx.codes.OK
        assert descriptors(pid) <= before + connections.MAX_CONNECTIONS + 10
        assert sum(map(is_closed, horde)) >= count - connections.MAX_CONNECTIONS - 10
        drop(station.inbox, f"horde-{count}.png", encoded(picture(count)))
        until(
            lambda: any(one.name == f"horde-{count}.png" for one in station.files("done")),
            within_s=PATIENCE_S,
            what="the board, though they are there",
        )
    until(lambda: descriptors(pid) <= before + 5, within_s=PATIENCE_S, what="the descriptors back")
    assert resident_mb(pid) < before_mb + 50


def test_two_hundred_watchers_that_never_read_leave_the_line_alone(unmoved: Daemon) -> None:
    pid = unmoved.process.pid
    before, before_mb = descriptors(pid), resident_mb(pid)
    with ExitStack() as stack:
        deaf = []
        for _ in range(200):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.settimeout(PATIENCE_S)
            sock.connect(("127.0.0.1", unmoved.http_port))
            sock.sendall(b"GET /live" + HEAD + b"\r\n")
            deaf.append(sock)
        for number in range(30):
            drop(unmoved.inbox, f"deaf-{number}.png", encoded(picture(1000 + number)))
        until(
            lambda: sum(one.name.startswith("deaf-") for one in unmoved.files("done")) == 30,
            within_s=PATIENCE_S,
            what="thirty boards",
        )
        assert unmoved.status("/livez") == httpx.codes.OK
        said = [statuses(sock.recv(65536)) for sock in deaf]
        assert said.count([200]) == 32  # live.MAX_WATCHERS
        assert said.count([503]) == 168
    until(lambda: descriptors(pid) <= before + 5, within_s=PATIENCE_S, what="the descriptors back")
    assert resident_mb(pid) < before_mb + 50
    until(lambda: watched(unmoved), within_s=PATIENCE_S, what="a place for somebody who reads")


def watched(station: Daemon) -> bool:
    with connected(station.http_port) as sock:
        sock.sendall(b"GET /live" + HEAD + b"\r\n")
        return statuses(sock.recv(65536)) == [200]


@pytest.mark.parametrize("what", HALVES)
def test_who_does_not_finish_his_request_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(connections, "ASK_S", 0.3)
    monkeypatch.setattr(connections, "SEND_S", 0.3)
    served = Served(tmp_path)
    with served.client() as client, connected(served.settings.http.port) as sock:
        sock.sendall(HALVES[what])
        assert 500 not in statuses(rest(sock))
        assert client.get("/openapi.json").status_code == httpx.codes.OK


def test_a_byte_now_and_then_wins_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ASK_S", 0.5)
    served = Served(tmp_path)
    with served.client(), connected(served.settings.http.port) as sock:
        sock.sendall(b"GET /openapi.json HTTP/1.1\r\nX: ")

        def dripped_out() -> bool:
            with suppress(OSError):
                sock.sendall(b"y")
            return is_closed(sock)

        until(dripped_out, within_s=PATIENCE_S, what="the end of the connection")


def test_answers_that_are_not_taken_are_not_kept_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LISTEN_S", 0.3)
    served = Served(tmp_path)
    with served.client() as client, socket.socket() as sock:
        before = descriptors(os.getpid())  # the socket of this end is one of them
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.settimeout(PATIENCE_S)
        sock.connect(("127.0.0.1", served.settings.http.port))
        sock.sendall((b"GET /docs-files/swagger-ui-bundle.js" + HEAD + b"\r\n") * 20)
        until(
            lambda: served.counted("station_http_requests_total", path="unknown", status="200") > 0,
            what="a first answer",
        )
        until(lambda: descriptors(os.getpid()) == before, what="the end of the connection")
        assert client.get("/openapi.json").status_code == httpx.codes.OK


def test_the_workers_of_serve_have_the_same_limits(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "served", changes={"mqtt": {"enabled": False}})
    with serving(daemon, workers=1), ExitStack() as stack:
        horde = [stack.enter_context(connected(daemon.http_port)) for _ in range(400)]
        assert daemon.status("/livez") == httpx.codes.OK
        assert sum(map(is_closed, horde)) >= 400 - connections.MAX_CONNECTIONS - 10
        for request in REFUSED.values():
            assert set(statuses(answer(daemon.http_port, request))) <= NO
        assert daemon.status("/livez") == httpx.codes.OK
    assert '"Exception' not in (daemon.folder / "serve.log").read_text()
