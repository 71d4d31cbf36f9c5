"""The operator's page, and the stream of server-sent events that keeps it up to date."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import anyio
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from station.assets import ASSETS
from station.errors import LedgerError
from station.events import to_bytes
from station.showing import Showing
from station.web.access import May
from station.web.problems import ProblemError

PAGE = ASSETS / "web" / "page"
LOOK_S = 0.2
SAY_S = 2.0  # also when nothing is new: the page takes five seconds of silence for a lost connection
MAX_WATCHERS = 32
WATCH_S = 300.0  # then a page asks anew, unnoticed; a tablet that has gone, or reads nothing, does not, and makes room
RETRY = b"retry: 500\n\n"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
}


def add_page(api: FastAPI, *, showing: Showing, may: May, stopping: Callable[[], bool]) -> None:
    """
    ``/`` with its files, and ``/live``, which ends after five minutes or when *stopping* says so.

    The page itself tells nothing: what it shows needs a caller who may read.
    """
    api.mount("/page", StaticFiles(directory=PAGE), name="page")
    watchers = anyio.Semaphore(MAX_WATCHERS)

    @api.get("/", include_in_schema=False)
    def page() -> Response:
        return FileResponse(PAGE / "index.html", headers=HEADERS)

    @api.get("/live", dependencies=[may("read")], tags=["boards"], summary="The page's figures as they change (SSE)")
    async def live(request: Request) -> Response:
        try:
            watchers.acquire_nowait()
        except anyio.WouldBlock:
            raise ProblemError(503, "Busy", f"{MAX_WATCHERS} pages are open already: close one") from None

        async def said() -> AsyncIterator[bytes]:
            try:
                seen, said_s, until_s = -1, float("-inf"), time.monotonic() + WATCH_S
                yield RETRY
                while not (stopping() or time.monotonic() >= until_s or await request.is_disconnected()):
                    count = showing.count
                    if count != seen or time.monotonic() - said_s >= SAY_S:
                        seen, said_s = count, time.monotonic()
                        yield await run_in_threadpool(_now, showing)
                    await anyio.sleep(LOOK_S)
            finally:
                watchers.release()

        return StreamingResponse(said(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _now(showing: Showing) -> bytes:
    try:
        return b"data: " + to_bytes(showing.document()) + b"\n\n"
    except LedgerError as error:
        return b"event: trouble\ndata: " + to_bytes({"detail": str(error)}) + b"\n\n"
