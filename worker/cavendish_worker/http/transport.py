"""Pools HTTP connections behind httpx's public transport interface: one pool for each origin.

httpcore's pool checks every connection for every call, and collapses above some fifty calls at
once. Here a call gets its connection in constant time, and the last used one is used next. A
request is written as httpx spells it.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict, deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import httpx

from cavendish_worker.http.dial import Backend
from cavendish_worker.http.faults import DialFault, ProxyAway
from cavendish_worker.http.stream import KEEPALIVE, AnswerTooCostly, Connection, RawResponseMessage

#: Connections to one origin, and idle ones over all origins. An origin without any is forgotten.
CONNECTIONS_PER_ORIGIN, IDLE = 200, 500
_PORTS = {"http": 80, "https": 443}
_HEADERS = re.compile(
    rb"(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+: (?:[!-~\x80-\xff][\t -~\x80-\xff]*)?\r\n)*"
)
_TARGET = re.compile(rb"[!-~]+")
_UNSOUND = "The request cannot be written as HTTP/1.1 with a length."
#: Scheme, host and port.
Origin = tuple[bytes, bytes, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads: what a call to it needs, read once."""

    url: httpx.URL
    origin: Origin
    target: bytes
    host: bytes


@dataclass(slots=True, eq=False)
class Call:
    """A request: its place, its header lines, its body, whole or as pieces that are still coming.

    `peer`: the address at the other end, as soon as it has a connection.
    """

    place: Place
    method: str
    head: bytes
    body: bytes | AsyncIterable[bytes]
    peer: Any = None

    def check(self) -> None:
        """Raise LocalProtocolError if its bytes would mean something else."""
        if not _HEADERS.fullmatch(self.head) or not _TARGET.fullmatch(self.place.target):
            raise httpx.LocalProtocolError(_UNSOUND)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status, the headers, the first bytes of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def place_of(url: httpx.URL) -> Place:
    """Where a URL leads. Raises UnsupportedProtocol."""
    if url.scheme not in _PORTS or not url.host:
        why = "Only http:// and https:// URLs with a host can be called."
        raise httpx.UnsupportedProtocol(why)
    origin = (url.raw_scheme, url.raw_host, url.port or _PORTS[url.scheme])
    return Place(url, origin, url.raw_path, url.netloc)


@dataclass(slots=True, eq=False)
class _Pool:
    """The connections of one origin: how many there are, which are idle, who waits for one."""

    origin: Origin
    size: int = 0
    idle: deque[Connection] = field(default_factory=deque)
    waiting: deque[asyncio.Future[Connection | None]] = field(default_factory=deque)


