"""Sends requests on to the remote API: each once, by the connections and the proxy of the worker.

It tells what was certainly not sent from what may have been: the first may be sent again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import httpx

from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.telemetry.tracing import traces

#: No byte of the request has left, or a proxy has refused it.
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.LocalProtocolError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)
#: Headers of a caller that the API gets, beside those that begin with `x-`.
_SENT_ON = frozenset("accept content-type content-encoding model idempotency-key".split())
#: Those that say how the request came to us, or what no client may say.
_KEPT_BACK = ("x-forwarded-", "x-real-ip", "x-record-exempt", "x-request-id")
#: Headers of an answer that the caller gets, beside those that begin with `x-` or `ratelimit`.
_ANSWERED = frozenset("content-type retry-after content-disposition".split())
#: Bytes of a body that are sent at once; of more it is known how far it came.
_PIECE = 64 * 1024


#: An answer of the API, whose body may still be coming.
ApiAnswer = httpx.Response


class NotSent(Exception):
    """The API has certainly not got the request."""


class Uncertain(Exception):
    """The API may have got the request; its answer did not come, or not whole."""


class ApiCalls:
    """Calls of the API at `url`. `connect` and `read` are seconds."""

    def __init__(self, transport: PooledTransport, url: str, connect: float, read: float) -> None:
        self._transport, self._url = transport, url
        self._timeout = {"connect": connect, "pool": connect, "write": read, "read": read}

    @asynccontextmanager
    async def post(
        self,
        target: str,
        token: str,
        headers: Iterable[tuple[str, str]],
        body: bytes | AsyncIterator[bytes],
        method: str = "POST",
    ) -> AsyncIterator[ApiAnswer]:
        """Post a body to a `target` (path and query); the answer is read within the `with`.

        A body that is still coming needs a `content-length` among the headers. `method`: another
        one, such as GET. Raises NotSent and Uncertain.
        """
        headers = list(headers)
        coming = _coming(body, headers)
        sent = [(name, value) for name, value in headers if _goes_on(name)]
        sent += [("content-length", str(coming.length))] if coming else []
        sent += [("authorization", f"Bearer {token}"), ("accept-encoding", "identity")]
        sent += [("user-agent", "Cavendish"), *traces().headers().items()]
        coded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent]
        try:
            request = httpx.Request(
                method, self._url + target, headers=coded, content=coming or body
            )
            request.extensions = {"timeout": self._timeout}
            response = await self._transport.handle_async_request(request)
        except _NOT_SENT as error:
            raise NotSent(_said(error)) from None
        except Exception as error:
            cut = coming is not None and not coming.whole
            raise (NotSent if cut else Uncertain)(_said(error)) from None
        try:
            if coming and not coming.whole and not is_clear(response.status_code):
                said = f"HTTP {response.status_code} before all of the request was sent"
                raise NotSent(said)
            yield response
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


def is_clear(status: int) -> bool:
    """True if a status tells whether the API took a submit."""
    return status < 500 and status != 408


class _Coming:
    """A body of so many bytes on its way; it is `whole` once its last piece was handed on.

    The API acts on no request of which it has only a part.
    """

    def __init__(self, pieces: AsyncIterator[bytes], length: int) -> None:
        self._pieces, self._left, self.length = pieces, length, length

    @property
    def whole(self) -> bool:
        return self._left <= 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for some in self._pieces:
            self._left -= len(some)
            yield some


def _coming(
    body: bytes | AsyncIterator[bytes], headers: Iterable[tuple[str, str]]
) -> _Coming | None:
    """A body that goes out in pieces: one that still comes, and a large one."""
    if not isinstance(body, bytes):
        return _Coming(body, int(dict(headers)["content-length"]))
    return _Coming(_in_pieces(body), len(body)) if len(body) > _PIECE else None


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]


async def read_whole(response: ApiAnswer, limit: int) -> bytes | None:
    """The body of an answer as it came; None if it is longer than `limit` bytes.

    Raises Uncertain.
    """
    body = bytearray()
    async for some in pieces_of_answer(response):
        body += some
        if len(body) > limit:
            return None
    return bytes(body)


async def pieces_of_answer(response: ApiAnswer) -> AsyncIterator[bytes]:
    """The body of an answer as it comes. Raises Uncertain."""
    try:
        async for some in response.aiter_raw():
            yield some
    except Exception as error:
        raise Uncertain(_said(error)) from None


def answered_headers(headers: httpx.Headers) -> dict[str, str]:
    """The headers of an answer that its caller gets, byte for byte."""
    found = [(name.decode("latin-1").lower(), value) for name, value in headers.raw]
    return {
        name: value.decode("latin-1")
        for name, value in found
        if name in _ANSWERED or name.startswith(("x-", "ratelimit"))
    }


def _goes_on(name: str) -> bool:
    return name in _SENT_ON or (name.startswith("x-") and not name.startswith(_KEPT_BACK))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
