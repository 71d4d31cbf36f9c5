"""The inspection API: a picture comes in, what the station makes of it goes out; nothing is recorded or sent."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import anyio
import cv2
from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from station.drawing import drawn
from station.errors import NoPictureError, PictureError
from station.events import to_bytes
from station.picture import read
from station.types import Image, Inspection, cut
from station.web.access import May
from station.web.bodies import json_response
from station.web.cache import Cache, key_of
from station.web.problems import MEDIA_TYPE, ProblemError
from station.web.uploads import FIELD, Upload, read_uploads

Judge = Callable[[Image, Upload], Inspection]
"""Judges one picture; it may take its time, and is called from any thread."""


class Detection(BaseModel):
    """One defect: corners in pixels of the picture."""

    bbox: tuple[float, float, float, float]
    confidence: float
    class_id: int
    class_name: str


class ImageSize(BaseModel):
    width: int
    height: int


class Prediction(BaseModel):
    """What the station makes of one picture."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "detections": [
                    {"bbox": [100.0, 80.0, 130.0, 102.0], "confidence": 0.91, "class_id": 1, "class_name": "short"}
                ],
                "processing_time": 0.042,
                "image_size": {"width": 640, "height": 640},
                "verdict": "fail",
                "reason": "short 0.91 >= 0.50",
                "model": "pcb-demo",
                "recipe": "default",
            }
        }
    )

    detections: list[Detection]
    processing_time: float
    image_size: ImageSize
    verdict: Literal["pass", "fail", "unknown"]
    reason: str
    model: str
    recipe: str
    annotated: str | None = None


class Refused(BaseModel):
    """Why there is no prediction for one of several pictures (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class Several(BaseModel):
    """In the order in which they were sent."""

    results: list[Prediction | Refused]


@dataclass(frozen=True, slots=True)
class Limits:
    """*queue*: requests under way; what comes beyond is turned away at once. *depth_bits*: of 16 that are in use."""

    max_bytes: int
    max_pixels: int
    queue: int
    depth_bits: int


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who hears of uploads (bytes), of answers that were known already, and of the seconds that a network took."""

    uploaded: Callable[[int], None]
    hit: Callable[[], None]
    inferred: Callable[[float], None]


def add_predict(
    api: FastAPI,
    *,
    judge: Judge,
    judged_by: Callable[[], str],
    labels: tuple[str, ...],
    limits: Limits,
    cache: Cache | None,
    listeners: Listeners,
    may: May,
) -> None:
    """
    ``POST /predict`` and ``POST /predict-image``.

    *judged_by* names the model and the recipe of the moment; *labels* gives the class ids.
    """
    desk = _Desk(judge, judged_by, labels, limits, cache, listeners)
    errors: dict[int | str, dict[str, Any]] = {
        code: {"description": what, "content": {MEDIA_TYPE: {"schema": Refused.model_json_schema()}}}
        for code, what in {
            401: "no key",
            403: "not allowed",
            408: "too slow",
            413: "too large",
            415: "no picture of a known kind",
            422: "a picture that is cut off or cannot be decoded, or no picture",
            429: "too often",
            503: "too many at once",
        }.items()
    }
    form = {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": [FIELD],
                        "properties": {FIELD: {"type": "string", "format": "binary"}},
                    }
                }
            },
        }
    }

    @api.post(
        "/predict",
        dependencies=[may("predict")],
        response_model=Prediction | Several,
        response_model_exclude_none=True,
        responses=errors,
        openapi_extra=form,
        tags=["inspect"],
        summary="Judges a picture, or several",
    )
    async def predict(
        request: Request,
        annotate: Annotated[bool, Query(description="adds the picture with its boxes, a PNG in base64")] = False,
    ) -> Response:
        async with desk.place():
            uploads = await desk.uploads(request)
            if len(uploads) == 1:
                return json_response(await desk.predicted(uploads[0], request, annotate=annotate))
            return json_response({"results": [await desk.result(one, request, annotate=annotate) for one in uploads]})

    @api.post(
        "/predict-image",
        dependencies=[may("predict")],
        response_class=Response,
        responses={**errors, 200: {"content": {"image/png": {}}, "description": "the picture with its boxes"}},
        openapi_extra=form,
        tags=["inspect"],
        summary="Judges a picture and draws what it found",
    )
    async def predict_image(request: Request) -> Response:
        async with desk.place():
            uploads = await desk.uploads(request)
            if len(uploads) > 1:
                raise ProblemError(422, "Too many pictures", "one picture at a time here; /predict takes several")
            began_s = time.perf_counter()
            inspection = await run_in_threadpool(desk.judged, uploads[0], request)
            png = await run_in_threadpool(_png, inspection)
            headers = {
                "X-Processing-Time": f"{time.perf_counter() - began_s:.4f}",
                "X-Verdict": inspection.decision.verdict.value,
            }
            return Response(png, media_type="image/png", headers=headers)


