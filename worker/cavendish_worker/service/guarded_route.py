"""Routes that need a key, which is checked before the rest is read; the body comes in time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from cavendish_worker.service.key_access import KeyAccess
from cavendish_worker.service.parts import parts_of
from cavendish_worker.service.problem_details import Problem, again_after, no_key
from cavendish_worker.service.query_names import QueryNames
from cavendish_worker.service.request_body import CLOSE, TOO_MANY, Unread, has_too_many, read_body
from cavendish_worker.telemetry.metrics import answered

#: Bytes of the largest body: 10,000 ids with metadata of some hundred bytes each. Seconds within
#: which a body must have come.
LARGEST_BODY, BODY_WITHIN = 8 * 2**20, 30.0
#: How the document says that a key is needed; GuardedRoute checks it.
BEARER = HTTPBearer(
    scheme_name="key", description="A key of `cavendish key add`.", auto_error=False
)


class GuardedRoute(APIRoute):
    """A route that answers 401 to whoever has no key, 422 to a query with a word that it does not
    know, 415 to a body that is no JSON.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of FastAPI, behind the checks."""
        handler, query = super().get_route_handler(), QueryNames(self.dependant)

        async def guarded(request: Request) -> Response:
            request.state.access = await access_of(request)
            query.check(request)
            return await handler(_Read(request, await _body(request)))

        return guarded


class _Read(Request):
    """A request whose body has been read."""

    def __init__(self, request: Request, body: bytes) -> None:
        super().__init__(request.scope, request.receive)
        self._whole = body

    async def body(self) -> bytes:
        return self._whole


async def _body(request: Request) -> bytes:
    """A body that may be read as JSON."""
    try:
        body = await read_body(request, LARGEST_BODY, BODY_WITHIN)
    except Unread as unread:
        raise Problem(unread.status, unread.sentence, CLOSE) from None
    if not body:
        return body
    if not _is_json(request.headers.get("content-type", "")):
        raise Problem(415, "The body must be JSON, with `content-type: application/json`.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "The body must not be compressed.", {"accept-encoding": "identity"})
    if has_too_many(body):
        raise Problem(413, TOO_MANY)
    return body


async def access_of(request: Request) -> KeyAccess:
    """The access of the key of a request. A Problem if it has none, or asks too often."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    parts = parts_of(request)
    key = await parts.keys.find(text.strip()) if scheme.lower() == "bearer" else None
    if key is None:
        answered.KEYS_REFUSED.add("api")
        raise no_key()  # its body is not read
    request.state.key_name = key.name
    if wait := parts.rates.wait_of(key.name):
        most = f"{parts.settings.http_rate:g}"
        raise Problem(429, f"This key makes more than {most} requests a second.", again_after(wait))
    return KeyAccess(key)


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def _may(
    right: str, *, everywhere: bool = False
) -> Callable[[Request], Coroutine[Any, Any, KeyAccess]]:
    async def allowed(request: Request) -> KeyAccess:
        access: KeyAccess = request.state.access
        access.require(right)
        if everywhere:
            access.require_all()
        return access

    return allowed


#: Parameters of a route: what the key of the request may see and do. The route needs that right.
Reading = Annotated[KeyAccess, Depends(_may("read"))]
Submitting = Annotated[KeyAccess, Depends(_may("submit"))]
Operating = Annotated[KeyAccess, Depends(_may("operate"))]
#: A dependency of routes about what belongs to all accounts: a limited key has no part in it.
OF_ALL = Depends(_may("operate", everywhere=True))
