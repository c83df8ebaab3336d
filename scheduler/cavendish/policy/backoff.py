"""Pure: how long to wait before the next attempt. Chance is passed in; jitter only adds."""

from __future__ import annotations

#: Seconds before each webhook attempt, the example schedule of Standard Webhooks: 10 attempts over
#: 75.6 hours.
WEBHOOK_WAITS = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
WEBHOOK_WINDOW = sum(WEBHOOK_WAITS)
JITTER = 0.1


def exponential(failures: int, base: float, cap: float, chance: float) -> float:
    """Seconds to wait after `failures` in a row (1 and up).

    They double from `base` up to `cap`; `chance` in [0, 1) adds up to 10 %.
    """
    wait = min(base * 2.0 ** min(max(failures, 1) - 1, 32), cap)
    return wait * (1 + JITTER * chance)


def webhook(attempts: int, retry_after: float | None, chance: float) -> float | None:
    """Seconds until the next webhook attempt after `attempts` of them; None when all are used up.

    `retry_after` (seconds) is a lower bound, capped at the rest of the whole schedule. `chance` is
    in [0, 1).
    """
    if attempts >= len(WEBHOOK_WAITS):
        return None
    floor = min(retry_after or 0.0, sum(WEBHOOK_WAITS[attempts:]))
    return max(WEBHOOK_WAITS[attempts], floor) * (1 + JITTER * chance)
