"""Answers for pictures that come again: the same bytes, judged by the same model and recipe, are the same answer."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import structlog

from station.errors import ConfigError
from station.extras import how_to_add
from station.web.absence import Absence

log = structlog.get_logger(__name__)

KEEP_S = 86_400  # in Redis, which others use too


class Cache(Protocol):
    """Any thread. None: it is not kept."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes) -> None: ...


def key_of(data: bytes, *, judge: str) -> str:
    """*judge* names what judges: a model or a recipe that changed never finds an older answer."""
    return hashlib.sha256(hashlib.sha256(data).digest() + judge.encode()).hexdigest()


class MemoryCache:
    """The answers used last, up to *max_bytes* of them."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, value: bytes) -> None:
        with self._lock:
            self._bytes += len(value) + len(key) - self._forget(key)
            self._kept[key] = value
            while self._bytes > self._max_bytes and self._kept:
                self._bytes -= self._forget(next(iter(self._kept)))

    def _forget(self, key: str) -> int:
        value = self._kept.pop(key, None)
        return 0 if value is None else len(value) + len(key)


class RedisCache:
    """The same in Redis, for several workers and machines. With it away there is no answer kept, and no error."""

    def __init__(
        self, address: str, *, password: str | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        try:
            import redis  # only where it is used: an extra
        except ModuleNotFoundError as error:
            raise ConfigError(f"[http] redis needs an extra ({error}): {how_to_add('redis')}") from None
        self._errors = (redis.RedisError, OSError)
        self._client = redis.Redis.from_url(address, password=password, socket_timeout=0.5, socket_connect_timeout=0.5)
        self._absence = Absence(monotonic=monotonic)

    def get(self, key: str) -> bytes | None:
        if self._absence.lasts:
            return None
        try:
            found = self._client.get(f"station:{key}")
        except self._errors as error:
            self._lost(error)
            return None
        self._absence.ended()
        return found if isinstance(found, bytes) else None

    def put(self, key: str, value: bytes) -> None:
        if self._absence.lasts:
            return
        try:
            self._client.set(f"station:{key}", value, ex=KEEP_S)
        except self._errors as error:
            self._lost(error)

    def close(self) -> None:
        self._client.close()

    def _lost(self, error: Exception) -> None:
        if self._absence.began():
            log.error("answers are not kept", reason=str(error))
