"""Pure: how long to wait before the n-th try. Chance is passed in, and jitter only ever adds."""

from __future__ import annotations

#: Seconds before each webhook try, the example schedule of the Standard Webhooks text: 10 attempts
#: over 75.6 hours.
WEBHOOK_WAITS = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
WEBHOOK_WINDOW = sum(WEBHOOK_WAITS)
JITTER = 0.1


def exponential(failures: int, base: float, cap: float, chance: float) -> float:
    """Seconds to wait after `failures` in a row (1 and up).

    Doubling from `base`, at most `cap`, then up to 10 % more.
    """
    wait = min(base * 2.0 ** min(max(failures, 1) - 1, 32), cap)
    return wait * (1 + JITTER * chance)


def webhook(attempts: int, retry_after: float | None, chance: float) -> float | None:
    """Seconds until the next webhook try after `attempts` of them, or None when they are used up.

    `retry_after` (seconds) is a floor, capped at what is left of the whole window. `chance` is in
    [0, 1).
    """
    if attempts >= len(WEBHOOK_WAITS):
        return None
    floor = min(retry_after or 0.0, sum(WEBHOOK_WAITS[attempts:]))
    return max(WEBHOOK_WAITS[attempts], floor) * (1 + JITTER * chance)
