"""Pure: how many attempts at an endpoint were taken, and failed, in each half hour of a day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Seconds of one period, and periods that are kept: a day.
PERIOD, KEPT = 1800, 48


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of one period that began at `began_at`, in seconds since the epoch."""

    began_at: float
    delivered: int
    failed: int


@dataclass(frozen=True, slots=True)
class AttemptHistory:
    """All periods that are kept, the oldest first; the last one still runs."""

    periods: tuple[Attempts, ...]

    @property
    def delivered(self) -> int:
        return sum(each.delivered for each in self.periods)

    @property
    def failed(self) -> int:
        return sum(each.failed for each in self.periods)

    @property
    def success_rate(self) -> float | None:
        """The share of the attempts that receivers took; None if there was none."""
        attempts = self.delivered + self.failed
        return self.delivered / attempts if attempts else None


def period_of(at: float) -> int:
    """The number of the period in which a time lies."""
    return int(at // PERIOD)


def history(fields: object, now: float) -> AttemptHistory:
    """Read the stored counts: the number of a period -> delivered, less than zero -> failed.

    What cannot be read, or is no hash, counts as none.
    """
    known = fields if isinstance(fields, Mapping) else {}
    last = period_of(now)
    return AttemptHistory(
        tuple(
            Attempts(
                number * PERIOD, _count(known.get(f"{number}")), _count(known.get(f"-{number}"))
            )
            for number in range(last - KEPT + 1, last + 1)
        )
    )


def _count(text: object) -> int:
    return int(text) if isinstance(text, str) and text.isdecimal() else 0
