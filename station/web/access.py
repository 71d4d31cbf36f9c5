"""Who may ask: API keys and tokens, their scopes, and how often an address may be wrong."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import anyio
import structlog
from fastapi import Depends, Request

from station.access_keys import PREFIX, AccessKeys
from station.errors import AccessError, ConfigError, ExpiredTokenError
from station.tokens import Tokens
from station.types import Scope
from station.web.problems import ProblemError

log = structlog.get_logger(__name__)

COOKIE = "station_session"
FREE_FAILURES = 5  # a finger that slips; from then on each costs time, and from MAX_FAILURES on a pause
MAX_FAILURES = 20
FORGET_S = 60.0
MAX_ADDRESSES = 10_000
WAIT_S = 0.25  # for each failure beyond the free ones, up to WAIT_MOST_S
WAIT_MOST_S = 2.0
MAX_TEXT = 4096  # of what a caller shows: no token of ours is longer

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address | str

May = Callable[[Scope], Any]
"""Gives what stands in the ``dependencies`` of a route: it lets in who has that scope, or ends the request."""


def everybody(_scope: Scope) -> Any:
    """A ``May`` that lets anybody in."""
    return Depends(lambda: None)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. *name* is None where nobody needs one."""

    name: str | None
    scopes: frozenset[Scope]


class Limit(Protocol):
    """Counts one request of *who*; the seconds to wait if that was one too many, else None."""

    async def __call__(self, who: str) -> float | None: ...


