"""Requests that are held until something ends: how many, how long, and what a shutdown does.

Whoever finds no room, and whoever still waits when the service ends, is answered at once with what
is known, as at the end of its time; clients ask again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cavendish_worker.telemetry.metrics import answered

#: Seconds for which a request is held at most: proxies and clients give up after 60.
LONGEST = 20.0
#: Requests of one client, and of all, that are held at the same time.
PER_CLIENT, IN_ALL = 2000, 5000


class HeldRequests:
    """The held requests of one process. Use it in one event loop."""

    def __init__(self) -> None:
        self.ending = asyncio.Event()
        self._held = Counter[str]()
        #: The times of the waits; each may be over earlier.
        self._times = set[asyncio.Timeout]()

    def has_room(self, who: str, most: int = PER_CLIENT) -> bool:
        """True if one more request may be held for a client, of which at most `most` are."""
        room = self._held[who] < most and self._held.total() < IN_ALL
        return room and not self.ending.is_set()

    @contextmanager
    def holding(self, who: str) -> Iterator[None]:
        """Count a request of a client while it is held."""
        self._held[who] += 1
        answered.HELD.add(1)
        try:
            yield
        finally:
            answered.HELD.add(-1)
            self._held[who] -= 1
            if not self._held[who]:
                del self._held[who]

    async def until(
        self,
        end: Callable[[], Awaitable[object]],
        seconds: float,
        who: str,
        most: int = PER_CLIENT,
        gone: Callable[[], Awaitable[object]] | None = None,
    ) -> bool:
        """Await `end()` for so many seconds; false if it has not come, for whatever reason.

        `who`: the client that is held; `gone()` ends once it waits for no answer any more. What
        `end` raises is raised, but for a TimeoutError. No tasks but that of `gone`: each would
        cost more memory than the wait itself.
        """
        if not self.has_room(who, most):
            return False
        with self.holding(who), suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, LONGEST)) as time:
                with self._open(time, gone):
                    await end()
                    return True
        return False

    def end(self) -> None:
        """The service ends: hold nothing any more."""
        self.ending.set()
        for time in [*self._times]:
            self._over(time)

    @contextmanager
    def _open(
        self, time: asyncio.Timeout, gone: Callable[[], Awaitable[object]] | None
    ) -> Iterator[None]:
        """Let the time of a wait be over at once when the service ends, or its client has gone."""
        self._times.add(time)
        watching = asyncio.ensure_future(gone()) if gone else None
        if watching:
            watching.add_done_callback(lambda _: self._over(time))
        try:
            yield
        finally:
            self._times.discard(time)
            if watching:
                watching.cancel()

    def _over(self, time: asyncio.Timeout) -> None:
        if time in self._times and not time.expired():
            time.reschedule(asyncio.get_running_loop().time())


async def cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs, and wait until it has ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
