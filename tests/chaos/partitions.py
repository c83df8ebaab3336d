"""Partitions: a proxy between every process and what it talks to, that cuts, freezes, delays and
tears.

A front listens where the processes look for Redis, the API or a receiver, and runtime everything
on. It knows who has connected (on a unix socket the kernel tells it, on loopback it is in the
address of whoever called `sign`), so a fault can be that of one process.

A fault lasts from `begin` to `end`. It has a way: `up` (to the server), `down` (its answers) or
`both`:
- cut: connections are reset, new ones too; in one way only when something is about to pass that
  way: a cut way down loses an answer, after the server has done what it was asked for;
- freeze: connections are taken, and nothing passes; at the end it passes after all, or, if the
  fault is `lossy`, the connections that held something are reset;
- delay: everything passes, in its order, so many seconds later;
- tear: so many bytes pass, then the connection is reset: in the middle of an answer, if the way is
  down.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeAlias

from cavendish_worker.http.event_loop import LoopThread

KINDS, WAYS = ("cut", "freeze", "delay", "tear"), ("up", "down", "both")
Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter
#: What is on its way in one direction: when it may pass, and what; nothing is the end.
Waiting = asyncio.Queue[tuple[float, bytes]]
#: Where something listens: the path of a unix socket, or a port on loopback.
Place = Path | int
#: Bytes of one read, and reads that wait on their way.
_AT_ONCE, _WAITING = 2**16, 64
_SIGNED = IPv4Address("127.64.0.0")


@dataclass(frozen=True, eq=False)
class Fault:
    """What goes wrong. `of`: the one process it is about, None: all; `fronts`: which of them."""

    kind: str
    fronts: tuple[str, ...]
    way: str = "both"
    of: str | None = None
    seconds: float = 0.0
    after: int = 0
    lossy: bool = False

    def hits(self, link: _Link, way: str) -> bool:
        """True if it is about what passes this way there."""
        here = link.front in self.fronts and self.of in (None, link.of)
        return here and self.way in (way, "both")


@dataclass(eq=False)
class _Link:
    """One connection through a front. `left`: bytes that may still pass, by fault that tears."""

    front: str
    of: str
    ends: list[Writer] = field(default_factory=list)
    left: Counter[Fault] = field(default_factory=Counter)
    holding: set[str] = field(default_factory=set)

    def reset(self) -> None:
        """Both sides see a connection reset (a unix socket.

        Its end), without what was under way.
        """
        for writer in self.ends:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.family == socket.AF_INET:
                with suppress(OSError):
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()


class Network:
    """Fronts and the faults between them, in a thread. `named` gives the name of a process id."""

    def __init__(self, named: Callable[[int], str] = str) -> None:
        self._named, self._loop = named, LoopThread()
        self._faults: list[Fault] = []
        self._links: set[_Link] = set()
        self._changed = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, front: str, to: Place, at: Place = 0) -> Place:
        """Listen at a place (0: any free port) for what is at another; returns the place."""
        return self._loop.run(self._open(front, to, at), 10)

    def begin(self, fault: Fault) -> None:
        """From now on this goes wrong."""
        self._loop.run(self._begin(fault), 10)

    def end(self, *faults: Fault) -> None:
        """These faults are over; without any: all of them."""
        self._loop.run(self._end(faults or tuple(self._faults)), 10)

    def linked(self) -> Counter[tuple[str, str]]:
        """How many connections there are, by front and process."""
        return Counter((link.front, link.of) for link in [*self._links])

    def close(self) -> None:
        self._loop.close(self._close())

    async def _open(self, front: str, to: Place, at: Place) -> Place:
        async def accept(reader: Reader, writer: Writer) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            with suppress(
                asyncio.CancelledError
            ):  # of `close` alone; streams of Python 3.11 trip over it
                await self._serve(front, to, reader, writer)

        if isinstance(at, Path):
            server = await asyncio.start_unix_server(accept, at)
        else:
            server = await asyncio.start_server(accept, "127.0.0.1", at)
        self._servers.append(server)
        return at if isinstance(at, Path) else int(server.sockets[0].getsockname()[1])

    async def _begin(self, fault: Fault) -> None:
        self._faults.append(fault)
        for link in [*self._links]:
            if fault.kind == "cut" and fault.way == "both" and fault.hits(link, "both"):
                link.reset()
        self._stir()

    async def _end(self, faults: tuple[Fault, ...]) -> None:
        self._faults = [one for one in self._faults if one not in faults]
        for fault in faults:
            for link in [*self._links] if fault.lossy else ():
                if any(fault.hits(link, way) for way in link.holding):
                    link.reset()
        self._stir()

    def _stir(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in [*self._tasks]:
            task.cancel()
        for link in [*self._links]:
            link.reset()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _now(self, link: _Link, way: str, *kinds: str) -> list[Fault]:
        return [one for one in self._faults if one.kind in kinds and one.hits(link, way)]

    async def _serve(self, front: str, to: Place, reader: Reader, writer: Writer) -> None:
        pid = peer(writer.get_extra_info("socket"))
        link = _Link(front, self._named(pid) if pid else "", [writer])
        self._links.add(link)
        try:
            if any(one.way == "both" for one in self._now(link, "both", "cut")):
                raise ConnectionError
            if isinstance(to, Path):
                there, back = await asyncio.open_unix_connection(to)
            else:
                there, back = await asyncio.open_connection("127.0.0.1", to)
            link.ends.append(back)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(link, "up", reader, back))
                both.create_task(self._pass(link, "down", there, writer))
        except* OSError:
            pass  # nobody listens there, or somebody has gone
        finally:
            self._links.discard(link)
            link.reset()

    async def _pass(self, link: _Link, way: str, source: Reader, target: Writer) -> None:
        """Hand on what comes this way, until its end. Raises ConnectionError if it is cut."""
        waiting: Waiting = asyncio.Queue(_WAITING)
        reading = asyncio.create_task(self._read(link, way, source, waiting))
        try:
            while True:
                due, data = await waiting.get()
                await self._until(link, way, due)
                if not data:
                    break
                await self._hand_on(link, way, data, target)
            if target.can_write_eof():
                target.write_eof()
            await reading
        finally:
            reading.cancel()

    async def _read(self, link: _Link, way: str, source: Reader, waiting: Waiting) -> None:
        now = asyncio.get_running_loop().time
        while True:
            try:
                data = await source.read(_AT_ONCE)
            except OSError:
                data = b""
            delay = max((one.seconds for one in self._now(link, way, "delay")), default=0.0)
            await waiting.put((now() + delay, data))
            if not data:
                return

    async def _until(self, link: _Link, way: str, due: float) -> None:
        """Wait for the moment, and for the end of each freeze."""
        late = due - asyncio.get_running_loop().time()
        if late > 0:
            await asyncio.sleep(late)
        link.holding.add(way)
        while self._now(link, way, "freeze"):
            await self._changed.wait()
        link.holding.discard(way)

    async def _hand_on(self, link: _Link, way: str, data: bytes, target: Writer) -> None:
        if self._now(link, way, "cut"):
            raise ConnectionError
        for fault in self._now(link, way, "tear"):
            left = fault.after - link.left[fault]
            if len(data) >= left:
                target.write(data[:left])
                await target.drain()
                raise ConnectionError
            link.left[fault] += len(data)
        target.write(data)
        await target.drain()


def sign() -> None:
    """From now on the connections that this process, or a fork of it, opens on loopback tell who it
    is.

    They come from an address of 127.64.0.0/10 that is its process id (Linux has 22 bits of it).
    """
    connect = socket.socket.connect

    def signed(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_INET and str(address[0]).startswith("127."):
            with suppress(OSError):  # it is bound to another
                self.bind((str(_SIGNED + os.getpid()), 0))
        connect(self, address)

    socket.socket.connect = signed  # type: ignore[method-assign, assignment]


def peer(sock: socket.socket) -> int:
    """The process id at the other end of a connection on this machine (Linux); 0: not known."""
    with suppress(OSError):
        if sock.family == socket.AF_INET:
            return max(int(IPv4Address(sock.getpeername()[0])) - int(_SIGNED), 0)
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)
    return 0
