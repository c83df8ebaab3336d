"""How many requests a second one key may make: a token bucket for each key of this process."""

from __future__ import annotations

import time
from collections.abc import Callable


class RequestRates:
    """`rate` requests a second, and as many at once after a second of silence."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_of(self, key: str) -> float:
        """Take one request of a key; the seconds after which to try again, 0 if it may go on."""
        now = self._clock()
        left, at = self._buckets.get(key, (self._rate, now))
        left = min(left + (now - at) * self._rate, self._rate)
        allowed = left >= 1
        self._buckets[key] = (left - 1 if allowed else left, now)
        return 0.0 if allowed else (1 - left) / self._rate
