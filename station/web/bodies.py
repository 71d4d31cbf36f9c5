"""Small bodies of requests, read piece by piece so that no stranger decides how much is kept; and JSON in answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from station.events import to_bytes
from station.web.problems import ProblemError


@dataclass(frozen=True, slots=True)
class Kind:
    """What a body must be: its *content_type*, and what to say (*title*, *how*) of one that is something else."""

    content_type: str
    title: str
    how: str


JSON = Kind("application/json", "Not JSON", "send it as Content-Type: application/json")
FORM = Kind(
    "application/x-www-form-urlencoded",
    "Not a form",
    "send it as application/x-www-form-urlencoded: curl -d key=st_...",
)


async def read_body(request: Request, kind: Kind, *, max_bytes: int, limit: str) -> bytes:
    """
    The body. Raises ProblemError 415 if it is not of that *kind*, and 413, saying *limit*, once it exceeds *max_bytes*.

    Read here and not by FastAPI, which takes as much as a stranger sends before it asks who that is, and puts a form
    onto the disk.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != kind.content_type:
        raise ProblemError(415, kind.title, kind.how)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise ProblemError(413, "Too large", limit)
    return bytes(body)


def json_response(
    document: dict[str, Any],
    *,
    status: int = 200,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    return Response(to_bytes(document), status_code=status, media_type=media_type, headers=headers)
