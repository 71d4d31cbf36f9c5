"""Answers and limits that are shared through a real Redis, and what happens without it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
import redis
from structlog.testing import capture_logs

from station.web.cache import MemoryCache, RedisCache, key_of
from station.web.rate import RateLimit
from tests.mosquitto import free_port
from tests.waiting import until
from tests.web.ports import Served, png, send

needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None and "CI" not in os.environ, reason="needs redis-server: scripts/test has it"
)


@contextmanager
def redis_server(folder: Path, port: int) -> Iterator[str]:
    program = shutil.which("redis-server")
    assert program is not None
    server = subprocess.Popen(
        [program, "--port", str(port), "--save", "", "--dir", str(folder)], stdout=subprocess.DEVNULL
    )
    try:
        with redis.Redis(port=port) as client:

            def answers() -> bool:
                try:
                    return bool(client.ping())
                except redis.ConnectionError:
                    return False

            until(answers)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait(30)


def test_memory_is_bounded_and_the_answer_used_longest_ago_goes_first() -> None:
    cache = MemoryCache(1000)
    for number in range(4):
        cache.put(f"{number}" * 64, b"x" * 200)
    assert cache.get("0" * 64) is None
    assert cache.get("1" * 64) is not None
    cache.put("4" * 64, b"x" * 200)
    assert (cache.get("1" * 64) is None, cache.get("2" * 64) is None) == (False, True)
    cache.put("5" * 64, b"x" * 5000)
    assert cache.get("5" * 64) is None, "larger than all of it"
    cache.put("6" * 64, b"x")
    cache.put("6" * 64, b"y")
    assert cache.get("6" * 64) == b"y"
    assert cache._bytes == sum(len(key) + len(value) for key, value in cache._kept.items())


def test_the_key_is_of_the_picture_and_of_who_judges() -> None:
    assert len({key_of(data, judge=judge) for data in (b"a", b"b") for judge in ("m r", "m s", "n r")}) == 6


@needs_redis
def test_two_machines_share_what_they_know_and_how_often_one_asks(tmp_path: Path) -> None:
    with redis_server(tmp_path, free_port()) as address:
        first, second = (Served(tmp_path / name, redis=address, requests_per_minute=3) for name in ("a", "b"))
        with first.client() as one, second.client() as other:
            assert [send(one, png()).status_code, send(other, png()).status_code] == [200, 200]
            assert (first.judged, second.judged) == (1, 0)
            assert second.counted("station_cache_hits_total") == 1
            assert [send(other, png()).status_code, send(one, png()).status_code] == [200, 429]


@needs_redis
def test_without_redis_pictures_are_judged_and_nobody_is_turned_away(tmp_path: Path) -> None:
    port = free_port()
    served = Served(tmp_path, redis=f"redis://127.0.0.1:{port}/0", requests_per_minute=1)
    with served.client() as client:
        assert [send(client, png()).status_code for _ in range(3)] == [200] * 3
        assert served.judged == 3
        with redis_server(tmp_path, port):
            until(lambda: send(client, png()).status_code == 429)


def test_a_redis_that_is_away_is_a_miss() -> None:
    cache = RedisCache(f"redis://127.0.0.1:{free_port()}/0")
    cache.put("a", b"x")
    assert cache.get("a") is None
    cache.close()


@needs_redis
def test_a_redis_that_does_not_answer_is_waited_for_once_and_not_by_every_request(tmp_path: Path) -> None:
    now_s = [0.0]
    port = free_port()
    with redis_server(tmp_path, port) as address, redis.Redis(port=port) as client:
        server = client.info("server")["process_id"]
        cache = RedisCache(address, monotonic=lambda: now_s[0])
        limit = RateLimit(1, redis=address, monotonic=lambda: now_s[0])
        cache.put("a", b"x")
        os.kill(server, signal.SIGSTOP)
        try:
            with capture_logs() as logs:
                for _ in range(3):
                    assert (cache.get("a"), anyio.run(limit, "x")) == (None, None)
            assert [one["event"] for one in logs] == ["answers are not kept", "requests are not counted"]
        finally:
            os.kill(server, signal.SIGCONT)
        assert cache.get("a") is None, "it rests"
        now_s[0] = 6.0
        assert cache.get("a") == b"x"
        assert [anyio.run(limit, "y") is None for _ in range(2)] == [True, False]
        cache.close()


def test_the_limit_is_over_after_its_minute() -> None:
    limit = RateLimit(2)
    assert [anyio.run(limit, "x") is None for _ in range(3)] == [True, True, False]
    assert anyio.run(limit, "y") is None
