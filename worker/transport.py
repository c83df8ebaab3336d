"""HTTP connections within httpx's public transport interface: many small pools, one TLS context.

httpcore's pool rescans every connection for every queued request and collapses above some fifty concurrent
calls, so each destination gets pools of at most ten connections, and a call goes to the least loaded one.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from functools import cache
from types import TracebackType
from typing import Self

import httpcore
import httpx

CONNECTIONS_PER_POOL = 10
POOLS_PER_ORIGIN = 20
ORIGINS = 500
KEEPALIVE = 30.0

_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ReadTimeout, httpx.ReadTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.PoolTimeout, httpx.PoolTimeout),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
)


@cache
def tls_context() -> ssl.SSLContext:
    """One context per process: building it costs some 30 ms, sharing it nothing."""
    return httpx.create_ssl_context()


class _Pool:
    def __init__(self, backend: httpcore.AsyncNetworkBackend | None) -> None:
        self.in_flight = 0
        self.pool = httpcore.AsyncConnectionPool(
            ssl_context=tls_context(),
            max_connections=CONNECTIONS_PER_POOL,
            max_keepalive_connections=CONNECTIONS_PER_POOL,
            keepalive_expiry=KEEPALIVE,
            network_backend=backend,
        )


class _Body(httpx.AsyncByteStream):
    """The answer's raw bytes; its pool counts as busy until they are read or given up."""

    def __init__(self, pool: _Pool, response: httpcore.Response) -> None:
        self._pool, self._response, self._open = pool, response, True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_stream():
                yield chunk
        except Exception as error:
            raise translated(error) from error

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._pool.in_flight -= 1
            await self._response.aclose()


class ShardedTransport(httpx.AsyncBaseTransport):
    """Give it to `httpx.AsyncClient(transport=…)`. `backend` dials; the default dials anything."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend | None = None) -> None:
        self._backend = backend
        self._pools: dict[tuple[str, str, int | None], list[_Pool]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        pool = await self._least_loaded(request.url)
        pool.in_flight += 1
        try:
            response = await pool.pool.handle_async_request(_plain(request))
        except BaseException as error:
            pool.in_flight -= 1
            raise translated(error) from error
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(pool, response), extensions=response.extensions
        )

    async def _least_loaded(self, url: httpx.URL) -> _Pool:
        origin = (url.scheme, url.host, url.port)
        pools = self._pools.setdefault(origin, [])
        best = min(pools, key=lambda pool: pool.in_flight, default=None)
        if best is None or (best.in_flight >= CONNECTIONS_PER_POOL and len(pools) < POOLS_PER_ORIGIN):
            best = _Pool(self._backend)
            pools.append(best)
            await self._forget_idle(origin)
        return best

    async def _forget_idle(self, but: tuple[str, str, int | None]) -> None:
        """Keep the number of destinations bounded: close the oldest that nobody uses."""
        for origin in [known for known in self._pools if known != but][: max(len(self._pools) - ORIGINS, 0)]:
            if not any(pool.in_flight for pool in self._pools[origin]):
                for pool in self._pools.pop(origin):
                    await pool.pool.aclose()

    async def aclose(self) -> None:
        for pools in self._pools.values():
            for pool in pools:
                await pool.pool.aclose()
        self._pools.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, trace: TracebackType | None = None
    ) -> None:
        await self.aclose()


def translated(error: BaseException) -> BaseException:
    """httpx's error for one of httpcore's; any other stays as it is."""
    for ours, theirs in _ERRORS:
        if isinstance(error, ours):
            return theirs(str(error) or ours.__name__)
    return error


def _plain(request: httpx.Request) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        request.method,
        httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


async def read_raw(response: httpx.Response, limit: int) -> bytes | None:
    """The body as it came over the wire, never inflated; None if it is longer than `limit` bytes."""
    chunks, size = [], 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
    return b"".join(chunks)
