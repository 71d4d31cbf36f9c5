"""Builds the HTTP port: who may ask, the inspection API, and what stands around every request."""

from __future__ import annotations

import hashlib
import os
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import structlog
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp

from station.access_keys import NAME, AccessKeys
from station.config import Settings, guide_secret
from station.durable import keep_secret
from station.errors import ConfigError
from station.folders import make_folder
from station.health import Health
from station.heartbeat import Vitals
from station.http_metrics import HttpMetrics
from station.http_section import LOOPBACK
from station.inspection import Bench, inspect
from station.line_sections import HttpTrigger
from station.metrics import Metrics
from station.parts import depth_bits
from station.remote import Command
from station.sections import MB
from station.showing import Showing
from station.tokens import Tokens
from station.types import Frame, Image, Inspection
from station.web.access import Access, Addresses
from station.web.api import create_api
from station.web.boards import add_boards
from station.web.cache import Cache, MemoryCache, RedisCache
from station.web.live import add_page
from station.web.login import add_login
from station.web.predict import Limits, Listeners, add_predict
from station.web.rate import RateLimit
from station.web.requests import Requests
from station.web.server import WebServer
from station.web.tls import ServerTls
from station.web.uploads import Upload

log = structlog.get_logger(__name__)

CREDENTIAL = "jwt-secret"  # the name in a unit's LoadCredential, and of the file that the station makes


@dataclass(frozen=True, slots=True)
class Door:
    """Who is let in. *keys* and *tokens* are None where nobody needs any; *guarded*: strangers can reach the port."""

    access: Access
    keys: AccessKeys | None
    tokens: Tokens | None
    guarded: bool


def build_web(
    settings: Settings,
    *,
    health: Health,
    vitals: Callable[[], Vitals],
    metrics: Metrics,
    carry_out: Callable[[Command], None],
    choose: Callable[[Frame], Bench],
    labels: tuple[str, ...],
    showing: Showing,
    stopping: Callable[[], bool],
) -> WebServer:
    """All that a station which runs serves, not started yet. Raises ConfigError."""
    wanted, trigger = settings.http, settings.trigger
    counts = HttpMetrics(metrics.registry)
    door = build_door(settings, counts)
    api = create_api(
        health=health,
        vitals=vitals,
        metrics=metrics.text if wanted.metrics else None,
        carry_out=carry_out,
        answer_s=trigger.answer_ms / 1e3 if isinstance(trigger, HttpTrigger) else 0.0,
        may=door.access.may,
        guarded=door.guarded,
    )
    add_inspection(api, settings, choose=choose, labels=labels, door=door, metrics=counts)
    add_boards(api, showing=showing, evidence=settings.station.data_dir / "evidence", may=door.access.may)
    add_page(api, showing=showing, may=door.access.may, stopping=stopping)
    return WebServer(around(api, settings, counts), host=wanted.host, port=wanted.port, tls=build_tls(settings))


def build_door(settings: Settings, metrics: HttpMetrics, *, counts: Path | None = None) -> Door:
    """*counts*: the file in which several workers count. Raises ConfigError: a bad secret, an unreadable file."""
    wanted = settings.http
    keys = tokens = limit = None
    if wanted.auth == "required":
        keys = access_keys(settings)
        tokens = build_tokens(settings)
        if not keys.all() and wanted.jwt_public_key_file is None:
            log.warning("nobody can log in yet", reason="there is no API key: station key create NAME --scope read")
    if wanted.requests_per_minute:
        password = (
            None if wanted.redis_password_file is None else _read(wanted.redis_password_file, "redis_password_file")
        )
        limit = RateLimit(wanted.requests_per_minute, redis=wanted.redis, password=password, counts=counts)
    access = Access(
        keys, tokens, addresses=Addresses(wanted.trusted_proxies), limit=limit, on_failure=metrics.not_let_in
    )
    return Door(access, keys, tokens, guarded=wanted.host not in LOOPBACK)


