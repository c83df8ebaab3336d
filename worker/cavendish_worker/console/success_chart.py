"""Pure: what became of the attempts at an endpoint in a day, as the bars of a small chart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cavendish.policy.attempt_history import AttemptHistory, Attempts

#: Units of its drawing: of one bar with the gap behind it, and of the highest bar.
STEP, BAR, HEIGHT = 3, 2, 20
#: No bar is lower than this: one failure among a thousand attempts must be seen.
LEAST = 2.0


@dataclass(frozen=True, slots=True)
class SuccessChart:
    """The paths of both kinds of bars as SVG has them, one above the other, and the numbers.

    `rate`: the share of the attempts that was taken; None if there was none.
    """

    delivered: str
    failed: str
    width: int
    height: int
    taken: int
    attempts: int
    rate: float | None

    @property
    def words(self) -> str:
        """What it shows, for those who do not see it."""
        if self.rate is None:
            return "No attempt in the last 24 hours."
        return (
            f"{self.percent} of {self.attempts:,} attempts in the last 24 hours succeeded, "
            f"{self.attempts - self.taken:,} failed."
        )

    @property
    def percent(self) -> str:
        """The rate for people: never 100 % or 0 % where that is not the whole truth."""
        if self.rate is None:
            return "-"
        share = round(100 * self.rate, 1)
        if 0 < self.rate < 1:
            share = min(max(share, 0.1), 99.9)
        return f"{share:g} %"


def success_chart(history: AttemptHistory) -> SuccessChart:
    """One bar for each period, the oldest on the left: what failed stands on what was taken."""
    most = max((each.delivered + each.failed for each in history.periods), default=0) or 1

    def high(attempts: int) -> float:
        return max(HEIGHT * attempts / most, LEAST) if attempts else 0.0

    def failed(each: Attempts) -> float:
        return high(each.failed)

    def whole(each: Attempts) -> float:
        return max(high(each.delivered + each.failed), failed(each))

    taken, missed = history.delivered, history.failed
    return SuccessChart(
        _bars(history, lambda each: (0.0, whole(each) - failed(each))),
        _bars(history, lambda each: (whole(each) - failed(each), failed(each))),
        STEP * len(history.periods),
        HEIGHT,
        taken,
        taken + missed,
        history.success_rate,
    )


def _bars(history: AttemptHistory, bar: Callable[[Attempts], tuple[float, float]]) -> str:
    """A path of rectangles; `bar` says how far above the ground each begins, and how high it is."""
    drawn = []
    for place, each in enumerate(history.periods):
        ground, high = bar(each)
        if high > 0:
            drawn.append(f"M{place * STEP} {HEIGHT - ground:.1f}h{BAR}v-{high:.1f}h-{BAR}z")
    return "".join(drawn)
