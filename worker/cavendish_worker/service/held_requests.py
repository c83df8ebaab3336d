"""Requests that are held until something ends: how many, how long, and what a shutdown does.

Whoever finds no room, and whoever still waits when the service ends, is answered at once with what
is known, as at the end of its time; clients ask again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator
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
        self, end: Awaitable[object], seconds: float, who: str, most: int = PER_CLIENT
    ) -> bool:
        """Await `end` for so many seconds; false if it has not come, for whatever reason.

        `who`: the client that is held. What `end` raises is raised, but for a TimeoutError.
        """
        task = asyncio.ensure_future(end)
        stop = asyncio.ensure_future(self.ending.wait())
        try:
            if not self.has_room(who, most):
                return False
            with self.holding(who):
                first = asyncio.FIRST_COMPLETED
                await asyncio.wait({task, stop}, timeout=min(seconds, LONGEST), return_when=first)
            if task.done():
                with suppress(TimeoutError):
                    await task
                    return True
            return False
        finally:
            await cancelled(task, stop)


async def cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs, and wait until it has ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
