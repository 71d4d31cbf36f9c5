"""Commands over HTTP: the same documents as over MQTT, with the answer in the response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from station.remote import MAX_BYTES, Command
from station.web.access import May
from station.web.bodies import JSON, json_response, read_body

GRACE_S = 2.0  # beyond the time in which a trigger is answered, come what may


def add_commands(api: FastAPI, *, carry_out: Callable[[Command], None], answer_s: float, may: May) -> None:
    """
    ``POST /command/{name}`` with a JSON document: 200 with the response, 400 with it for what is refused.

    Raises ProblemError 415 and 413 for a body of another type and for one that is too long. It wants ``Content-Type:
    application/json``, which a page from somewhere else cannot send without being asked first.
    """

    @api.post("/command/{name}", dependencies=[may("command")], tags=["line"], summary="trigger, recipe or challenge")
    async def command(name: str, request: Request) -> Response:
        payload = await read_body(request, JSON, max_bytes=MAX_BYTES, limit=f"a command has at most {MAX_BYTES} bytes")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[dict[str, Any]] = loop.create_future()

        def settle(document: dict[str, Any]) -> None:
            if not done.done():
                done.set_result(document)

        def respond(document: dict[str, Any]) -> None:
            with suppress(RuntimeError):  # who asked has gone, and the server with him
                loop.call_soon_threadsafe(settle, document)

        await run_in_threadpool(carry_out, Command(name, payload, respond))
        try:
            document = await asyncio.wait_for(done, answer_s + GRACE_S)
        except asyncio.TimeoutError:
            late = {"command": name, "ok": False, "error": "there was no answer in time"}
            return json_response(late, status=504)
        return json_response(document, status=200 if document["ok"] else 400)
