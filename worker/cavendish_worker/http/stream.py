"""One HTTP/1.1 connection directly on asyncio, with the parser of aiohttp, which is written in C.

The client of aiohttp is not used. It takes bytes that lie unread on a kept connection for the next
answer, reads interim answers without end, dials the addresses of a name again and again, and on
Python 3.11 checks a connection one turn of the loop before it writes the request.
"""

from __future__ import annotations

import asyncio
import re
import select
import ssl
from typing import Any, cast

import httpx
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser, RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import StreamReader

__all__ = ["AnswerTooCostly", "Connection", "RawResponseMessage"]

#: Seconds that an idle connection is kept, and that the end of TLS may take.
KEEPALIVE, TLS_END = 30.0, 1.0
#: Bytes of an answer that wait for their reader before the peer is stopped, and that are parsed at
#: a time.
BUFFER, PIECE = 64 * 1024, 16 * 1024
#: What an answer may hold besides its body: bytes in heads, chunk sizes and trailers (and an eighth
#: of the body on top), header fields, interim answers. More costs more CPU than an answer is worth.
FRAMING, FIELDS, INTERIM = 64 * 1024, 1000, 20

_COSTLY = "The answer holds more framing than it may."
_INTERIM_BODY = "An interim answer has a body."
_CUT_SHORT = "The peer closed the connection before its answer was complete."
_BLANK_LINE = re.compile(rb"\n\r?\n")


class AnswerTooCostly(httpx.RemoteProtocolError):
    """The answer holds far more framing than body: reading on would cost more CPU than it is worth.

    `read`: what was read of its body before.
    """

    read: bytes = b""


