"""How long an event loop stood still, so that a slow worker blames no receiver.

While the loop stands still (a long computation, a machine without CPU for it), no answer is read.
A call whose time ran out meanwhile says nothing about the other end.
"""

from __future__ import annotations

import asyncio
import time

#: Seconds between two looks at the clock, and lateness that is usual.
_EVERY, _USUAL = 0.1, 0.05

_watched: dict[asyncio.AbstractEventLoop, _Watch] = {}


class _Watch:
    def __init__(self) -> None:
        self.stood, self.due = 0.0, time.monotonic()

    def late(self) -> float:
        """Seconds by which the next look is late by now."""
        return max(time.monotonic() - self.due - _USUAL, 0.0)


async def watch() -> None:
    """Watch the running loop until this is cancelled."""
    loop = asyncio.get_running_loop()
    mine = _watched[loop] = _Watch()
    try:
        while True:
            mine.due = time.monotonic() + _EVERY
            await asyncio.sleep(_EVERY)
            mine.stood += mine.late()
    finally:
        del _watched[loop]


def stood_still() -> float:
    """Seconds for which the running loop stood still since it is watched; 0 if nobody does."""
    mine = _watched.get(asyncio.get_running_loop())
    return mine.stood + mine.late() if mine else 0.0
