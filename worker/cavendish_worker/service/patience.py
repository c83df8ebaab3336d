"""Closes a connection that brings no whole head of a request in time, or a head without end:
uvicorn would wait for it, and keep it.

Bodies have a time and a size of their own, and a connection between two requests uvicorn's
keep-alive.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from cavendish_worker.service.joined_answers import JoinedAnswers
from cavendish_worker.service.problem_details import Problem
from cavendish_worker.service.request_body import CLOSE

#: Seconds within which the head of a request must have come, and bytes that it has at most.
HEAD_WITHIN, LARGEST_HEAD = 15.0, 64 * 1024
#: Requests that may wait on one connection for the answer to another one.
_WAITING = 16


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 of uvicorn, with a time and a size for heads."""

    _late: asyncio.TimerHandle | None = None
    #: Bytes that came since there was a whole head, or a piece of a body.
    _head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The time begins with the connection."""
        self._answers = JoinedAnswers(transport)
        super().connection_made(cast("asyncio.Transport", self._answers))
        self._watch()

    def data_received(self, data: bytes) -> None:
        """And with the first bytes of each later head; it ends with a whole one."""
        self._head += len(data)
        self._unset_keepalive_if_required()
        while data and not self.transport.is_closing():
            data = self._read(data)
        if self._head > LARGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")
        self._watch()

    def _read(self, data: bytes) -> bytes:
        """Let the parser read; what it left, to be read again.

        It leaves what follows the offer of another protocol, such as Java's client makes with its
        first request, and would read no body. Nobody takes it up: its head is read without it.
        """
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as offer:
            if (method := self.parser.get_method()) != b"CONNECT":
                kept = [b"%b: %b\r\n" % one for one in self.headers if one[0] != b"upgrade"]
                version = self.parser.get_http_version().encode()
                line = b"%b %b HTTP/%b\r\n" % (method, self.url, version)
                return b"".join((line, *kept, b"\r\n", data[offer.args[0] :]))
            self.send_400_response("The service is no proxy.")
        except HttpParserError:
            self.send_400_response("The request cannot be read: it is no HTTP/1.1.")
        return b""

    def on_headers_complete(self) -> None:
        """A whole head has come."""
        self._head = 0
        if self.parser.should_upgrade():
            return
        if len(self.pipeline) >= _WAITING:
            raise ValueError("too many requests wait")  # uvicorn takes it for a wrong request
        for name, value in self.headers:
            if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                raise ValueError("another coding of the body than `chunked`")
        if (version := self.parser.get_http_version()) not in ("1.0", "1.1"):
            raise ValueError("another version of HTTP")
        if version == "1.0":
            self.expect_100_continue = False  # no client of that time knows the answer
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A whole request has come."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        waits = cycle.waiting_for_100_continue
        super()._start_asgi_task(cycle, partial(_answered_unread, cycle, app) if waits else app)

    def on_body(self, body: bytes) -> None:
        """A piece of a body has come."""
        self._head = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """A whole answer was sent."""
        self._answers.send_kept()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read, but never in the place of the answer to an earlier request:
        its caller would think that nothing came of it.
        """
        reading = self._between() or (self.cycle.more_body and not self.cycle.response_started)
        if reading and not self.pipeline:
            self.transport.write(_refusal(msg))
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


async def _answered_unread(
    cycle: RequestResponseCycle, app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run an application. If it answers before it has asked for the body, the caller need not send
    that, and nothing may follow on the connection: it could be taken for the body.
    """

    async def answered(message: Message) -> None:
        if cycle.waiting_for_100_continue:
            cycle.keep_alive = False
        await send(message)

    await app(scope, receive, answered)


def _refusal(sentence: str) -> bytes:
    """The whole answer to what cannot be read."""
    answer = Problem(400, sentence, CLOSE).response()
    head = b"".join(b"%s: %s\r\n" % pair for pair in answer.raw_headers)
    return b"HTTP/1.1 400 Bad Request\r\n%s\r\n%s" % (head, answer.body)
