"""Closes a connection that brings no whole head of a request in time, or a head without end:
uvicorn would wait for it, and keep it.

Bodies have a time and a size of their own, and a connection between two requests uvicorn's
keep-alive.
"""

from __future__ import annotations

import asyncio
import re

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Seconds within which the head of a request must have come, and bytes that it has at most.
HEAD_WITHIN, LARGEST_HEAD = 15.0, 64 * 1024
#: Requests that may wait on one connection for the answer to another one.
_WAITING = 16
#: The header by which a client offers another protocol, as Java's does with its first request. The
#: parser takes what follows such a head for that protocol, and reads no body.
_OFFER = re.compile(rb"\r\nupgrade(?=[ \t]*:)", re.IGNORECASE)


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 of uvicorn, with a time and a size for heads."""

    _late: asyncio.TimerHandle | None = None
    #: Bytes that came since there was a whole head, or a piece of a body.
    _head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The time begins with the connection."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """And with the first bytes of each later head; it ends with a whole one."""
        self._head += len(data)
        super().data_received(_without_offer(data) if self._between() else data)
        if self._head > LARGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")
        self._watch()

    def on_headers_complete(self) -> None:
        """A whole head has come."""
        self._head = 0
        if len(self.pipeline) >= _WAITING:
            raise ValueError("too many requests wait")  # uvicorn takes it for a wrong request
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body has come."""
        self._head = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read, but never in the place of the answer to an earlier request:
        its caller would think that nothing came of it.
        """
        reading = self._between() or (self.cycle.more_body and not self.cycle.response_started)
        if reading and not self.pipeline:
            super().send_400_response(msg)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        self._forget()

    def _watch(self) -> None:
        if not self._between():
            self._forget()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_WITHIN, self._close_if_late)

    def _between(self) -> bool:
        """True while no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _close_if_late(self) -> None:
        self._late = None
        if self._between():
            self.transport.close()

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def _without_offer(data: bytes) -> bytes:
    """Bytes in which a head begins, without its offer of another protocol; as many as before."""
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[:end]
    return _OFFER.sub(b"\r\nignored", head) + data[len(head) :]
