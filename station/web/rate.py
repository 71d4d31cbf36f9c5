"""How often one may ask: a window of a minute for each key and each address, shared by all workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import limits
import structlog
from fastapi.concurrency import run_in_threadpool
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from station.errors import ConfigError
from station.extras import how_to_add
from station.web.absence import Absence
from station.web.shared_counts import SharedCounts

log = structlog.get_logger(__name__)


def need_redis() -> None:
    """Raises ConfigError when the redis package is not there."""
    if find_spec("redis") is None:
        raise ConfigError(f"[http] redis is set, but the package redis is not installed: {how_to_add('redis')}")


class RateLimit:
    """
    Implements ``access.Limit``. It counts in *redis*, or in the file *counts*, or where there is neither in memory.

    With *redis* away nobody is turned away: that is logged once, and it is tried again now and then. Raises ConfigError
    when the package that speaks to it is not there.
    """

    def __init__(
        self,
        per_minute: int,
        *,
        redis: str = "",
        password: str | None = None,
        counts: Path | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._item = limits.RateLimitItemPerMinute(per_minute)
        self._shared = bool(redis) or counts is not None
        if redis:
            need_redis()
        try:
            if redis:
                options = {} if password is None else {"password": password}
                storage = storage_from_string(redis, socket_connect_timeout=0.5, socket_timeout=0.5, **options)
            else:
                storage = MemoryStorage() if counts is None else SharedCounts(counts)
        except limits.errors.ConfigurationError:  # it looks at the version, and speaks to programmers
            raise ConfigError(f"[http] redis: the package redis is too old: {how_to_add('redis')}") from None
        self._errors = storage.base_exceptions
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._absence = Absence(monotonic=monotonic)

    async def __call__(self, who: str) -> float | None:
        return await run_in_threadpool(self._count, who) if self._shared else self._count(who)

    def _count(self, who: str) -> float | None:
        if self._absence.lasts:
            return None
        try:
            wait_s = None if self._limiter.hit(self._item, who) else self._wait_s(who)
        except self._errors as error:
            if self._absence.began():
                log.error("requests are not counted", reason=str(error))
            return None
        if self._absence.ended():
            log.info("requests are counted again")
        return wait_s

    def _wait_s(self, who: str) -> float:
        return max(1.0, self._limiter.get_window_stats(self._item, who).reset_time - time.time())
