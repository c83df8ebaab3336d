"""One event loop per worker process, in a daemon thread: it owns the HTTP connections, and keeps them warm."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for the threads of Celery. Started with the first use, so after any fork."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cavendish-http", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Wait for one coroutine, at most `timeout` seconds. Raises TimeoutError, and what the coroutine raises."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def as_completed(self, works: Sequence[Coroutine[Any, Any, T]]) -> Iterator[list[T]]:
        """Run coroutines side by side; yields whatever has ended since the last time, until all have.

        An error of one of them is raised when all the others have been handed on.
        """
        ended: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()

        async def put(work: Coroutine[Any, Any, T]) -> None:
            try:
                ended.put(await work)
            except BaseException as error:
                ended.put(error)

        for work in works:
            asyncio.run_coroutine_threadsafe(put(work), self._loop)
        left, errors = len(works), list[BaseException]()
        while left:
            batch = [ended.get()]
            while not ended.empty():
                batch.append(ended.get())
            left -= len(batch)
            errors += [error for error in batch if isinstance(error, BaseException)]
            yield [result for result in batch if not isinstance(result, BaseException)]
        for error in errors:  # what went well beside it has been handed on by now
            raise error

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Run a last coroutine (closing connections), then stop the loop."""
        if last is not None:
            self.run(last, timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()
