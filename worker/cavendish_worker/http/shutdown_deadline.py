"""Ends the calls of a process that shuts down in time: after its deadline, no call waits for an
answer.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType


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

    def call(self, seconds: float) -> _Call:
        """Around one call. Raises TimeoutError after `seconds`, or at an earlier deadline."""
        now = asyncio.get_running_loop().time()
        return _Call(asyncio.timeout_at(min(now + seconds, self._at)), self._under_way)

    def passed(self) -> bool:
        """True after the deadline: a call that timed out just now may have been cut short by it."""
        return asyncio.get_running_loop().time() >= self._at


class _Call:
    """A time limit that is one of those under way."""

    __slots__ = ("_timeout", "_under_way")

    def __init__(self, timeout: asyncio.Timeout, under_way: set[asyncio.Timeout]) -> None:
        self._timeout, self._under_way = timeout, under_way

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._under_way.add(self._timeout)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._under_way.discard(self._timeout)
        await self._timeout.__aexit__(kind, error, trace)
