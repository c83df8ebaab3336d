"""Reads of single ids that come at about the same time are one read of the store."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress

from cavendish.model import TrackedTask

#: Ids of one read at most.
_AT_ONCE = 500


#: An account and a service.
Place = tuple[str, str]
Found = Mapping[str, TrackedTask]
Asked = tuple[str, asyncio.Future[TrackedTask | None]]


class JoinedReads:
    """The reads of one AsyncClient: what comes while a place is read goes together with the next
    read of it, so many callers cost a few threads, round trips and wakes of their loop.

    Safe to share between event loops.
    """

    def __init__(self, threads: Executor, read: Callable[[Place, list[str]], Found]) -> None:
        self._threads, self._read = threads, read
        self._lock = threading.Lock()
        #: What is asked of each place that a thread reads.
        self._asked: dict[Place, list[Asked]] = {}

    async def get(self, place: Place, task_id: str) -> TrackedTask | None:
        """The task with this id, if it is tracked there. Raises what the read raises."""
        future = asyncio.get_running_loop().create_future()
        with self._lock:
            first = place not in self._asked
            self._asked.setdefault(place, []).append((task_id, future))
        if first:
            self._threads.submit(self._run, place)
        found: TrackedTask | None = await future
        return found

    def _run(self, place: Place) -> None:
        """In a thread: read until nothing more is asked."""
        while asked := self._next(place):
            self._bring(place, asked)

    def _bring(self, place: Place, asked: list[Asked]) -> None:
        try:
            _tell(asked, self._read(place, list({task_id for task_id, _ in asked})), None)
        except Exception as error:  # whatever it is, it is raised where somebody waits
            _tell(asked, {}, error)

    def _next(self, place: Place) -> list[Asked]:
        with self._lock:
            asked = self._asked[place]
            self._asked[place] = asked[_AT_ONCE:]
            if not asked:
                del self._asked[place]
            return asked[:_AT_ONCE]


def _tell(several: list[Asked], found: Found, error: Exception | None) -> None:
    """Wake each loop once, for all that was asked in it."""
    by_loop = defaultdict[asyncio.AbstractEventLoop, list[Asked]](list)
    for one in several:
        by_loop[one[1].get_loop()].append(one)
    for loop, asked in by_loop.items():
        with suppress(RuntimeError):  # it was closed while somebody waited in it
            loop.call_soon_threadsafe(_answer, asked, found, error)


def _answer(several: list[Asked], found: Found, error: Exception | None) -> None:
    for task_id, future in several:
        if future.done():  # whoever waited was cancelled
            continue
        if error is None:
            future.set_result(found.get(task_id))
        else:
            future.set_exception(copy.copy(error))  # others raise it, too
