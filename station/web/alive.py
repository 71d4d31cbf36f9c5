"""Health of a worker that only answers requests: it is alive when it answers, and ready when it has its model."""

from __future__ import annotations

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse

from station.web.bodies import json_response


def add_alive(api: FastAPI, *, model: str, version: str, fallback: str | None) -> None:
    """``/livez``, ``/readyz`` and ``/health``, which warns of a *fallback*: *model* is not the configured one."""

    @api.get("/livez", tags=["health"], response_class=PlainTextResponse)
    async def livez() -> str:
        return "ok\n"

    @api.get("/readyz", tags=["health"], response_class=PlainTextResponse)
    async def readyz() -> str:
        return "ok\n"

    @api.get("/health", tags=["health"])
    async def health() -> Response:
        document = {
            "status": "pass" if fallback is None else "warn",
            "version": version,
            "description": "PCB inspection API",
            "notes": [f"model {model}", *([] if fallback is None else [fallback])],
        }
        return json_response(document, media_type="application/health+json")
