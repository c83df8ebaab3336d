"""Pure: how long to wait before the next attempt. Chance is passed in; jitter only adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

#: Seconds before each webhook attempt, the example schedule of Standard Webhooks: 10 attempts over
#: 75.6 hours.
WEBHOOK_WAITS = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
WEBHOOK_WINDOW = sum(WEBHOOK_WAITS)
JITTER = 0.1
#: Bounds of a schedule of an endpoint's own: retries, the seconds before the first one, which are
#: also the fewest between two of them, and the seconds from the first attempt to the last.
MOST_RETRIES, FIRST_WAIT, LONGEST_WINDOW = 15, 5.0, 7 * 86400.0
#: Seconds for which a Retry-After is obeyed in any case, however short the schedule.
OBEYED = 86400.0


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """How often webhooks of an endpoint are tried again, and for how many seconds in all.

    The waits grow from FIRST_WAIT by the same factor each, so that the last attempt is made
    `seconds` after the first; a single retry is made then.
    """

    retries: int
    seconds: float

    @property
    def complaint(self) -> str | None:
        """Why webhooks cannot be tried again like this, or None."""
        if not 0 <= self.retries <= MOST_RETRIES:
            return f"the retries are 0 to {MOST_RETRIES}"
        if not self.retries * FIRST_WAIT <= self.seconds <= LONGEST_WINDOW:
            days = f"{LONGEST_WINDOW / 86400:g} days"
            return f"{self.retries} retries take {self.retries * FIRST_WAIT:g} s to {days}"
        return None

    @property
    def waits(self) -> tuple[float, ...]:
        """Seconds before each attempt, as in WEBHOOK_WAITS, which an odd schedule becomes."""
        return WEBHOOK_WAITS if self.complaint else _waits(self.retries, self.seconds)


#: As many attempts as the default has, and for as long; its waits are rounder.
LIKE_DEFAULT = RetrySchedule(len(WEBHOOK_WAITS) - 1, WEBHOOK_WINDOW)


@lru_cache(1000)
def _waits(retries: int, seconds: float) -> tuple[float, ...]:
    if retries < 2:
        return (0.0, seconds)[: retries + 1]
    low, high = 1.0, seconds / FIRST_WAIT
    for _ in range(60):  # halves the range of the factor each time
        middle = (low + high) / 2
        too_long = sum(FIRST_WAIT * middle**place for place in range(retries)) > seconds
        low, high = (low, middle) if too_long else (middle, high)
    first = [round(FIRST_WAIT * low**place, 1) for place in range(retries - 1)]
    return (0.0, *first, round(seconds - sum(first), 1))


def exponential(failures: int, base: float, cap: float, chance: float) -> float:
    """Seconds to wait after `failures` in a row (1 and up).

    They double from `base` up to `cap`; `chance` in [0, 1) adds up to 10 %.
    """
    wait = min(base * 2.0 ** min(max(failures, 1) - 1, 32), cap)
    return wait * (1 + JITTER * chance)


def webhook(
    attempts: int,
    retry_after: float | None,
    chance: float,
    waits: Sequence[float] = WEBHOOK_WAITS,
) -> float | None:
    """Seconds until the next webhook attempt after `attempts` of them; None when all are used up.

    `retry_after` (seconds) is a lower bound, capped at the rest of the whole schedule, or at a day
    if that is longer. `chance` is in [0, 1); `waits`: seconds before each attempt.
    """
    if attempts >= len(waits):
        return None
    floor = min(retry_after or 0.0, max(sum(waits[attempts:]), OBEYED))
    return max(waits[attempts], floor) * (1 + JITTER * chance)
