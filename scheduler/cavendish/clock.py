"""One clock: Redis TIME, read now and then, and continued by the monotonic clock."""

from __future__ import annotations

import time


class Clock:
    """Seconds since the Unix epoch by the clock of Redis, not by the wall clock of this machine."""

    def __init__(self, redis_now: float, asked_at: float | None = None) -> None:
        """`redis_now` is the answer of Redis, `asked_at` when it was asked (monotonic clock).

        The answer is assumed to be from half way between then and now.
        """
        heard_at = time.monotonic()
        self._ahead = redis_now - (heard_at if asked_at is None else (asked_at + heard_at) / 2)

    def now(self) -> float:
        """Float seconds since the epoch in microsecond steps; they never decrease."""
        return round(time.monotonic() + self._ahead, 6)
