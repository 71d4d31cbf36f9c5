"""Commands over HTTP: the same documents as over MQTT, with the answer in the response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from station.events import to_bytes
from station.remote import MAX_BYTES, Command
from station.web.access import May

GRACE_S = 2.0  # beyond the time in which a trigger is answered, come what may


def add_commands(api: FastAPI, *, carry_out: Callable[[Command], None], answer_s: float, may: May) -> None:
    """
    ``POST /command/{name}`` with a JSON document: 200 with the response, 400 for what is refused.

    It wants ``Content-Type: application/json``, which a page from somewhere else cannot send without being asked first.
    """

    @api.post("/command/{name}", dependencies=[may("command")], tags=["line"], summary="trigger, recipe or challenge")
    async def command(name: str, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _json(_refusal(name, "send it as Content-Type: application/json"), 415)
        payload = bytearray()
        async for chunk in request.stream():
            payload += chunk
            if len(payload) > MAX_BYTES:
                return _json(_refusal(name, f"a command has at most {MAX_BYTES} bytes"), 413)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[dict[str, Any]] = loop.create_future()

        def settle(document: dict[str, Any]) -> None:
            if not done.done():
                done.set_result(document)

        def respond(document: dict[str, Any]) -> None:
            with suppress(RuntimeError):  # who asked has gone, and the server with him
                loop.call_soon_threadsafe(settle, document)

        await run_in_threadpool(carry_out, Command(name, bytes(payload), respond))
        try:
            document = await asyncio.wait_for(done, answer_s + GRACE_S)
        except asyncio.TimeoutError:
            return _json(_refusal(name, "there was no answer in time"), 504)
        return _json(document, 200 if document["ok"] else 400)


def _refusal(name: str, why: str) -> dict[str, Any]:
    return {"command": name, "ok": False, "error": why}


def _json(document: dict[str, Any], status: int) -> Response:
    return Response(to_bytes(document), status_code=status, media_type="application/json")
