"""A Redis that gets each command so many seconds late: a proxy in front of a real one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


@contextmanager
def slow(url: str, seconds: float) -> Iterator[str]:
    """The URL of the slow one. Commands of one connection wait for one another."""
    proxy = _Proxy(url, seconds)
    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve()), daemon=True)
    thread.start()
    proxy.ready.wait(10)
    try:
        yield f"redis://127.0.0.1:{proxy.port}/0"
    finally:
        proxy.stop()
        thread.join(10)


class _Proxy:
    def __init__(self, url: str, seconds: float) -> None:
        self._to, self._seconds = urlsplit(url), seconds
        self.ready, self.port = threading.Event(), 0

    async def serve(self) -> None:
        """Until `stop`; what is under way then is cancelled by asyncio.run."""
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        await self._stopped.wait()
        server.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            answers, commands = await asyncio.open_unix_connection(self._to.path)
            try:
                await asyncio.gather(
                    _pass_on(reader, commands, self._seconds), _pass_on(answers, writer, 0.0)
                )
            finally:
                writer.close()
                commands.close()


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
) -> None:
    while data := await reader.read(1 << 20):
        await asyncio.sleep(seconds)
        writer.write(data)
    writer.close()
