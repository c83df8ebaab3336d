"""The receiver of the webhook bench: a process of its own that speaks just enough HTTP/1.1 to cost
next to nothing.

    python tests/bench/webhook_receiver.py PORT [HOST]

`/NAME/MS` answers 200 after MS milliseconds; when each webhook-id came is kept (time.monotonic(),
the same for all processes of a machine); of `/tasks/MS` when each task came. `/bomb/KIND/…` answers
badly: `gzip` (200 MB of it, each of which swells a thousandfold), `drip` (a body of one byte each
50 ms, without end), `headers` (100,000 of them), `trickle` (a header each 50 ms, without end),
`chunks` (65,000 of one byte). `/control/count`, `/control/arrivals`, `/control/reset`, and
`/control/hang?PATH=MS`: from now on PATH answers after MS.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import sys
import time
from collections.abc import Iterator
from typing import cast

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
BOMB_BYTES, HEADERS, SLOWLY = 200_000_000, 100_000, 0.05
CHUNKS, CHUNKS_AT_ONCE = 65_000, 1_000


class State:
    """What all connections share."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[str, str, float]] = []
        self.instead: dict[str, float] = {}
        self.open = self.most = self.connections = 0

    def control(self, what: str) -> object:
        """Answer one question of the bench."""
        name, _, words = what.partition("?")
        if name == "reset":
            self.arrivals, self.most, self.connections = [], self.open, 0
        if name == "hang":
            path, _, milliseconds = words.partition("=")
            self.instead[path] = float(milliseconds) / 1000
        if name == "arrivals":
            return self.arrivals
        return {
            "count": len(self.arrivals),
            "most": self.most,
            "open": self.open,
            "connections": self.connections,
        }


class Connection(asyncio.Protocol):
    """One connection; httpx and our worker send a request only after the answer to the last."""

    def __init__(self, state: State) -> None:
        self.state, self.received, self.waiting = state, bytearray(), 0
        self.bomb: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.state.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's interface)
        self.state.open -= self.waiting
        self.waiting = 0
        if self.bomb is not None:
            self.bomb.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.received[:end]).decode("latin-1")
            lower = head.lower()
            length = int(_field(lower, "content-length") or 0)
            if len(self.received) < end + 4 + length:
                return
            path, name = head.split(" ", 2)[1], _field(lower, "webhook-id")
            if path.startswith("/tasks/"):
                name = _task_id(bytes(self.received[end + 4 : end + 4 + length]))
            del self.received[: end + 4 + length]
            self.request(path, name, now)

    def request(self, path: str, webhook_id: str, now: float) -> None:
        state = self.state
        _, name, rest = path.split("/", 2)
        if name == "control":
            body = json.dumps(state.control(rest)).encode()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )
            return
        state.arrivals.append((webhook_id, path, now))
        if name == "bomb":
            self.bomb = asyncio.get_running_loop().create_task(self.explode(rest.split("/")[0]))
            return
        state.open += 1
        state.most = max(state.most, state.open)
        self.waiting += 1
        delay = state.instead.get(path)
        delay = float(rest) / 1000 if delay is None else delay
        if delay:
            asyncio.get_running_loop().call_later(delay, self.answer)
        else:
            self.answer()

    def answer(self) -> None:
        if self.waiting:
            self.waiting -= 1
            self.state.open -= 1
            self.transport.write(ANSWER)

    async def explode(self, kind: str) -> None:
        for piece in _bomb(kind):
            await self.writable.wait()
            self.transport.write(piece)
            if kind in ("drip", "trickle"):
                await asyncio.sleep(SLOWLY)


def _bomb(kind: str) -> Iterator[bytes]:
    if kind == "gzip":
        piece = gzip.compress(b"\0" * 16_000_000)
        yield (
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % BOMB_BYTES
        )
        yield from itertools.repeat(piece, BOMB_BYTES // len(piece) + 1)
    elif kind == "drip":
        yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        yield from itertools.repeat(b"1\r\nx\r\n")
    elif kind == "chunks":
        yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        yield from itertools.repeat(b"1\r\nx\r\n" * CHUNKS_AT_ONCE, CHUNKS // CHUNKS_AT_ONCE)
        yield b"0\r\n\r\n"
    elif kind == "headers":
        yield b"HTTP/1.1 200 OK\r\n"
        yield from (b"x-%d: nothing of worth\r\n" % number for number in range(HEADERS))
        yield b"content-length: 0\r\n\r\n"
    else:
        yield b"HTTP/1.1 200 OK\r\n"
        yield from (b"x-%d: nothing of worth\r\n" % number for number in itertools.count())


def _task_id(body: bytes) -> str:
    """The first `id` in a body: the one of the task."""
    return body.partition(b'"id":"')[2].partition(b'"')[0].decode()


def _field(head: str, name: str) -> str:
    start = head.find(f"\r\n{name}:")
    if start < 0:
        return ""
    start += len(name) + 3
    end = head.find("\r\n", start)
    return head[start : None if end < 0 else end].strip()


async def serve(port: int, host: str) -> None:
    """Until the process is ended."""
    state = State()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(state), host, port, backlog=512
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"))