class Addresses:
    """Where a request comes from: the socket's other end, or what a proxy that is trusted says of it."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = [ipaddress.ip_network(one) for one in trusted]

    def of(self, request: Request) -> str:
        """
        From the right of X-Forwarded-For the first that is no proxy of ours: what lies left can be made up.

        Some proxies (HAProxy) add a line of their own below the one that the caller has made up: all lines count. Of
        IPv6 it is the network of 64 bits, in which one machine may take any address that it likes.
        """
        address = _address(request.client.host if request.client else "unknown")
        said = ",".join(request.headers.getlist("x-forwarded-for"))
        hops = [one.strip() for one in said.split(",") if one.strip()]
        while hops and self._is_proxy(address):
            address = _address(hops.pop())
        if isinstance(address, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((address, 64), strict=False))
        return str(address)

    def is_tls(self, request: Request) -> bool:
        forwarded = request.headers.get("x-forwarded-proto", "")
        peer = request.client.host if request.client else ""
        return request.url.scheme == "https" or (forwarded == "https" and self._is_proxy(_address(peer)))

    def _is_proxy(self, address: _Address) -> bool:
        return not isinstance(address, str) and any(address in one for one in self._trusted)


def _address(text: str) -> _Address:
    """An address, however it is spelt, without the port that some proxies add (Azure, IIS); else the text."""
    bare = text.partition("]")[0].removeprefix("[") if text.startswith("[") else text
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:  # as a port on "::" says it
        return address.ipv4_mapped
    return address


class Access:
    """
    The doorkeeper. *keys* None: everybody may everything, which the settings allow on loopback only.

    *limit* counts the requests of an address and of a caller; *on_failure* hears why one was not let in.
    """

    def __init__(
        self,
        keys: AccessKeys | None,
        tokens: Tokens | None,
        *,
        addresses: Addresses,
        limit: Limit | None = None,
        on_failure: Callable[[str], None] = lambda _reason: None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self.addresses = addresses
        self._limit = limit
        self._on_failure = on_failure
        self._monotonic = monotonic
        self._sleep = sleep
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def may(self, scope: Scope) -> Any:
        async def let_in(request: Request) -> Caller:
            return await self.admit(request, scope)

        return Depends(let_in)

    async def admit(self, request: Request, scope: Scope) -> Caller:
        """Raises ProblemError 401, 403 or 429."""
        # A line's triggers are counted for themselves: who looks at pages must not use up what they may.
        apart = "commands of " if scope == "command" else ""
        await self._count(f"{apart}{self.addresses.of(request)}")
        if self._keys is None:
            caller = Caller(None, frozenset({scope}))
        else:
            if _by_cookie(request) and request.method not in {"GET", "HEAD"}:
                same_origin(request)
            caller = await self.identify(request, shown_by(request))
            if scope not in caller.scopes:
                self._on_failure("scope")
                raise ProblemError(
                    403, "Not allowed", f'this needs the scope "{scope}", and {caller.name} has {_list(caller.scopes)}'
                )
            await self._count(f"{apart}caller {caller.name}")
        request.state.caller = caller.name
        return caller

    async def count(self, request: Request) -> None:
        """One request of its address. Raises ProblemError 429."""
        await self._count(self.addresses.of(request))

    async def identify(self, request: Request, text: str | None) -> Caller:
        """
        Who showed *text*, a key or a token. Raises ProblemError 401, 429 or 503.

        A wrong one makes the next one slower. None, and one that has expired, are no guesses: a scraper without a key
        must not shut out its neighbours.
        """
        address = self.addresses.of(request)
        if not text:
            self._on_failure("login")
            raise _not_authenticated("send an API key as X-API-Key, or a key or a token as Authorization: Bearer ...")
        failures = self._failures_of(address)
        try:
            return self._believe(text)  # a good key opens whatever its neighbours have tried: 256 bits are not guessed
        except ExpiredTokenError as error:
            self._on_failure("login")
            raise _not_authenticated(str(error)) from None
        except AccessError as error:
            if failures >= MAX_FAILURES:
                headers = {"Retry-After": str(int(FORGET_S))}
                raise ProblemError(
                    429, "Too many failures", "too many wrong keys from here: wait a minute", headers=headers
                ) from None
            self._failed(address, str(error))
            if failures >= FREE_FAILURES:
                await self._sleep(min(WAIT_MOST_S, WAIT_S * (failures - FREE_FAILURES + 1)))
            raise _not_authenticated(str(error)) from None
        except ConfigError:
            raise ProblemError(
                503, "Keys cannot be read", "the station cannot read its keys: its log and station key list say why"
            ) from None

    def _believe(self, text: str) -> Caller:
        if self._keys is not None and text.startswith(f"{PREFIX}_"):
            key = self._keys.find(text)
            if key is None:
                raise AccessError("the API key is not known, or was revoked")
            return Caller(key.name, key.scopes)
        if self._tokens is None or len(text) > MAX_TEXT or text.count(".") != 2:
            raise AccessError("this is no API key and no token of this station")
        claims = self._tokens.check(text)
        if claims.key_id is not None and (self._keys is None or self._keys.by_id(claims.key_id) is None):
            raise AccessError("the key that the token was made with was revoked")
        return Caller(claims.subject, claims.scopes)

    async def _count(self, who: str) -> None:
        wait_s = None if self._limit is None else await self._limit(who)
        if wait_s is not None:
            raise ProblemError(
                429,
                "Too many requests",
                f"{who} asks too often: wait {wait_s:.0f} s ([http] requests_per_minute)",
                headers={"Retry-After": str(max(1, round(wait_s)))},
            )

    def _failures_of(self, address: str) -> int:
        count, at_s = self._failures.get(address, (0, 0.0))
        return count if self._monotonic() - at_s < FORGET_S else 0

    def _failed(self, address: str, why: str) -> None:
        count = self._failures_of(address) + 1
        self._failures[address] = (count, self._monotonic())
        self._failures.move_to_end(address)
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        self._on_failure("login")
        log.warning("caller not let in", address=address, failures=count, reason=why)


def shown_by(request: Request) -> str | None:
    """The key or token of *request*: X-API-Key, Authorization, or the page's cookie."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    bearer = value.strip() if scheme.lower() == "bearer" else None
    return request.headers.get("x-api-key") or bearer or request.cookies.get(COOKIE)


def same_origin(request: Request) -> None:
    """
    Raises ProblemError 403 where a page from elsewhere lets a browser send what that browser's user did not ask for.

    SameSite leaves out one case: another port of this machine is the same site. Over plain HTTP browsers send no
    Sec-Fetch-Site, but Origin; a proxy may have taken the port off Host, and then the machine's name has to do.
    """
    fetch_site = request.headers.get("sec-fetch-site")
    if fetch_site is not None:
        same = fetch_site in {"same-origin", "none"}
    else:
        origin, host = request.headers.get("origin"), request.headers.get("host", "").lower()
        address = (origin or "").partition("://")[2].lower()
        portless = address.rpartition(":")[0]
        same = origin is None or (host != "" and host in {address, portless})  # without Origin it is no browser
    if not same:
        raise ProblemError(403, "Not allowed", "only the station's own page may do that")


def _by_cookie(request: Request) -> bool:
    return shown_by(request) is not None and shown_by(request) == request.cookies.get(COOKIE)


def _not_authenticated(why: str) -> ProblemError:
    return ProblemError(401, "Not authenticated", why, headers={"WWW-Authenticate": 'Bearer realm="station"'})


def _list(scopes: frozenset[Scope]) -> str:
    return ", ".join(sorted(scopes)) or "none"
