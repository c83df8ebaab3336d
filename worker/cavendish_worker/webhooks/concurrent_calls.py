"""Runs the calls of claimed deliveries, within a limit of calls at once in all and per endpoint.

A few more deliveries are claimed than may be called, so that the next call begins as soon as one
ends, while the store is still being written to.
"""

from __future__ import annotations

import asyncio
import queue
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cavendish_worker.http.event_loop import LoopThread

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """One call that waits.

    `room`: how many calls to its endpoint may run at once from now on. `work` must not raise.
    """

    endpoint: str
    room: int
    work: Callable[[], Awaitable[T]]


class ConcurrentCalls(Generic[T]):
    """Runs jobs in the event loop, and puts what each returns into `ended`.

    `add` may be called from any thread.
    """

    def __init__(self, loop: LoopThread, calls: int, ended: queue.SimpleQueue[T | None]) -> None:
        self._loop, self._free, self._ended = loop, calls, ended
        self._busy: Counter[str] = Counter()
        # By endpoint, as its last job has it: otherwise later jobs would overtake earlier ones that
        # came while the room was small.
        self._room: dict[str, int] = {}
        self._waiting: deque[Job[T]] = deque()
        self._running: set[asyncio.Task[None]] = set()  # asyncio itself holds tasks weakly

    @property
    def full(self) -> bool:
        """True if no further call may run now. May be asked from any thread."""
        return self._free <= 0

    def add(self, jobs: Sequence[Job[T]]) -> None:
        """Run these as soon as there is room."""
        self._loop.call(lambda: self._add(jobs))

    def _add(self, jobs: Sequence[Job[T]]) -> None:
        self._waiting.extend(jobs)
        self._room |= {job.endpoint: job.room for job in jobs}
        self._begin()

    def _begin(self) -> None:
        full: list[Job[T]] = []
        while self._free and self._waiting:
            job = self._waiting.popleft()
            if self._busy[job.endpoint] >= self._room[job.endpoint]:
                full.append(job)
                continue
            self._free -= 1
            self._busy[job.endpoint] += 1
            task = asyncio.get_running_loop().create_task(self._run(job))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        self._waiting.extendleft(reversed(full))

    async def _run(self, job: Job[T]) -> None:
        try:
            self._ended.put(await job.work())
        finally:
            self._free += 1
            self._busy[job.endpoint] -= 1
            self._begin()