def access_keys(settings: Settings) -> AccessKeys:
    return AccessKeys(settings.station.data_dir / NAME)


def build_tokens(settings: Settings) -> Tokens:
    """Raises ConfigError."""
    wanted = settings.http
    public_key = (
        None if wanted.jwt_public_key_file is None else _read(wanted.jwt_public_key_file, "jwt_public_key_file")
    )
    secret = _secret(settings) if wanted.jwt_algorithm == "HS256" else None
    return Tokens(algorithm=wanted.jwt_algorithm, audience=settings.station.name, secret=secret, public_key=public_key)


def add_inspection(
    api: FastAPI,
    settings: Settings,
    *,
    choose: Callable[[Frame], Bench],
    labels: tuple[str, ...],
    door: Door,
    metrics: HttpMetrics,
) -> None:
    """``/predict`` and the logins; *choose* gives the bench of the moment, for any thread. Raises ConfigError."""
    wanted, deep = settings.http, depth_bits(settings)

    def judge(image: Image, upload: Upload) -> Inspection:
        frame = _frame(image, upload)
        return inspect(frame, choose(frame))

    def judged_by() -> str:
        bench = choose(_frame(None, Upload("", b"")))
        return f"{bench.detector.model.sha256} {bench.recipe_sha256} {bench.recipe.name} {deep}"

    add_predict(
        api,
        judge=judge,
        judged_by=judged_by,
        labels=labels,
        limits=Limits(int(wanted.max_file_mb * MB), int(wanted.max_pixels_mp * MB), wanted.queue, deep),
        cache=_cache(settings),
        listeners=Listeners(metrics.uploaded, metrics.hit, metrics.inferred),
        may=door.access.may,
    )
    add_login(api, access=door.access, keys=door.keys, tokens=door.tokens, minutes=wanted.token_minutes)


def around(api: FastAPI, settings: Settings, metrics: HttpMetrics) -> ASGIApp:
    """*api* with what stands around every request."""
    wanted = settings.http
    api.add_middleware(GZipMiddleware, minimum_size=1000)
    if wanted.allowed_origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=wanted.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "X-Processing-Time", "X-Verdict", "Retry-After"],
        )
    return Requests(api, counted=metrics.counted)


def build_tls(settings: Settings) -> ServerTls | None:
    """Raises ConfigError."""
    wanted = settings.http
    return None if wanted.cert_file is None or wanted.key_file is None else ServerTls(wanted.cert_file, wanted.key_file)


def _frame(image: Image | None, upload: Upload) -> Frame:
    sha256 = hashlib.sha256(upload.data).hexdigest()
    return Frame(str(uuid.uuid4()), image, datetime.now(timezone.utc), "api", file=upload.name or None, sha256=sha256)


def _cache(settings: Settings) -> Cache | None:
    wanted = settings.http
    if not wanted.cache_mb:
        return None
    if wanted.redis:
        password = (
            None if wanted.redis_password_file is None else _read(wanted.redis_password_file, "redis_password_file")
        )
        return RedisCache(wanted.redis, password=password)
    return MemoryCache(int(wanted.cache_mb * MB))


def _secret(settings: Settings) -> str:
    """From the file that is named, else a credential, else SECRET_KEY, else one that is made and kept in data_dir."""
    wanted, folder = settings.http, os.environ.get("CREDENTIALS_DIRECTORY")
    if wanted.jwt_secret_file is not None:
        return _read(wanted.jwt_secret_file, "jwt_secret_file")
    if folder and (Path(folder) / CREDENTIAL).exists():
        return _read(Path(folder) / CREDENTIAL, "the credential jwt-secret")
    from_guide = guide_secret()
    if from_guide is not None:
        return from_guide
    path = make_folder(settings.station.data_dir, "[station] data_dir") / CREDENTIAL
    try:
        if not path.exists():
            keep_secret(path, secrets.token_hex(32))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    return _read(path, "the secret for tokens")


def _read(path: Path, key: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"[http] {key}: {path} cannot be read: {error}") from None
