"""A network stream of httpcore right on asyncio, and how connections are opened.

AnyIO, on which httpcore's own streams stand, costs more than all the rest of a small call.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import httpcore
import httpx

from cavendish.policy.addresses import literal

#: Seconds that an idle connection is kept, that the farewell of TLS may take, that one address of a
#: name is tried alone.
KEEPALIVE, FAREWELL, HAPPY_EYEBALLS = 30.0, 1.0, 0.25
#: Bytes that wait in a stream before its peer is stopped, or before they leave without waiting for
#: the end of the request.
BUFFER = 64 * 1024


@cache
def tls_context() -> ssl.SSLContext:
    """One context per process: building it costs some 30 ms, sharing it nothing."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Stream(httpcore.AsyncNetworkStream, asyncio.Protocol):
    """A network stream of httpcore right on asyncio.

    What is written leaves with the next read: a small request is one packet.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._received, self._unsent = bytearray(), bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = self._full = False
        self._error: Exception | None = None
        self._readable = select.poll()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._peer = transport.get_extra_info("peername")

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > BUFFER:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended, self._error = True, exc
        self._wake()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _peer_acts(self, timeout: float | None, late: type[Exception]) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._waiter
        except TimeoutError:
            raise late("Nothing happened in time.") from None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._flush()
        while not self._received and not self._ended:
            await self._peer_acts(timeout, httpcore.ReadTimeout)
        if not self._received and self._error is not None:
            raise httpcore.ReadError(str(self._error)) from self._error
        data = bytes(self._received[:max_bytes])
        del self._received[:max_bytes]
        if not self._received:
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._unsent += buffer
        if len(self._unsent) > BUFFER:
            self._flush()
            while self._full and not self._ended:
                await self._peer_acts(timeout, httpcore.WriteTimeout)
        if self._ended:
            raise httpcore.WriteError("The connection was closed.")

    def _flush(self) -> None:
        if self._unsent:
            self._transport.write(bytes(self._unsent))
            self._unsent.clear()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Becomes a TLS stream itself.

        Raises ConnectError where the peer's certificate is not that of the name.
        """
        self._received.clear()  # whoever sent it, it was not the peer of the handshake
        try:
            async with asyncio.timeout(timeout):
                transport = await asyncio.get_running_loop().start_tls(
                    self._transport,
                    self,
                    ssl_context,
                    server_hostname=server_hostname,
                    ssl_shutdown_timeout=FAREWELL,
                )
        except (OSError, ValueError, TypeError, AttributeError) as error:
            trips = isinstance(
                error, TypeError | AttributeError
            )  # as CPython 3.11 does over TLS within TLS
            cause = error.__context__ if trips else error
            late = isinstance(error, TimeoutError)
            raise (httpcore.ConnectTimeout if late else httpcore.ConnectError)(
                str(cause) or type(error).__name__
            ) from error
        if transport is None:
            raise httpcore.ConnectError("The connection was closed in the TLS handshake.")
        self._transport = transport
        return self

    def close(self) -> None:
        """Let go of the socket; a peer that does not take what is unsent is not waited for."""
        if self._transport.is_closing() or self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    async def aclose(self) -> None:
        self.close()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return (
                self._ended
                or bool(self._received)
                or self._transport.is_closing()
                or bool(self._readable.poll(0))
            )
        return self._peer if info == "server_addr" else self._transport.get_extra_info(info)


@dataclass(slots=True, eq=False)
class Connection:
    """One connection, which one call at a time holds."""

    stream: Stream
    http: httpcore.AsyncConnectionInterface

    def usable(self) -> bool:
        """False where an answer was not read to its end, the peer has closed or spoken unasked, or
        the time is up.
        """
        return self.http.is_idle() and not self.http.has_expired()


class Backend:
    """Opens connections.

    A subclass may choose the address (`connect_tcp`) or the way there (`open`).
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls

    async def connect_tcp(self, host: str, port: int, timeout: float | None = None) -> Stream:
        loop, delay = asyncio.get_running_loop(), None if literal(host) else HAPPY_EYEBALLS
        try:
            async with asyncio.timeout(timeout):
                _, stream = await loop.create_connection(
                    Stream, host, port, happy_eyeballs_delay=delay
                )
        except TimeoutError:
            raise httpcore.ConnectTimeout("No connection in time.") from None
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        return stream

    async def open(self, origin: httpcore.Origin, timeout: float | None) -> Connection:
        stream = await self.connect_tcp(origin.host.decode(), origin.port, timeout)
        return await self.speaking(stream, origin, timeout)

    async def speaking(
        self, stream: Stream, origin: httpcore.Origin, timeout: float | None
    ) -> Connection:
        """HTTP over a stream that ends at the origin. SNI and certificate are those of its name."""
        if origin.scheme == b"https":
            await stream.start_tls(self._tls or tls_context(), origin.host.decode(), timeout)
        return Connection(stream, httpcore.AsyncHTTP11Connection(origin, stream, KEEPALIVE))
