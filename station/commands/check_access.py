"""What ``station check`` says of who may ask over HTTP and how often, and of TLS."""

from __future__ import annotations

from collections.abc import Iterator

from station.commands.finding import Finding
from station.config import Settings, guide_secret
from station.errors import ConfigError
from station.terminal import counted
from station.web.rate import need_redis
from station.web_side import CREDENTIAL, access_keys, build_tls, build_tokens


def access(settings: Settings) -> Iterator[Finding]:
    """Keys, and what tokens are checked with; nothing is made here that a start would make."""
    wanted = settings.http
    if not wanted.enabled or wanted.auth == "off":
        return
    kept = settings.station.data_dir / CREDENTIAL
    try:
        keys = access_keys(settings).all()
        if wanted.jwt_secret_file or wanted.jwt_public_key_file or guide_secret() or kept.exists():
            build_tokens(settings)
    except ConfigError as error:
        yield Finding("access", works=False, seen=str(error))
        return
    seen = counted(len(keys), "API key")
    if not keys:
        seen += ": nobody can log in with one. Make one: station key create NAME --scope read"
    yield Finding("access", works=bool(keys) or wanted.jwt_public_key_file is not None, needed=False, seen=seen)


def redis(settings: Settings) -> Iterator[Finding]:
    """Whether it answers is not asked: without it requests are not counted, and all else goes on."""
    wanted = settings.http
    if not wanted.enabled or not wanted.redis or not (wanted.requests_per_minute or wanted.cache_mb):
        return
    try:
        need_redis()
    except ConfigError as error:
        yield Finding("redis", works=False, seen=str(error))


def tls(settings: Settings) -> Iterator[Finding]:
    if not settings.http.enabled or settings.http.cert_file is None:
        return
    try:
        found = build_tls(settings)
    except ConfigError as error:
        yield Finding("tls", works=False, seen=str(error))
        return
    if found is not None and found.expired is not None:
        yield Finding("tls", works=False, needed=False, seen=found.expired)
        return
    yield Finding("tls", works=True, seen=f"{settings.http.cert_file} can be served")
