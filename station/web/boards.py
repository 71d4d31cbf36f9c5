"""The boards on record: a list, each with its event and its picture, and what people say of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field, ValidationError

from station.errors import LedgerError
from station.reviews import Call
from station.showing import Showing, review_document
from station.web.access import May
from station.web.bodies import JSON, json_response, read_body
from station.web.problems import ProblemError

NOT_KEPT = {"Cache-Control": "no-store"}
EVIDENCE = re.compile(r"\d{4}-\d{2}-\d{2}/[0-9a-f-]{36}\.jpg")

MAX_BYTES = 8192  # of a review: its note has 500 characters

EventId = Annotated[str, InPath(max_length=64)]


class GivenReview(BaseModel):
    """*call*: the station was right ("confirmed"), or it was not ("false")."""

    call: Call
    note: str = Field("", max_length=500)


REVIEW_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": GivenReview.model_json_schema()}}}
}


def add_boards(api: FastAPI, *, showing: Showing, evidence: Path, may: May) -> None:
    """``/boards``, and below it each board's event, picture and review. *evidence* is the folder of the pictures."""

    @api.get("/boards", dependencies=[may("read")], tags=["boards"], summary="Boards, newest first")
    def boards(
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        before_seq: Annotated[int | None, Query(ge=1, le=2**62)] = None,
        verdict: Literal["pass", "fail", "unknown"] | None = None,
    ) -> Response:
        found = _asked(lambda: showing.boards.page(limit=limit, before_seq=before_seq, verdict=verdict))
        listed = [_asked(lambda one=one: showing.board(one)) for one in found]
        return json_response({"boards": listed}, headers=NOT_KEPT)

    @api.get("/boards/{event_id}", dependencies=[may("read")], tags=["boards"], summary="A board's event")
    def board(event_id: EventId) -> Response:
        document = _event(event_id)
        review = review_document(_asked(lambda: showing.reviews.of(event_id)))
        return json_response({**document, "review": review}, headers=NOT_KEPT)

    @api.get(
        "/boards/{event_id}/image",
        dependencies=[may("read")],
        tags=["boards"],
        summary="The picture with its boxes",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}},
    )
    def image(event_id: EventId) -> Response:
        picture = showing.last_picture(event_id)
        if picture is not None:
            written, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
            assert written  # noqa: S101  # a picture of bytes always can be
            return Response(bytes(data), media_type="image/jpeg", headers=NOT_KEPT)
        name = (_event(event_id).get("image") or {}).get("evidence")
        if not isinstance(name, str) or not EVIDENCE.fullmatch(name):
            raise ProblemError(404, "No picture", "none was kept of this board ([evidence] keep)")
        path = evidence / name
        if not path.is_file():
            raise ProblemError(404, "No picture", "it was kept, and has gone since ([evidence] keep_days, max_mb)")
        return FileResponse(path, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    @api.post(
        "/boards/{event_id}/review",
        dependencies=[may("command")],
        tags=["boards"],
        summary="Says whether the station was right",
        openapi_extra=REVIEW_BODY,
    )
    async def review(event_id: EventId, request: Request) -> Response:
        given = await _given(request)
        return await run_in_threadpool(reviewed, event_id, given, getattr(request.state, "caller", None))

    def reviewed(event_id: str, given: GivenReview, caller: str | None) -> Response:
        verdict = str(_event(event_id)["verdict"])
        kept = _asked(
            lambda: showing.reviews.add(event_id, verdict=verdict, call=given.call, by=caller, note=given.note)
        )
        showing.changed()
        return json_response({"event_id": event_id, "review": review_document(kept)}, headers=NOT_KEPT)

    def _event(event_id: str) -> dict[str, Any]:
        found = _asked(lambda: showing.boards.event(event_id))
        if found is None:
            raise ProblemError(404, "No such board", "it is not on record here, or was forgotten ([ledger] keep_days)")
        document: dict[str, Any] = json.loads(found)
        return document


async def _given(request: Request) -> GivenReview:
    """Raises ProblemError 413, 415 or 422."""
    body = await read_body(request, JSON, max_bytes=MAX_BYTES, limit=f"a review has at most {MAX_BYTES} bytes")
    try:
        return GivenReview.model_validate_json(body)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in error.errors())
        raise ProblemError(422, "The request is not valid", said) from None


def _asked(ask: Any) -> Any:
    try:
        return ask()
    except LedgerError as error:
        raise ProblemError(503, "The ledger cannot be used", str(error)) from None
