"""Reads the body of a request whole: at most so many bytes, within a time, as far as there is room.

Pictures come in bodies of many megabytes, so all that are in memory at once have a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from cavendish_worker.service.gateway.refusal import Refused


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """The bytes as they came. Raises Refused, also for a caller who has gone."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for some in request.stream():
                body += some
                if len(body) > limit:
                    raise Refused(413, "request_too_large", f"A body has at most {limit} bytes.")
    except TimeoutError:
        raise Refused(400, "bad_request", f"The body did not come within {seconds:g} s.") from None
    except ClientDisconnect:
        raise Refused(400, "bad_request", "The caller has gone.") from None
    return bytes(body)


class Room:
    """Room for so many bytes of bodies. Use it in one event loop."""

    def __init__(self, size: int) -> None:
        self._left = size

    @contextmanager
    def taken(self, request: Request, most: int) -> Iterator[None]:
        """Take room for a body, which has at most so many bytes. Raises Refused."""
        said = request.headers.get("content-length", "")
        wanted = min(int(said), most) if said.isdecimal() and len(said) < 20 else most
        if wanted > self._left:
            why = "Too many large requests come at once; nothing was sent to the API. Try again."
            raise Refused(503, "api_error", why)
        self._left -= wanted
        try:
            yield
        finally:
            self._left += wanted