class PooledTransport(httpx.AsyncBaseTransport):
    """A transport for `httpx.AsyncClient`; or call `handle_async_request`, and close the response.

    As soon as a call has its connection, `request.extensions["server_addr"]` is the address at its
    other end. No request is ever sent twice: a kept connection is checked before anything is sent.
    """

    def __init__(
        self, backend: Backend | None = None, connections: int = CONNECTIONS_PER_ORIGIN
    ) -> None:
        self._backend, self._connections = backend or Backend(), connections
        self._pools: dict[Origin, _Pool] = {}
        self._idle: OrderedDict[Connection, _Pool] = OrderedDict()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        place, timeouts = place_of(request.url), request.extensions.get("timeout", {})
        whole = isinstance(request.stream, httpx.ByteStream)
        body = await request.aread() if whole else cast("AsyncIterable[bytes]", request.stream)
        call = Call(place, request.method, _head(request), body)
        try:
            connection, message = await self._ask(call, timeouts)
        finally:
            if call.peer is not None:
                request.extensions["server_addr"] = call.peer
        stream = _Body(connection, timeouts.get("read"), partial(self._end, call, connection))
        reason = message.reason.encode(errors="surrogateescape")
        extensions = {"http_version": b"HTTP/1.1", "reason_phrase": reason}
        headers = list(message.raw_headers)
        return httpx.Response(message.code, headers=headers, stream=stream, extensions=extensions)

    async def exchange(self, call: Call, limit: int, timeout: float) -> Answer:
        """Make a call without the objects of httpx, which cost as much as all the rest of it.

        At most `limit` bytes of the answer's body are read, and more is not waited for. The caller
        ends it after `timeout` seconds, of which each address of a name gets its share. Raises the
        errors of httpx.
        """
        connection, message = await self._ask(call, {"connect": timeout})
        try:
            body = await _read(connection, limit)
        finally:
            self._end(call, connection)
        return Answer(message.code, message.headers, body)

    async def _ask(
        self, call: Call, timeouts: Mapping[str, float | None]
    ) -> tuple[Connection, RawResponseMessage]:
        """Send a request, and wait for the head of its answer."""
        call.check()
        origin = call.place.origin
        pool = self._pools.get(origin) or self._pools.setdefault(origin, _Pool(origin))
        connection = await self._take(pool, timeouts.get("pool"))
        try:
            if connection is None:
                connection = await self._backend.open(call.place.url, timeouts.get("connect"))
            call.peer = connection.peer
            message = await _exchange(connection, call, timeouts)
        except BaseException as error:
            if connection is not None:
                connection.close()
            self._give_back(pool, None)
            if isinstance(error, DialFault):
                raise error.as_httpx() from error
            raise
        return connection, message

    def _end(self, call: Call, connection: Connection) -> None:
        self._give_back(self._pools[call.place.origin], connection)

    async def _take(self, pool: _Pool, timeout: float | None) -> Connection | None:
        """An idle connection, or None: the right to make one.

        Where the pool has all that it may have, calls wait: first come, first served.
        """
        while pool.idle:
            connection = pool.idle.pop()
            del self._idle[connection]
            if connection.usable():
                return connection
            connection.close()
            pool.size -= 1
        if pool.size < self._connections:
            pool.size += 1
            return None
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        pool.waiting.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                handed = await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self._give_back(pool, waiter.result())
            if isinstance(error, TimeoutError):
                raise httpx.PoolTimeout("No connection became free in time.") from None
            raise
        if handed is None or handed.usable():
            return handed
        handed.close()  # its peer has spoken since it was handed over
        return None

    def _give_back(self, pool: _Pool, connection: Connection | None) -> None:
        if connection is not None and (self._closed or not connection.sound):
            connection.close()
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
        if self._sweep is None:
            self._sweep_later()

    def _sweep_later(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(KEEPALIVE, self._drop_unusable)

    def _drop(self, connection: Connection) -> None:
        pool = self._idle.pop(connection)
        pool.idle.remove(connection)
        connection.close()
        self._give_back(pool, None)

    def _drop_unusable(self) -> None:
        """Idle connections end in time, also if no further call checks them."""
        for connection in [one for one in self._idle if not one.usable()]:
            self._drop(connection)
        self._sweep = None
        if self._idle:
            self._sweep_later()

    async def aclose(self) -> None:
        """Close what is idle; calls that are under way close theirs when they end."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._idle):
            self._drop(connection)
        await asyncio.sleep(0)


class _Body(httpx.AsyncByteStream):
    """The answer's raw bytes; its connection is free again when they are read or given up."""

    def __init__(
        self, connection: Connection, timeout: float | None, free: Callable[[], None]
    ) -> None:
        self._connection, self._timeout, self._free, self._open = connection, timeout, free, True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._open and (some := await self._connection.read(self._timeout)):
            yield some

    async def aclose(self) -> None:
        """What has not come yet is not waited for: the connection then ends."""
        if self._open:
            self._open = False
            self._free()


async def _exchange(
    connection: Connection, call: Call, timeouts: Mapping[str, float | None]
) -> RawResponseMessage:
    start, more = connection.forward or (b"", b"")
    line = b"%b %b%b HTTP/1.1\r\n" % (call.method.encode(), start, call.place.target)
    body, pieces = (call.body, None) if isinstance(call.body, bytes) else (b"", call.body)
    asked = b"".join((line, more, call.head, b"\r\n", body))
    await connection.ask(asked, timeouts.get("write"), no_body=call.method == "HEAD")
    if pieces is not None:
        async for some in pieces:
            if not await connection.send(some, timeouts.get("write")):
                break
    message = await connection.answer(timeouts.get("read"))
    if connection.forward is not None and message.code == 407:
        raise ProxyAway("The proxy refuses: HTTP 407.")
    return message


def _head(request: httpx.Request) -> bytes:
    """The header lines, in the order and spelling of the request."""
    raw = request.headers.raw
    head = b"".join([b"%b: %b\r\n" % pair for pair in raw])
    if head.count(b"\n") != len(raw) or "transfer-encoding" in request.headers:
        raise httpx.LocalProtocolError(_UNSOUND)
    return head


async def _read(connection: Connection, limit: int) -> bytes:
    """At most the first `limit` bytes of a body; what was read before an answer that costs too much
    is enough.
    """
    body = bytearray()
    try:
        while len(body) < limit and (some := await connection.read(None)):
            body += some
    except AnswerTooCostly:
        pass
    return bytes(body[:limit])


async def read_raw(response: httpx.Response, limit: int) -> bytes | None:
    """The body as it came over the wire, never inflated.

    None if it is longer than `limit` bytes.
    """
    body, chunks = bytearray(), response.aiter_raw()
    while len(body) <= limit and (chunk := await anext(chunks, None)) is not None:
        body += chunk
    return bytes(body) if len(body) <= limit else None
