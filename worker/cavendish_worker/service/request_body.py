"""Reads the body of a request, whole or piece by piece: at most so many bytes, within a time.

One place bounds all bodies. The framework has a bound too, but answers in plain text then, whatever
form its errors have elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import ClientDisconnect, Request

from cavendish.stored_json import parse
from cavendish_worker.polling.answer_json import CONTAINERS

#: What a body with more lists and objects is told: reading them would stop everybody for seconds.
TOO_MANY = f"A body has at most {CONTAINERS:,} lists and objects."
#: The rest of a body that was refused is not read, so nothing can follow on its connection.
CLOSE = {"connection": "close"}


class Unread(Exception):
    """A body that was not read: its HTTP status, and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


def length_of(request: Request) -> int | None:
    """The bytes of a body as far as its head says; None if it does not.

    What comes in chunks has no other length, whatever else its head says.
    """
    said = request.headers.get("content-length", "")
    chunked = "transfer-encoding" in request.headers
    return int(said) if said.isdecimal() and len(said) < 20 and not chunked else None


async def pieces_of(request: Request, limit: int, seconds: float) -> AsyncIterator[bytes]:
    """The bytes as they come. Raises Unread, also for a caller who has gone."""
    too_large = Unread(413, f"A body has at most {limit} bytes.")
    if (length_of(request) or 0) > limit:
        raise too_large
    until, size, stream = time.monotonic() + seconds, 0, request.stream()
    try:
        while True:
            async with asyncio.timeout(until - time.monotonic()):
                some = await anext(stream, None)
            if some is None:
                return
            size += len(some)
            if size > limit:
                raise too_large
            if some:
                yield some
    except TimeoutError:
        raise Unread(408, f"The body did not come within {seconds:g} s.") from None
    except ClientDisconnect:
        raise Unread(400, "The caller has gone.") from None


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """All bytes as they came. Raises Unread, also for a caller who has gone."""
    return b"".join([some async for some in pieces_of(request, limit, seconds)])


def has_too_many(body: bytes) -> bool:
    """True for a body with more lists and objects than are read."""
    return body.count(b"[") + body.count(b"{") > CONTAINERS


def read_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object of a body; None for anything else, and for one with too many parts."""
    try:
        told = None if has_too_many(body) else parse(body.decode())
    except ValueError:
        return None
    return told if isinstance(told, dict) else None
