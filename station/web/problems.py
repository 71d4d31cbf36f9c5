"""What an HTTP client is told when something is wrong, as RFC 9457 has it (``application/problem+json``)."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from station.events import to_bytes

MEDIA_TYPE = "application/problem+json"


class ProblemError(Exception):
    """Ends a request with *status*: *title* names the kind, *detail* says what was wrong and what to do."""

    def __init__(self, status: int, title: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = dict(headers or {})


def problem_response(problem: ProblemError) -> Response:
    document = {"type": "about:blank", "title": problem.title, "status": problem.status, "detail": problem.detail}
    return Response(to_bytes(document), status_code=problem.status, media_type=MEDIA_TYPE, headers=problem.headers)


def add_problems(api: FastAPI) -> None:
    """Every error of *api*, its own and FastAPI's, takes this form."""

    @api.exception_handler(ProblemError)
    async def ours(_request: Request, problem: ProblemError) -> Response:
        return problem_response(problem)

    @api.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> Response:
        detail = f"{error.detail}: /docs lists what there is" if error.status_code == 404 else str(error.detail)
        return problem_response(ProblemError(error.status_code, str(error.detail), detail, headers=error.headers))

    @api.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: Exception) -> Response:
        """Nobody hears it; but it stands in the log and in the metrics as what it is."""
        return problem_response(ProblemError(400, "Gone", "the sender hung up before the request was whole"))

    @api.exception_handler(Exception)
    async def unforeseen(request: Request, _error: Exception) -> Response:
        """It is in the log, with its traceback; who asked learns nothing of the inside."""
        request_id = getattr(request.state, "request_id", "unknown")
        detail = f"the station has failed at this request: its log has more under id {request_id}"
        return problem_response(ProblemError(500, "Internal error", detail))

    @api.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return problem_response(ProblemError(422, "The request is not valid", said))
