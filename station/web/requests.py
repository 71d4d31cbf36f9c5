"""Each request in the log and in the metrics, under an id that its sender hears too."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger(__name__)

HEADER = "X-Request-ID"
GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Asked all day long, by machines and by the page: logged at debug.
QUIET = frozenset({"/", "/livez", "/readyz", "/health", "/metrics", "/live", "/boards", "/boards/{event_id}/image"})

AMBIGUOUS = PlainTextResponse(
    "a request has a Content-Length or a Transfer-Encoding, not both", status_code=400, headers={"Connection": "close"}
)

Counted = Callable[[str, int, float], None]
"""Hears of each answer: the route's own path (never what the caller wrote), the status, and the seconds it took."""


class Requests:
    """ASGI middleware, around everything: what nobody foresaw is counted as well."""

    def __init__(self, app: ASGIApp, *, counted: Counted) -> None:
        self._app = app
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if GIVEN.fullmatch(given) else uuid.uuid4().hex
        began_s = time.perf_counter()
        status, received, answered = 500, 0, False

        async def hear() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def say(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        scope.setdefault("state", {})["request_id"] = request_id
        app = AMBIGUOUS if _is_ambiguous(Headers(scope=scope)) else self._app
        try:
            await app(scope, hear, say)
        finally:
            took_s = time.perf_counter() - began_s
            path = getattr(scope.get("route"), "path", "unknown")
            self._counted(path, status, took_s)
            say_it = log.debug if path in QUIET and status < 500 else log.info
            say_it(
                "request",
                id=request_id,
                method=scope["method"],
                path=path,
                status=status if answered else "none",
                ms=round(took_s * 1e3, 1),
                bytes=received,
                caller=scope["state"].get("caller"),
                model_ms=scope["state"].get("model_ms"),
            )


def _is_ambiguous(headers: Headers) -> bool:
    """A proxy and we might see different ends of it, and then different requests (RFC 9112, 6.3)."""
    return "content-length" in headers and "transfer-encoding" in headers
