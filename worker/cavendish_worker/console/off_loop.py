"""Asks Redis off Flower's event loop: in few threads, and for a short time.

Flower has one event loop. A page that waited there for Redis would stop all others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cavendish.errors import StoreUnavailable

R = TypeVar("R")
#: Threads, and questions that may run or wait at once.
THREADS, MOST = 4, 16
#: Seconds after which a page answers without what it asked for.
PATIENCE = 2.0


class OffLoop:
    """A few threads for the questions of all pages."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="cavendish-page")
        self._running = set[Future[object]]()

    async def ask(self, question: Callable[[], R], patience: float = PATIENCE) -> R:
        """What a question returns. Raises StoreUnavailable if that takes too long.

        A thread that still waits is left to end by itself; with too many of them nothing more is
        asked.
        """
        if len(self._running) >= MOST:
            raise StoreUnavailable(f"Redis is slow: {MOST} queries of these pages wait for it.")
        asked = self._threads.submit(question)
        self._running.add(asked)  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        asked.add_done_callback(lambda one: loop.call_soon_threadsafe(self._running.discard, one))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asked), patience)
        except TimeoutError:
            raise StoreUnavailable(
                f"Redis is slow: it did not answer within {patience:.0f} s."
            ) from None
