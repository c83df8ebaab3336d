"""A proxy for CONNECT and for whole URLs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """A proxy for CONNECT and for whole URLs, which finds every name on this machine."""

    def __init__(
        self, status: bytes = b"200 OK", tls: ssl.SSLContext | None = None, slips_in: bytes = b""
    ) -> None:
        self.status, self.tls, self.slips_in = status, tls, slips_in
        self.heads, self.port = list[bytes](), 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.create_task(self._serve(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward: asyncio.StreamWriter | None = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            connect, target = head.startswith(b"CONNECT "), head.split(b" ")[1]
            if self.status != b"200 OK":
                writer.write(b"HTTP/1.1 " + self.status + b"\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
                return
            port = int((target if connect else target.split(b"/")[2]).rpartition(b":")[2])
            back, onward = await asyncio.open_connection("127.0.0.1", port)
            if connect:
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + self.slips_in)
            else:
                onward.write(head.replace(b"/".join(target.split(b"/")[:3]), b"", 1))
            await asyncio.gather(_pump(reader, onward), _pump(back, writer))
        finally:
            writer.close()
            if onward is not None:
                onward.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()
