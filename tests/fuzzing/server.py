"""A server that answers each request with the bytes that were drawn for its case.

It runs in the event loop of the client that is tested, so that it knows what the client has sent
before each byte that it sends itself.
"""

from __future__ import annotations

import asyncio
import re
import select
import socket
import struct
from dataclasses import dataclass

from fuzzing.wire import CLOSE, RESET, Said

#: A request names its case in its path or, to the API, in its ids.
_CASE = re.compile(rb'(?:POST /|"i?ds?": ?\[?")c(\d+)[- ]')


@dataclass
class Case:
    """What is answered, and how many whole requests have come."""

    said: Said
    received: int = 0


class Server:
    """Answers, and where it listens. All of it is used in one event loop."""

    def __init__(self) -> None:
        self.cases: dict[int, Case] = {}
        self.begun = -1  # the largest number of a case so far
        self.strangers, self.links = 0, set[asyncio.Transport]()

    def begin(self, number: int, said: Said) -> Case:
        """Answer the requests of a case so from now on."""
        self.begun = max(self.begun, number)
        case = self.cases[number] = Case(said)
        return case

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", 0, backlog=1000
        )
        self.port = self._listening.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._listening.close()
        for link in list(self.links):
            link.abort()
        await asyncio.sleep(0)


class _Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server, self._unread, self._turn = server, b"", 0
        self._waiting = select.poll()

    def connection_made(self, link: asyncio.BaseTransport) -> None:
        self._link: asyncio.Transport = link  # type: ignore[assignment]
        self._server.links.add(self._link)
        self._socket: socket.socket = link.get_extra_info("socket")
        self._waiting.register(self._socket.fileno(), select.POLLIN)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._server.links.discard(self._link)
        self._turn += 1

    def data_received(self, data: bytes) -> None:
        self._unread += data
        head, found, rest = self._unread.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        size = int(length[1]) if length else 0
        if not found or len(rest) < size:
            return
        request, self._unread = head + found + rest[:size], rest[size:]
        self._turn += 1
        named = _CASE.search(request)
        number = int(named[1]) if named else None
        case = self._server.cases.get(number) if number is not None else None
        if case is None:  # the client may have given it up before it came here
            self._server.strangers += number is None or number > self._server.begun
            self._link.abort()
            return
        case.received += 1
        self._say(case.said, case.said.pieces(), self._turn)

    def _say(self, said: Said, pieces: list[bytes], turn: int) -> None:
        """Send one piece; the next one in the next turn of the loop, unless the client went on."""
        first = len(pieces) == len(said.ends) + 1
        if turn != self._turn or self._link.is_closing() or (not first and self._waiting.poll(0)):
            return
        if pieces:
            self._link.write(pieces[0])
        if pieces[1:]:
            asyncio.get_running_loop().call_soon(self._say, said, pieces[1:], turn)
        elif said.after == CLOSE:
            if not self._link.get_write_buffer_size():
                self._socket.shutdown(socket.SHUT_WR)  # at once, before the client can go on
            self._link.close()
        elif said.after == RESET:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._link.abort()
