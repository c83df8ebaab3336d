"""Routes that need a key, which is checked before the body is read; the body comes in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from cavendish_worker.service.key_access import KeyAccess
from cavendish_worker.service.parts import parts_of
from cavendish_worker.service.problem_details import Problem, again_after
from cavendish_worker.telemetry.metrics import answered

#: Seconds within which a body must have come.
BODY_WITHIN = 30.0
#: How the document says that a key is needed; GuardedRoute checks it.
BEARER = HTTPBearer(
    scheme_name="key", description="A key of `cavendish key add`.", auto_error=False
)


class GuardedRoute(APIRoute):
    """A route that answers 401 to whoever has no key, 415 to a body that is no JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of FastAPI, behind the checks."""
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            request.state.access = await access_of(request)
            try:
                async with asyncio.timeout(BODY_WITHIN):
                    body = await request.body()
            except TimeoutError:
                said = f"The body did not come within {BODY_WITHIN:.0f} s."
                raise Problem(408, said, {"connection": "close"}) from None
            if body and not _is_json(request.headers.get("content-type", "")):
                raise Problem(415, "The body must be JSON, with `content-type: application/json`.")
            return await handler(request)

        return guarded


async def access_of(request: Request) -> KeyAccess:
    """The access of the key of a request. A Problem if it has none, or asks too often."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    parts = parts_of(request)
    key = await parts.keys.find(text.strip()) if scheme.lower() == "bearer" else None
    if key is None:
        answered.KEYS_REFUSED.add("api")
        raise Problem(
            401,
            "A key is needed, as `authorization: Bearer cav_…`; `cavendish key add` makes one.",
            {"www-authenticate": "Bearer", "connection": "close"},  # its body is not read
        )
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
