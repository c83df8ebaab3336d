"""What a failed request to the API says: it was not sent, or it may have been.

The first may be sent again; the second never, since it may have been paid for.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httpx
import pytest

from cavendish_worker.service.gateway.api_calls import ApiCalls, NotSent, Uncertain, read_whole


class Breaking(httpx.AsyncBaseTransport):
    """A transport that fails with an error: before it answers, or amid its answer."""

    def __init__(self, error: Exception, *, amid: bool) -> None:
        self._error, self._amid = error, amid

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002
        if not self._amid:
            raise self._error
        return httpx.Response(200, stream=_Broken(self._error))


class _Broken(httpx.AsyncByteStream):
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def __aiter__(self) -> Any:
        yield b'{"task_id": '
        raise self._error


@pytest.mark.parametrize(
    ("error", "amid", "kind"),
    [
        (httpx.ConnectError("refused"), False, NotSent),
        (httpx.ReadError("reset"), False, Uncertain),
        (ConnectionResetError("reset"), True, Uncertain),
        (RuntimeError("a fault of a library"), False, Uncertain),
        (KeyError("a fault of a library"), True, Uncertain),
    ],
)
def test_whatever_fails_after_the_begin_of_a_call_leaves_its_fate_uncertain(
    error: Exception, amid: bool, kind: type[Exception]
) -> None:
    transport = cast(Any, Breaking(error, amid=amid))

    async def post() -> bytes | None:
        calls = ApiCalls(transport, "http://api.example", 1.0, 1.0)
        async with calls.post("/veo/videos", "token", [], b"{}") as answer:
            return await read_whole(answer, 1000)

    with pytest.raises(kind, match=f"^{type(error).__name__}"):
        asyncio.run(post())
