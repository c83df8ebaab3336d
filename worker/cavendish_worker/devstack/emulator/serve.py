"""Serves a handler of httpx requests on the loopback interface, with Tornado, which Flower needs
too.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import httpx
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets

Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


def bind(port: int) -> tuple[list[socket.socket], int]:
    """Listen on loopback.

    Port 0 takes any free one. Returns the sockets and the port. Raises OSError.
    """
    sockets = bind_sockets(port, "127.0.0.1")
    return sockets, int(sockets[0].getsockname()[1])


async def serve(
    handler: Handler, sockets: list[socket.socket], until: asyncio.Event | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, or until the event is set."""
    stop = until or asyncio.Event()
    if until is None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    running: set[asyncio.Task[None]] = set()

    def accept(request: HTTPServerRequest) -> None:
        task = asyncio.get_running_loop().create_task(_answer(handler, request))
        running.add(task)
        task.add_done_callback(running.discard)

    server = HTTPServer(accept)
    server.add_sockets(sockets)
    await stop.wait()
    server.stop()
    await server.close_all_connections()


async def _answer(handler: Handler, request: HTTPServerRequest) -> None:
    connection = request.connection
    assert connection is not None  # noqa: S101 (tornado sets it before it calls)
    pairs = request.headers.get_all()
    question = httpx.Request(
        request.method or "GET",
        f"http://127.0.0.1{request.uri}",
        headers=[(name.encode(), value.encode("latin-1")) for name, value in pairs],
        content=request.body,
    )
    try:
        answer = await handler(question)
    except httpx.ReadTimeout:
        return  # a stall: the connection stays open, and nothing comes
    except httpx.TransportError:
        connection.detach().close()  # type: ignore[attr-defined]
        return
    body = await answer.aread()
    headers = HTTPHeaders()
    for name, value in answer.headers.raw:
        headers[name.decode()] = value.decode("latin-1")
    headers["content-length"] = str(len(body))
    with suppress(StreamClosedError):  # the client has closed the connection meanwhile
        await connection.write_headers(
            ResponseStartLine("HTTP/1.1", answer.status_code, answer.reason_phrase), headers, body
        )
        connection.finish()
