"""Ends the calls of a process that shuts down in time: after its deadline, no call waits for an
answer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ShutdownDeadline:
    """A deadline for the calls of one event loop. It is set by `set`, called in that loop."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Timeout] = set()
        self._at = math.inf  # by the clock of the loop

    @property
    def in_force(self) -> bool:
        """True once this process shuts down."""
        return self._at < math.inf

    def set(self, within: float) -> None:
        """From now on, wait at most `within` seconds for answers."""
        self._at = asyncio.get_running_loop().time() + within
        for timeout in self._under_way:
            if not timeout.expired():
                timeout.reschedule(min(timeout.when() or math.inf, self._at))

    @asynccontextmanager
    async def call(self, seconds: float) -> AsyncIterator[None]:
        """Around one call. Raises TimeoutError after `seconds`, or at an earlier deadline."""
        now = asyncio.get_running_loop().time()
        async with asyncio.timeout_at(min(now + seconds, self._at)) as timeout:
            self._under_way.add(timeout)
            try:
                yield
            finally:
                self._under_way.discard(timeout)

    def passed(self) -> bool:
        """True after the deadline: a call that timed out just now may have been cut short by it."""
        return asyncio.get_running_loop().time() >= self._at
