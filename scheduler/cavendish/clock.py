"""One clock: Redis TIME, read once per Celery task, carried on by the machine's steady clock."""

from __future__ import annotations

import time


class Clock:
    """Seconds since the Unix epoch as Redis counts them.

    The wall clock of this machine does not matter.
    """

    def __init__(self, redis_now: float, asked_at: float | None = None) -> None:
        """`asked_at`.

        When Redis was asked, by the steady clock; its answer is taken for half way between then and
        now.
        """
        heard_at = time.monotonic()
        self._ahead = redis_now - (heard_at if asked_at is None else (asked_at + heard_at) / 2)

    def now(self) -> float:
        """Float seconds since the epoch, microsecond steps, never backwards."""
        return round(time.monotonic() + self._ahead, 6)
