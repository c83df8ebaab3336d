"""One event loop per worker process, in a daemon thread.

It owns the HTTP connections, and keeps them warm.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for the threads of Celery. Started with the first use, so after any fork."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._closed = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="cavendish-http", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # A runner ends what is still under way, so that no socket is left to the garbage collector.
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_closed())

    async def _until_closed(self) -> None:
        await self._closed.wait()

    def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Wait for one coroutine, at most `timeout` seconds.

        Raises TimeoutError, and what the coroutine raises.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def call(self, work: Callable[[], None]) -> None:
        """Let the loop call something soon, and do not wait for it."""
        self._loop.call_soon_threadsafe(work)

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Run a last coroutine (closing connections), then end what is under way, and the loop."""
        if last is not None:
            self.run(last, timeout=5)
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join(timeout=5)
