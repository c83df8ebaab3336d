"""One clock: Redis TIME, read once per Celery task, carried on by the machine's steady clock."""

from __future__ import annotations

import time


class Clock:
    """Seconds since the Unix epoch as Redis counts them. The wall clock of this machine does not matter."""

    def __init__(self, redis_now: float) -> None:
        self._ahead = redis_now - time.monotonic()

    def now(self) -> float:
        """Float seconds since the epoch, microsecond steps, never backwards."""
        return round(time.monotonic() + self._ahead, 6)
