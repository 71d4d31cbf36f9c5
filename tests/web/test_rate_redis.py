"""Limits that are kept in a real Redis which wants a password."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest
import redis
from structlog.testing import capture_logs

from station.errors import ConfigError
from station.extras import how_to_add
from station.web.rate import RateLimit
from tests.mosquitto import free_port
from tests.web.test_cache import needs_redis, redis_server


@needs_redis
def test_the_password_of_redis_opens_it_and_stands_nowhere(tmp_path: Path) -> None:
    port = free_port()
    with redis_server(tmp_path, port) as address:
        with redis.Redis(port=port) as client:
            client.config_set("requirepass", "not-for-logs")
        limit = RateLimit(1, redis=address, password="not-for-logs")
        assert anyio.run(limit, "x") is None
        assert anyio.run(limit, "x") is not None, "counted, so it was let in"
        assert "not-for-logs" not in repr(limit)
        with redis.Redis(port=port, password="not-for-logs") as client:
            assert list(client.scan_iter("*"))


@needs_redis
def test_a_wrong_password_of_redis_turns_nobody_away_and_is_logged_once(tmp_path: Path) -> None:
    port = free_port()
    with redis_server(tmp_path, port) as address:
        with redis.Redis(port=port) as client:
            client.config_set("requirepass", "not-for-logs")
        limit = RateLimit(1, redis=address, password="wrong-one")
        with capture_logs() as logs:
            assert [anyio.run(limit, "x") for _ in range(3)] == [None] * 3
    (only,) = logs
    assert (only["event"], only["log_level"]) == ("requests are not counted", "error")
    assert "wrong-one" not in str(only)


def test_without_the_package_one_sentence_says_how_to_add_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)  # as if it were not installed
    with pytest.raises(ConfigError) as caught:
        RateLimit(1, redis="redis://127.0.0.1:1/0")
    assert str(caught.value) == (f"[http] redis is set, but the package redis is not installed: {how_to_add('redis')}")
