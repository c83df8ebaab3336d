"""Reads the body of a request whole: at most so many bytes, within a time."""

from __future__ import annotations

import asyncio

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
