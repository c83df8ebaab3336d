"""One event loop per worker process, in a daemon thread; it owns the HTTP connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from cavendish_worker.http import loop_lag

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for the threads of Celery. Built at its first use, so after any fork."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._closed = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="cavendish-http", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # A runner ends the tasks that still run, so that no socket is left open.
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_closed())

    async def _until_closed(self) -> None:
        watching = asyncio.create_task(loop_lag.watch())
        await self._closed.wait()
        watching.cancel()

    def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run one coroutine and return its result. Raises what it raises.

        Raises TimeoutError after `timeout` seconds.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def call(self, work: Callable[[], None]) -> None:
        """Let the loop call `work` soon, and do not wait for it."""
        self._loop.call_soon_threadsafe(work)

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Run a last coroutine (it closes connections), then end the loop and its tasks."""
        if last is not None:
            self.run(last, timeout=5)
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join(timeout=5)
