"""Exchanges an API key for a token, and for the operator's page for a cookie."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from station.access_keys import AccessKeys
from station.tokens import Tokens
from station.types import Scope
from station.web.access import COOKIE, Access, same_origin, shown_by
from station.web.bodies import FORM, read_body
from station.web.problems import ProblemError

MAX_BYTES = 2048  # of a login: a key has 60


class Token(BaseModel):
    """A token (RFC 6749, 5.1)."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105  # no secret
    expires_in: int
    scope: str


def add_login(api: FastAPI, *, access: Access, keys: AccessKeys | None, tokens: Tokens | None, minutes: int) -> None:
    """``POST /token``, ``/login`` and ``/logout``. Where nobody needs a login, /token says so."""

    async def exchanged(request: Request, text: str | None) -> tuple[str, frozenset[Scope]]:
        if keys is None or tokens is None:
            raise ProblemError(404, "No logins here", 'everybody on this machine may ask: [http] auth = "off"')
        await access.count(request)
        caller = await access.identify(request, text)
        key = keys.find(text or "")
        if key is None:
            raise ProblemError(403, "Not allowed", "a token is no key: exchange the API key itself")
        if not tokens.signs:
            raise ProblemError(404, "No tokens here", "this station only checks tokens: ask those who sign them")
        return tokens.issue(key.name, caller.scopes, minutes=minutes, key_id=key.id), caller.scopes

    @api.post("/token", tags=["login"], summary="A token for an API key (X-API-Key, or Authorization: Bearer)")
    async def token(request: Request) -> Token:
        text, scopes = await exchanged(request, shown_by(request))
        return Token(access_token=text, expires_in=minutes * 60, scope=" ".join(sorted(scopes)))

    @api.post("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        same_origin(request)
        text, _ = await exchanged(request, await _key_in(request))
        response = Response(status_code=204)
        response.set_cookie(
            COOKIE,
            text,
            max_age=minutes * 60,
            httponly=True,
            samesite="strict",
            secure=access.addresses.is_tls(request),
        )
        return response

    @api.post("/logout", include_in_schema=False)
    async def logout(request: Request) -> Response:
        same_origin(request)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE)
        return response


async def _key_in(request: Request) -> str:
    """The field ``key`` of a form. Raises ProblemError."""
    limit = f"a login has at most {MAX_BYTES} bytes: the field key, no more"
    body = await read_body(request, FORM, max_bytes=MAX_BYTES, limit=limit)
    key = parse_qs(body.decode("utf-8", "replace")).get("key", [""])[0].strip()
    if not key:
        raise ProblemError(422, "No key", "the form has no field key: type the API key (station key create)")
    return key
