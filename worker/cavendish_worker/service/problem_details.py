"""Answers that are errors: problem documents of RFC 9457, one sentence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from cavendish.errors import (
    ClientClosed,
    EndpointError,
    EventsMissed,
    QuotaExceeded,
    StoreUnavailable,
    SubmissionError,
)
from cavendish.stored_json import compact
from cavendish_worker.telemetry.logs import logger

MEDIA_TYPE = "application/problem+json"
#: Seconds after which to ask again: while Redis is away, and where a producer has no room.
AWAY_FOR, FULL_FOR = 1, 60

#: What the framework says only by its status.
_SENTENCES = {
    400: "The body cannot be read as JSON.",
    404: "There is no such resource; /docs lists them.",
    405: "The resource does not take this method; the header `allow` names those that it takes.",
}


#: The kind of an EndpointError -> its status.
_OF_ENDPOINT = {"missing": 404, "taken": 409}


class Problem(Exception):
    """An answer that is an error: its status, one sentence, headers, and what else it says."""

    def __init__(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: object
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.more = status, detail, headers, more

    def response(self) -> Response:
        """The problem document."""
        title = HTTPStatus(self.status).phrase
        body = {"type": "about:blank", "title": title, "status": self.status}
        text = compact({**body, "detail": self.detail, **self.more})
        return Response(text, self.status, self.headers, media_type=MEDIA_TYPE)


def no_key() -> Problem:
    """The answer to whoever has no key, or none that counts."""
    said = "A key is needed, as `authorization: Bearer cav_…`; `cavendish key add` makes one."
    return Problem(401, said, {"www-authenticate": "Bearer", "connection": "close"})


def again_after(seconds: float) -> dict[str, str]:
    """The header that says when to try again."""
    return {"retry-after": str(max(round(seconds), 1))}


def install(app: FastAPI) -> None:
    """Let an application answer every error with a problem document."""
    for kind, problem in _PROBLEMS.items():
        app.add_exception_handler(kind, _handler(problem))


def of(error: Exception) -> Problem:
    """The problem that tells of an error; 500 for one that nobody expected."""
    kind = next(kind for kind in type(error).__mro__ if kind in _PROBLEMS)
    found: Problem = _PROBLEMS[kind](error)
    return found


def _handler(problem: Any) -> Any:
    async def handle(request: Request, error: Exception) -> Response:
        found: Problem = problem(error)
        if found.status == 405:
            found.headers = {"allow": ", ".join(sorted(_methods(request)))}
        return found.response()

    return handle


def _methods(request: Request) -> set[str]:
    """All methods that a resource takes; the framework names those of one of its routes."""
    routes = [each for each in request.app.routes if isinstance(each, Route | APIRoute)]
    found = [each for each in routes if each.matches(request.scope)[0] is not Match.NONE]
    return {method for each in found for method in each.methods or ()}


def _invalid(error: RequestValidationError) -> Problem:
    """What is wrong with the parameters or the body, each with its place."""
    said = [{"at": _place(one["loc"]), "detail": _sentence(one)} for one in error.errors()[:20]]
    return Problem(422, f"{said[0]['at']}: {said[0]['detail']}", errors=said)


def _place(loc: Sequence[object]) -> str:
    where, *path = loc or ("body",)
    return f"{where} {'.'.join(map(str, path))}".strip()


def _sentence(one: Mapping[str, Any]) -> str:
    if one["type"] == "too_long":
        return f"At most {one['ctx']['max_length']:,} may be given."
    text = f"{one['msg']}".removeprefix("Value error, ")
    return text if text.endswith(".") else f"{text}."


def _of_framework(error: HTTPException) -> Problem:
    detail = _SENTENCES.get(error.status_code) or f"{error.detail}"
    return Problem(error.status_code, detail, error.headers)


def _unavailable(error: StoreUnavailable) -> Problem:
    """The log says which Redis it is, and why; that is nothing for clients."""
    logger().warning("http.store_unavailable", outcome=str(error))
    said = "The store does not answer, or is full; try again."
    return Problem(503, said, again_after(AWAY_FOR))


def _missed(error: EventsMissed) -> Problem:
    return Problem(410, f"{error}.", position=error.position)


#: Error -> the problem that tells of it.
_PROBLEMS: dict[type[Exception], Any] = {
    Problem: lambda problem: problem,
    RequestValidationError: _invalid,
    HTTPException: _of_framework,
    QuotaExceeded: lambda error: Problem(429, str(error), again_after(FULL_FOR), kind=error.kind),
    SubmissionError: lambda error: Problem(422, str(error), kind=error.kind),
    EndpointError: lambda error: Problem(
        _OF_ENDPOINT.get(error.kind, 422), str(error), kind="endpoint"
    ),
    EventsMissed: _missed,
    StoreUnavailable: _unavailable,
    ClientClosed: lambda _: Problem(
        503, "The service shuts down; try again.", again_after(AWAY_FOR)
    ),
    Exception: lambda _: Problem(500, "The service failed at this request; its log says why."),
}
