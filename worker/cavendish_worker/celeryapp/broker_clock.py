"""Makes Kombu use the clock of the store, so that wrong wall clocks of workers do no harm.

Kombu notes when it gave a message to a worker, and any worker gives old messages to another one. By
wall clocks, a worker whose clock is an hour ahead would give away every message in work.
"""

from __future__ import annotations

import time

from kombu.transport import redis

from cavendish.clock import Clock

_clock: Clock | None = None


def set_clock(redis_now: float) -> None:
    """Use this time from now on: seconds since the epoch by the store's clock."""
    global _clock  # noqa: PLW0603 (one per process: so is kombu's)
    _clock = Clock(redis_now)


def now() -> float:
    """Seconds since the epoch, by the store's clock; by our own until the store was seen once."""
    return time.time() if _clock is None else _clock.now()


redis.time = now  # type: ignore[attr-defined]
