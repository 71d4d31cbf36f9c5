"""What the station answers over HTTP: liveness, readiness, health and metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from station import __version__
from station.errors import LedgerError
from station.health import Health
from station.heartbeat import Vitals, fault_document
from station.remote import Command
from station.web.access import May, everybody
from station.web.bodies import json_response
from station.web.command import add_commands
from station.web.docs_pages import add_docs
from station.web.problems import add_problems

HEALTH = "application/health+json"


def create_api(
    *,
    health: Health,
    vitals: Callable[[], Vitals],
    metrics: Callable[[], bytes] | None,
    carry_out: Callable[[Command], None],
    answer_s: float,
    may: May = everybody,
    guarded: bool = False,
) -> FastAPI:
    """
    The health endpoints and the commands; a trigger takes at most *answer_s*. *guarded*: /health and /metrics tell
    what they tell only to callers who may read; the others are for machines that know no key.

    Machines go by the status code; ``?verbose=1`` lists the checks for people. /livez is 503 only if a restart would
    help (a loop has stalled); /readyz is 503 while no board can be inspected. An absent broker is neither: events wait
    on disk.
    """
    api = new_api()
    for_readers = [may("read")] if guarded else []

    @api.get("/livez", tags=["health"], response_class=PlainTextResponse)
    def livez(verbose: bool = False) -> Response:
        stalled = set(health.stalled())
        checks = {loop: "has stalled" if loop in stalled else None for loop in health.ages_s()}
        return _answer(checks, verbose=verbose)

    @api.get("/readyz", tags=["health"], response_class=PlainTextResponse)
    def readyz(verbose: bool = False) -> Response:
        checks: dict[str, str | None] = dict.fromkeys(("line", "disk", "ledger"))
        return _answer({**checks, **health.not_ready()}, verbose=verbose)

    @api.get("/health", tags=["health"], dependencies=for_readers)
    def whole_health() -> Response:
        try:
            now = vitals()
        except LedgerError as error:  # what the station owes is not known: that is an answer, and no reason for a 500
            return json_response({"status": "fail", "output": str(error)}, status=503, media_type=HEALTH)
        document = health_document(now, health)
        return json_response(document, status=503 if document["status"] == "fail" else 200, media_type=HEALTH)

    if metrics is not None:
        add_metrics(api, metrics=metrics, dependencies=for_readers)
    add_commands(api, carry_out=carry_out, answer_s=answer_s, may=may)
    return api


def new_api() -> FastAPI:
    """One without endpoints: errors as problem+json, /docs, /redoc and /openapi.json."""
    api = FastAPI(
        title="station",
        version=__version__,
        summary="An inspection station for PCB lines",
        docs_url=None,
        redoc_url=None,
    )
    add_problems(api)
    add_docs(api)
    return api


def add_metrics(api: FastAPI, *, metrics: Callable[[], bytes], dependencies: Sequence[Any]) -> None:
    """``GET /metrics``."""

    @api.get("/metrics", tags=["health"], dependencies=dependencies, response_class=PlainTextResponse)
    def prometheus() -> Response:
        try:
            return Response(metrics(), media_type=CONTENT_TYPE_LATEST)
        except LedgerError as error:
            return Response(f"{error}\n", status_code=503, media_type="text/plain")


def health_document(now: Vitals, health: Health) -> dict[str, Any]:
    """
    ``application/health+json``: fail when no board can be inspected or a loop has stalled, warn on any fault.

    Source of the form: draft-inadarei-api-health-check-06.
    """
    not_ready, stalled, faults = health.not_ready(), health.stalled(), health.faults()
    status = "fail" if not_ready or stalled else "warn" if faults else "pass"
    checks: dict[str, list[dict[str, Any]]] = {
        f"{loop}:beat_age": [
            {
                "componentType": "component",
                "observedValue": round(age_s, 2),
                "observedUnit": "s",
                "status": "fail" if loop in stalled else "pass",
            }
        ]
        for loop, age_s in health.ages_s().items()
    }
    checks["outbox:owed"] = [
        {"componentType": "datastore", "observedValue": now.owed, "observedUnit": "events", "status": "pass"}
    ]
    checks["outbox:oldest_age"] = [
        {
            "componentType": "datastore",
            "observedValue": round(now.owed_oldest_s, 1),
            "observedUnit": "s",
            "status": "pass",
        }
    ]
    checks["mqtt:connected"] = [
        {"componentType": "system", "observedValue": now.connected, "status": "pass" if now.connected else "warn"}
    ]
    checks["disk:free"] = [
        {
            "componentType": "system",
            "observedValue": round(now.free_mb),
            "observedUnit": "MB",
            "status": "fail" if "disk" in not_ready else "pass",
        }
    ]
    for what, why in not_ready.items():
        checks.setdefault(f"{what}:ready", []).append({"status": "fail", "output": why})
    return {
        "status": status,
        "version": now.version,
        "serviceId": now.station,
        "description": "PCB inspection station",
        "notes": [f"{fault.code}: {fault.detail}" for fault in faults],
        "checks": checks,
        "faults": [fault_document(fault) for fault in faults],
    }


def _answer(checks: dict[str, str | None], *, verbose: bool) -> Response:
    """200 "ok" or 503 with the failing checks, a line each, as Kubernetes' own endpoints print them."""
    failed = {name: why for name, why in checks.items() if why is not None}
    lines = [f"[-]{name} {why}" if why else f"[+]{name} ok" for name, why in checks.items() if verbose or why]
    text = "\n".join([*lines, "not ok" if failed else "ok"]) + "\n"
    return Response(text, status_code=503 if failed else 200, media_type="text/plain")