class Connection(BaseProtocol):
    """One connection, which one call at a time holds. If its peer speaks unasked, it is unusable.

    `peer`: address and port at the other end. `forward`: what a proxy for plain HTTP wants: the
    start of the whole URL, and header lines of its own.
    """

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self.peer: Any = None
        self.forward: tuple[bytes, bytes] | None = None
        self._asked = self._answering = self._spoilt = self._no_body = False
        self._idle_since = self._loop.time()
        self._waiter: asyncio.Future[None] | None = None
        self._readable = select.poll()
        self._forget_answer()

    def _forget_answer(self) -> None:
        self._message: RawResponseMessage | None = None
        self._body: StreamReader | None = None
        self._error: Exception | None = None
        self._length: int | None = None
        self._unparsed, self._last, self._parsed, self._interim = b"", b"", 0, 0

    # --- for the call that holds it

    @property
    def sound(self) -> bool:
        """False if an answer was not read to its end, or if the peer closed or spoke."""
        link = self.transport
        return not (link is None or link.is_closing() or self._answering or self._spoilt)

    def usable(self) -> bool:
        """True if it is sound, nothing of its peer lies unread, and its time is not up."""
        if not self.sound:
            return False
        if not self._asked:  # what is readable may still belong to the TLS handshake
            tls = self.transport is not None and self.transport.get_extra_info("ssl_object")
            return tls is not None or not self._readable.poll(0)
        return self._loop.time() - self._idle_since < KEEPALIVE and not self._readable.poll(0)

    async def ask(self, request: bytes, timeout: float | None, *, no_body: bool = False) -> None:
        """Send a request. Nothing that came before its first byte left is taken for its answer.

        `no_body`: the answer has no body, whatever its head says.
        """
        if not self.usable():
            early = "The peer sent data before the request, or closed the connection."
            raise httpx.RemoteProtocolError(early)
        assert self.transport is not None  # noqa: S101 (usable)
        self._forget_answer()
        self._parser = HttpResponseParser(
            self,
            self._loop,
            BUFFER,
            max_line_size=FRAMING,
            max_field_size=FRAMING,
            max_headers=FIELDS,
            response_with_body=not no_body,
            read_until_eof=True,
            auto_decompress=False,
        )
        self._asked, self._answering, self._no_body = True, True, no_body
        await self._write(request, timeout)

    async def send(self, some: bytes, timeout: float | None) -> bool:
        """Send more of the body; false if the peer has answered before its end, or has closed.

        No further call gets a connection that was not sent all of a request.
        """
        if self._message is not None or not self._answering:
            self._spoilt = True
            if not self._answering:
                self._spoil()
            return False
        await self._write(some, timeout)
        return True

    async def _write(self, some: bytes, timeout: float | None) -> None:
        assert self.transport is not None  # noqa: S101 (it was usable)
        self.transport.write(some)
        while self.writing_paused and self._message is None and self.transport is not None:
            try:
                await self._peer_acts(timeout)
            except httpx.ReadTimeout:
                raise httpx.WriteTimeout("The peer did not take the request in time.") from None
        if self.writing_paused:
            self._spoilt = True  # it has answered, and may never read the rest

    async def answer(self, timeout: float | None) -> RawResponseMessage:
        """The head of the final answer."""
        while self._message is None:
            if self._error is not None:
                raise self._error
            await self._peer_acts(timeout)
        return self._message

    async def read(self, timeout: float | None) -> bytes:
        """Some more of the body as it came over the wire; empty at its end."""
        if (body := self._body) is None:
            return b""
        while not body.is_eof() and not body._buffer and body.exception() is None:
            if self._error is not None:
                raise self._error
            await self._peer_acts(timeout)
        try:
            return await body.readany()
        except Exception as error:  # the parser leaves its own error with the body
            raise _as_httpx(error) from None

    def close(self) -> None:
        """Close the socket; a peer that does not take what is unsent is not waited for."""
        if (link := self.transport) is not None:
            if link.is_closing() or link.get_write_buffer_size():
                link.abort()
            else:
                link.close()

    async def start_tls(self, context: ssl.SSLContext, name: str, timeout: float | None) -> None:
        """Become a TLS connection. Raises ConnectError if the certificate is not that of `name`."""
        assert self.transport is not None  # noqa: S101 (it was opened just now)
        self._asked = False
        try:
            async with asyncio.timeout(timeout):
                link = await self._loop.start_tls(
                    self.transport,
                    self,
                    context,
                    server_hostname=name,
                    ssl_shutdown_timeout=TLS_END,
                )
        except (OSError, ValueError, TypeError, AttributeError) as error:
            # TLS within TLS makes CPython 3.11 raise these in place of the cause.
            hidden = isinstance(error, TypeError | AttributeError)
            cause = error.__context__ if hidden else error
            late = isinstance(error, TimeoutError)
            kind = httpx.ConnectTimeout if late else httpx.ConnectError
            raise kind(str(cause) or type(error).__name__) from error
        if link is None:
            raise httpx.ConnectError("The connection was closed in the TLS handshake.")
        self.transport = link

    async def _peer_acts(self, timeout: float | None) -> None:
        self._waiter = self._loop.create_future()
        try:
            if timeout is None:
                await self._waiter
            else:
                async with asyncio.timeout(timeout):
                    await self._waiter
        except TimeoutError:
            raise httpx.ReadTimeout("Nothing happened in time.") from None
        finally:
            self._waiter = None

    # --- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self.peer = transport.get_extra_info("peername")

    def resume_writing(self) -> None:
        """The peer has taken what was written."""
        super().resume_writing()
        self._wake()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 (aiohttp)
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        """Parse what came, piece by piece.

        aiohttp calls it without data when the reader has room again: then what is left is parsed.
        """
        if not self._answering:
            if data:
                self._spoil()
            return
        self._unparsed += data
        if not data:
            self._parse(b"")
        while self._answering and self._unparsed and not self._reading_paused:
            self._parse(self._next_piece())
        self._wake()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._answering and exc is None and self._body is not None and not self._reading_paused:
            try:  # the end of the connection may be the end of the body
                cast("HttpResponseParser", self._parser).feed_eof()
            except Exception as error:
                self._fail(_as_httpx(error))
        if self._body is not None and self._body.is_eof():
            self._answering = False
        elif self._answering:
            cut = httpx.RemoteProtocolError(_CUT_SHORT)
            self._fail(cut if exc is None else httpx.ReadError(str(exc)))
        super().connection_lost(exc)
        self._parser = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- one answer

    def _next_piece(self) -> bytes:
        """To the end of a head at most, and never beyond the end of a body of known length.

        What follows that end is no part of the answer.
        """
        size = min(len(self._unparsed), PIECE)
        if self._body is None:
            found = _BLANK_LINE.search(self._last + self._unparsed[:size])
            size = found.end() - len(self._last) if found else size
        elif self._length is not None:
            size = max(min(size, self._length - self._body.total_bytes), 1)
        piece, self._unparsed = self._unparsed[:size], self._unparsed[size:]
        return piece

    def _parse(self, piece: bytes) -> None:
        self._parsed += len(piece)
        self._last = (self._last + piece)[-4:]
        try:
            messages, _, _ = cast("HttpResponseParser", self._parser).feed_data(piece)
        except Exception as error:  # whatever the parser raises, its connection ends in order
            if self._body is not None and self._body.is_eof():
                self._spoil()
            else:
                self._fail(_as_httpx(error))
            return
        for message, body in messages:
            self._take(message, body)
        body_bytes = self._body.total_bytes if self._body is not None else 0
        if self._body is not None and self._body.is_eof():
            self._end()
        elif self._interim > INTERIM or self._parsed - body_bytes > FRAMING + body_bytes // 8:
            self._fail(AnswerTooCostly(_COSTLY))
        elif self._body is None and self._last.endswith((b"\n\n", b"\n\r\n")):
            self._last = b""  # an interim head ended here

    def _take(self, message: RawResponseMessage, body: StreamReader) -> None:
        if self._message is not None:
            self._spoilt = True  # more answers than requests
        elif 100 <= message.code < 200 and message.code != 101:
            self._interim += 1
            if message.chunked or message.headers.get("content-length", "0").strip("0"):
                # It has none by the standard; the parser would take what follows for one.
                self._fail(httpx.RemoteProtocolError(_INTERIM_BODY))
        else:
            self._message, self._body = message, body
            length = message.headers.get("content-length", "")
            self._length = int(length) if length.isdecimal() and not message.chunked else None

    def _end(self) -> None:
        """The answer is complete. If more came, the peer is not trusted with another call."""
        self._answering, self._idle_since = False, self._loop.time()
        clean = self._length is not None or self._last.endswith(b"\r\n\r\n")
        # An answer without a length closes the connection, but not if no answer has a body.
        closes = self._message is not None and self._message.should_close and not self._no_body
        if self._spoilt or self._unparsed or closes or not clean:
            self._spoil()

    def _spoil(self) -> None:
        """No further call may have this connection; what was read of the answer stays."""
        self._spoilt, self._answering, self._unparsed = True, False, b""
        self.close()

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._spoil()


def _as_httpx(error: Exception) -> httpx.RemoteProtocolError:
    """An error of the parser in one line, without the bytes that the parser shows."""
    text = error.message if isinstance(error, HttpProcessingError) else str(error)
    if isinstance(error, LineTooLong) or text.startswith("Too many "):
        return AnswerTooCostly(_COSTLY)
    line = " ".join(text.partition("\n\n")[0].split()).rstrip(":")
    return httpx.RemoteProtocolError(line or "This is no HTTP.")
