"""Bodies as the gateway reads them: what is wrong with one has the gateway's form, and all that are
in memory at once have a bound, since pictures come in bodies of many megabytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.requests import Request

from cavendish_worker.service import request_body
from cavendish_worker.service.gateway.refusal import Refused
from cavendish_worker.service.request_body import Unread, length_of


async def pieces_of(request: Request, limit: int, seconds: float) -> AsyncIterator[bytes]:
    """The bytes as they come. Raises Refused, also for a caller who has gone."""
    try:
        async for some in request_body.pieces_of(request, limit, seconds):
            yield some
    except Unread as unread:
        large = unread.status == 413  # a 408 would be sent again
        status, code = (413, "request_too_large") if large else (400, "bad_request")
        raise Refused(status, code, unread.sentence, unread=True) from None


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """All bytes as they came. Raises Refused, also for a caller who has gone."""
    return b"".join([some async for some in pieces_of(request, limit, seconds)])


class Room:
    """Room for so many bytes of bodies. Use it in one event loop."""

    def __init__(self, size: int) -> None:
        self._left = size

    @contextmanager
    def taken(self, request: Request, most: int) -> Iterator[None]:
        """Take room for a body, which has at most so many bytes. Raises Refused."""
        length = length_of(request)
        wanted = most if length is None else min(length, most)
        if wanted > self._left:
            why = "Too many large requests come at once; nothing was sent to the API. Try again."
            raise Refused(503, "api_error", why)
        self._left -= wanted
        try:
            yield
        finally:
            self._left += wanted
