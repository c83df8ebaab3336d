"""When a process is to end, its calls end in time: a moment from which no answer is waited for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ShutdownDeadline:
    """For calls in one event loop. None is in force until `leave` was called, in that loop."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Timeout] = set()
        self._at = math.inf  # by the clock of the loop

    @property
    def in_force(self) -> bool:
        """True once this process is to end."""
        return self._at < math.inf

    def leave(self, within: float) -> None:
        """Wait for no answer longer than so many seconds from now on."""
        self._at = asyncio.get_running_loop().time() + within
        for timeout in self._under_way:
            if not timeout.expired():
                timeout.reschedule(min(timeout.when() or math.inf, self._at))

    @asynccontextmanager
    async def call(self, seconds: float) -> AsyncIterator[None]:
        """Raises TimeoutError where a call lasts longer than this, or so long that this process
        would have to end before it.
        """
        now = asyncio.get_running_loop().time()
        async with asyncio.timeout_at(min(now + seconds, self._at)) as timeout:
            self._under_way.add(timeout)
            try:
                yield
            finally:
                self._under_way.discard(timeout)

    def cut(self) -> bool:
        """True where a call that ran out of time just now might have had more of it in a process
        that goes on.
        """
        return asyncio.get_running_loop().time() >= self._at
