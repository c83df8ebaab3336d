"""Kombu's own use of the time, by the clock of the store: wall clocks of workers that are set apart
do not matter.

Kombu notes when it gave a message to a worker, and any worker gives messages of long ago to
somebody else. By wall clocks, a worker an hour ahead would do that with every message that another
one is at work on.
"""

from __future__ import annotations

import time

from kombu.transport import redis

from cavendish.clock import Clock

_clock: Clock | None = None


def keep(redis_now: float) -> None:
    """Go by this clock from now on."""
    global _clock  # noqa: PLW0603 (one per process: so is kombu's)
    _clock = Clock(redis_now)


def now() -> float:
    """Seconds since the epoch by the store's clock.

    By our own as long as the store was never there.
    """
    return time.time() if _clock is None else _clock.now()


redis.time = now  # type: ignore[attr-defined]