class _Desk:
    def __init__(
        self,
        judge: Judge,
        judged_by: Callable[[], str],
        labels: tuple[str, ...],
        limits: Limits,
        cache: Cache | None,
        listeners: Listeners,
    ) -> None:
        self._judge = judge
        self._judged_by = judged_by
        self._ids = {label: number for number, label in enumerate(labels)}
        self._limits = limits
        self._cache = cache
        self._listeners = listeners
        self._places = anyio.Semaphore(limits.queue)

    def place(self) -> _Place:
        return _Place(self._places, self._limits.queue)

    async def uploads(self, request: Request) -> list[Upload]:
        """Raises ProblemError."""
        found = await read_uploads(request, max_bytes=self._limits.max_bytes)
        for one in found:
            self._listeners.uploaded(len(one.data))
        return found

    async def result(self, upload: Upload, request: Request, *, annotate: bool) -> dict[str, Any]:
        """One of several: what is wrong with it is its own affair."""
        try:
            return await self.predicted(upload, request, annotate=annotate)
        except ProblemError as problem:
            return _refused(problem)

    async def predicted(self, upload: Upload, request: Request, *, annotate: bool) -> dict[str, Any]:
        """Raises ProblemError."""
        return await run_in_threadpool(self._predicted, upload, request, annotate=annotate)

    def _predicted(self, upload: Upload, request: Request, *, annotate: bool) -> dict[str, Any]:
        began_s = time.perf_counter()
        key = key_of(upload.data, judge=self._judged_by())
        kept = self._cache.get(key) if self._cache is not None and not annotate else None
        if kept is not None:
            self._listeners.hit()
            document: dict[str, Any] = json.loads(kept)
        else:
            inspection = self.judged(upload, request)
            document = self._document(inspection)
            if annotate:
                document["annotated"] = base64.b64encode(_png(inspection)).decode()
            elif self._cache is not None:
                self._cache.put(key, to_bytes(document))
        document["processing_time"] = round(time.perf_counter() - began_s, 4)
        return document

    def judged(self, upload: Upload, request: Request) -> Inspection:
        """Raises ProblemError for what is no picture, or no whole one."""
        try:
            image = read(upload.data, max_pixels=self._limits.max_pixels, depth_bits=self._limits.depth_bits)
        except NoPictureError as error:
            what = str(error).partition(":")[0]
            raise ProblemError(415, "No picture", f"{what}: send a JPEG, PNG, BMP, TIFF or WebP") from None
        except PictureError as error:
            raise ProblemError(422, "The picture cannot be judged", str(error)) from None
        inspection = self._judge(image, upload)
        if inspection.detect_ms is not None:
            self._listeners.inferred(inspection.detect_ms / 1e3)
            request.state.model_ms = round(inspection.detect_ms, 1)
        return inspection

    def _document(self, inspection: Inspection) -> dict[str, Any]:
        assert inspection.frame.image is not None  # noqa: S101  # it was decoded
        height, width = inspection.frame.image.shape[:2]
        decision = inspection.decision
        listed = [one.defect for one in decision.defects] + [one.defect for one in decision.suppressed]
        return {
            "detections": [
                {
                    "bbox": [
                        round(one.box.x, 1),
                        round(one.box.y, 1),
                        round(one.box.x + one.box.width, 1),
                        round(one.box.y + one.box.height, 1),
                    ],
                    "confidence": cut(one.confidence, 4),
                    "class_id": self._ids.get(one.label, -1),
                    "class_name": one.label,
                }
                for one in listed
            ],
            "processing_time": 0.0,
            "image_size": {"width": width, "height": height},
            "verdict": decision.verdict.value,
            "reason": decision.reason,
            "model": inspection.model.name,
            "recipe": inspection.recipe,
        }


class _Place:
    """A place among the requests under way. Raises ProblemError 503 at once when there is none."""

    def __init__(self, places: anyio.Semaphore, queue: int) -> None:
        self._places = places
        self._queue = queue

    async def __aenter__(self) -> None:
        try:
            self._places.acquire_nowait()
        except anyio.WouldBlock:
            detail = f"{self._queue} requests are under way already ([http] queue): try again in a second"
            raise ProblemError(503, "Busy", detail, headers={"Retry-After": "1"}) from None

    async def __aexit__(self, *_: object) -> None:
        self._places.release()


def _png(inspection: Inspection) -> bytes:
    assert inspection.frame.image is not None  # noqa: S101  # it was decoded
    written, data = cv2.imencode(".png", drawn(inspection.frame.image, inspection.decision))
    assert written  # noqa: S101  # a picture of bytes always can be
    return bytes(data)


def _refused(problem: ProblemError) -> dict[str, Any]:
    return {"type": "about:blank", "title": problem.title, "status": problem.status, "detail": problem.detail}
