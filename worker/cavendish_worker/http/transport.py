"""HTTP connections within httpx's public transport interface: one pool for each origin, on streams
of our own.

httpcore's pool polls at every connection for every call and collapses above some fifty at once. So
httpcore speaks HTTP here, on one connection at a time; who gets which connection is decided in
constant time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial

import httpcore
import httpx

from cavendish_worker.http.stream import KEEPALIVE, Backend, Connection

#: Connections to one origin, and idle ones over all origins. An origin without any is forgotten.
CONNECTIONS_PER_ORIGIN, IDLE = 200, 500
_KNOWN = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError)
_NAMES = "ConnectTimeout ReadTimeout WriteTimeout PoolTimeout ConnectError ReadError WriteError RemoteProtocolError"
_ERRORS = tuple(
    (getattr(httpcore, name), getattr(httpx, name))
    for name in (*_NAMES.split(), "LocalProtocolError")
)
_PORTS = {"http": 80, "https": 443}


@dataclass(slots=True, eq=False)
class _Pool:
    """The connections of one origin.

    How many there are, which are idle (the last used is used next), who waits for one.
    """

    origin: tuple[bytes, bytes, int]
    size: int = 0
    idle: deque[Connection] = field(default_factory=deque)
    waiting: deque[asyncio.Future[Connection | None]] = field(default_factory=deque)


class PooledTransport(httpx.AsyncBaseTransport):
    """Give it to `httpx.AsyncClient(transport=…)`, or call `handle_async_request` and close the
    response.

    As soon as a call has its connection, `request.extensions["server_addr"]` tells the address at
    its other end.
    """

    def __init__(
        self, backend: Backend | None = None, connections: int = CONNECTIONS_PER_ORIGIN
    ) -> None:
        self._backend, self._connections = backend or Backend(), connections
        self._pools: dict[tuple[bytes, bytes, int], _Pool] = {}
        self._idle: OrderedDict[Connection, _Pool] = OrderedDict()
        self._reconcile: asyncio.TimerHandle | None = None
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url, timeouts = request.url, request.extensions.get("timeout", {})
        if url.scheme not in _PORTS or not url.host:
            raise httpx.UnsupportedProtocol(
                "Only http:// and https:// URLs with a host can be called."
            )
        origin = (url.raw_scheme, url.raw_host, url.port or _PORTS[url.scheme])
        pool = self._pools.get(origin) or self._pools.setdefault(origin, _Pool(origin))
        try:
            connection = await self._take(pool, timeouts.get("pool"))
            try:
                if connection is None:
                    connection = await self._backend.open(
                        httpcore.Origin(*origin), timeouts.get("connect")
                    )
                request.extensions["server_addr"] = connection.stream.get_extra_info("server_addr")
                response = await connection.http.handle_async_request(_plain(request))
            except BaseException:
                self._give_back(pool, connection)
                raise
        except _KNOWN as error:
            raise translated(error) from error
        body = _Body(response, partial(self._give_back, pool, connection))
        return httpx.Response(
            response.status, headers=response.headers, stream=body, extensions=response.extensions
        )

    async def _take(self, pool: _Pool, timeout: float | None) -> Connection | None:
        """An idle connection, or None.

        The right to make one. Where there are enough, first come, first served.
        """
        while pool.idle:
            connection = pool.idle.pop()
            del self._idle[connection]
            if connection.usable():
                return connection
            connection.stream.close()
            pool.size -= 1
        if pool.size < self._connections:
            pool.size += 1
            return None
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        pool.waiting.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self._give_back(pool, waiter.result())
            if isinstance(error, TimeoutError):
                raise httpcore.PoolTimeout("No connection became free in time.") from None
            raise

    def _give_back(self, pool: _Pool, connection: Connection | None) -> None:
        if connection is not None and (self._closed or not connection.usable()):
            connection.stream.close()
            connection = None
        while pool.waiting:
            waiter = pool.waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if connection is None:
            pool.size -= 1
            if not pool.size:
                del self._pools[pool.origin]
            return
        pool.idle.append(connection)
        self._idle[connection] = pool
        if len(self._idle) > IDLE:
            self._drop(next(iter(self._idle)))
        if self._reconcile is None:
            self._reconcile = asyncio.get_running_loop().call_later(KEEPALIVE, self._drop_unusable)

    def _drop(self, connection: Connection) -> None:
        pool = self._idle.pop(connection)
        pool.idle.remove(connection)
        connection.stream.close()
        self._give_back(pool, None)

    def _drop_unusable(self) -> None:
        """Idle connections end in time even where no further call polls at them."""
        for connection in [one for one in self._idle if not one.usable()]:
            self._drop(connection)
        self._reconcile = (
            asyncio.get_running_loop().call_later(KEEPALIVE, self._drop_unusable)
            if self._idle
            else None
        )

    async def aclose(self) -> None:
        """Close what is idle; calls that are under way close theirs when they end."""
        self._closed = True
        if self._reconcile is not None:
            self._reconcile.cancel()
        for connection in list(self._idle):
            self._drop(connection)
        await asyncio.sleep(0)


class _Body(httpx.AsyncByteStream):
    """The answer's raw bytes; its connection is free again when they are read or given up."""

    def __init__(self, response: httpcore.Response, free: Callable[[], None]) -> None:
        self._response, self._free, self._open = response, free, True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_stream():
                yield chunk
        except _KNOWN as error:
            raise translated(error) from error

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            try:
                await self._response.aclose()
            finally:
                self._free()


def translated(error: Exception) -> httpx.TransportError:
    """httpx's error for one of httpcore's, with its notes."""
    told: httpx.TransportError = next(
        theirs for ours, theirs in _ERRORS if isinstance(error, ours)
    )(str(error) or repr(error))
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told


def _plain(request: httpx.Request) -> httpcore.Request:
    url, more = request.url, request.extensions
    plain = httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )
    return httpcore.Request(
        request.method, plain, headers=request.headers.raw, content=request.stream, extensions=more
    )


async def read_raw(response: httpx.Response, limit: int) -> bytes | None:
    """The body as it came over the wire, never inflated.

    None if it is longer than `limit` bytes.
    """
    body = await read_first(response, limit + 1)
    return body if len(body) <= limit else None


async def read_first(response: httpx.Response, limit: int) -> bytes:
    """At most the first `limit` bytes of the body, as they came over the wire.

    What lies behind them is not waited for.
    """
    body, chunks = bytearray(), response.aiter_raw()
    while len(body) < limit and (chunk := await anext(chunks, None)) is not None:
        body += chunk
    return bytes(body[:limit])
