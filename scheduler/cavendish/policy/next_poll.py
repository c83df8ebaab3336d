"""Pure: the time of the next poll of an id, and the price that a batch must be worth.

With a constant hazard rate per bin everything asked of the model has a closed form. For an id that
was running at age a:

    H(t)     cumulative hazard; the id is still running at age t with chance S = exp(H(a) - H(t))
    M(a)     mean residual life: the seconds that an id of age a still runs, on average
    E(a, t)  expected undetected wait: the task-seconds for which it has lain finished and
             undetected if it is polled at age t; the mean of max(t - finish, 0), so
             E = (t - a) - M(a) + S * M(t)

The next poll is due at the age t where E(a, t) reaches a price, in task-seconds. Where the hazard
rate h changes little, the intervals are sqrt(2 * price / h): short where finishes are likely, long
where they are not.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from cavendish.policy.durations import (
    BINS,
    EDGES,
    ENDS,
    FLAT,
    LONG,
    OLDEST,
    DurationModel,
    bin_of,
    clamp,
    hazards,
    span,
)

#: The price of a poll (task-seconds) as a share of the mean duration; 20 times that hardly moves
#: the mean delay.
PRICE_SHARE = 0.02
LEAST_PRICE, MOST_PRICE = 0.01, LONG
#: What a call must be worth (task-seconds): while the rate limit is unused, and how much more when
#: all of it is in use; and the calls per second of one worker that make it worth twice as much
#: where no limit is near: each costs some 15 ms of CPU, and then more ids share it. Beyond so many
#: times these calls it rises no further.
CALL_PRICE, CALL_PRICE_RISE, DEAR_CALLS, DEAREST = 1.0, 4.5, 11.0, 1.95
#: The part of the expected wait of each id (task-seconds) that is worth no call: a hundred ids that
#: share a call are together soon worth the next one, although none of them has waited long.
TOLERATED = 0.02


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a duration model says about ids.

    Per bin: its hazard rate, and the cumulative hazard and the residual life where it begins.
    `mean` is the mean duration in seconds, where durations beyond LONG count as LONG: a few ids
    that never end must not make all polls rare. `price` is what a poll must be worth by default
    (task-seconds), one for all models of a service, since they share calls. `silent` is the share
    of ends that only a poll can find, since no callback announces them: a poll is worth so much
    less.
    """

    hazards: tuple[float, ...]
    cumulative: tuple[float, ...]
    residual: tuple[float, ...]  # one entry more, for infinity
    mean: float
    price: float
    silent: float = 1.0

    def chance(self, last_age: float, age: float) -> float:
        """How likely an id that was running at `last_age` has finished by `age`."""
        since, until = span(last_age, age)
        return -math.expm1(self._at(since)[0] - self._at(until)[0])

    def wait(self, last_age: float, age: float, *, unheard: bool = False) -> float:
        """The expected undetected wait E at `age` of an id that was running at `last_age`.

        Of the ends that no callback announces; `unheard`: none came although it should have by now,
        so that its end is the likelier to be one of these.
        """
        since, until = span(last_age, age)
        (hazard, residual), (hazard_then, residual_then) = self._at(since), self._at(until)
        alive = math.exp(hazard - hazard_then)
        wait = max(until - since - residual + alive * residual_then, 0.0)
        quiet = self.silent + (1 - self.silent) * alive if unheard else 1.0
        return wait * self.silent / quiet

    def next_age(self, last_age: float, price: float | None = None) -> float:
        """The age of the next poll of an id that was running at `last_age`: E reaches `price`.

        Where callbacks announce most ends it comes much later, but at the latest when an id of
        which none came has as likely finished as not.
        """
        wanted = (self.price if price is None else price) / self.silent
        age = self._age_worth(last_age, clamp(wanted, LEAST_PRICE, MOST_PRICE))
        if self.silent == 1:
            return age
        hazard = self._at(clamp(last_age, 0.0, OLDEST))[0]
        return min(age, self._age_at(hazard - math.log(self.silent)))

    def _age_worth(self, last_age: float, left: float) -> float:
        """The age at which E reaches `left`."""
        age, alive = clamp(last_age, 0.0, OLDEST), 1.0
        for i in range(bin_of(age), BINS - 1):
            hazard, width = self.hazards[i], ENDS[i] - age
            grown = width + alive * math.expm1(-hazard * width) / hazard
            if grown >= left:
                return age + _until_worth(left, alive, hazard)
            age, alive, left = ENDS[i], alive * math.exp(-hazard * width), left - grown
        return age + _until_worth(left, alive, self.hazards[-1])

    def quantile(self, share: float) -> float:
        """The age by which this share of all tasks has finished."""
        return self._age_at(-math.log1p(-clamp(share, 0.0, 1 - 1e-9)))

    def _age_at(self, hazard: float) -> float:
        """The age at which the cumulative hazard reaches `hazard`."""
        i = bisect_right(self.cumulative, hazard) - 1
        return EDGES[i] + (hazard - self.cumulative[i]) / self.hazards[i]

    def _at(self, age: float) -> tuple[float, float]:
        """The cumulative hazard and the residual life at an age."""
        i = bin_of(age)
        hazard, to_go = self.hazards[i], ENDS[i] - age
        passing = -hazard * to_go
        residual = -math.expm1(passing) / hazard + math.exp(passing) * self.residual[i + 1]
        return self.cumulative[i] + hazard * (age - EDGES[i]), residual


def forecast(
    durations: DurationModel, service: DurationModel | None = None, silent: float = 1.0
) -> Forecast:
    """The forecast of a duration model; `silent` is the share of ends that no callback announces.

    Where the model has seen little, the model of its `service` decides; where that has seen little
    too, a flat hazard rate.
    """
    whole = forecast(service) if service else None
    rates = hazards(durations, whole.hazards if whole else FLAT)
    cumulative = [0.0]
    for i in range(BINS - 1):
        cumulative.append(cumulative[-1] + rates[i] * (ENDS[i] - EDGES[i]))
    residual = [0.0]
    for i in range(BINS - 1, -1, -1):
        passing = -rates[i] * (ENDS[i] - EDGES[i])
        residual.append(-math.expm1(passing) / rates[i] + math.exp(passing) * residual[-1])
    residual.reverse()
    mean = residual[0] - math.exp(-cumulative[-1]) * residual[BINS - 1]
    price = whole.price if whole else PRICE_SHARE * mean
    return Forecast(tuple(rates), tuple(cumulative), tuple(residual), mean, price, silent)


def first_age(forecast: Forecast) -> float:
    """The age at which the first poll of a new id is due."""
    return forecast.next_age(0.0)


def until_all(
    running: Iterable[tuple[Forecast, float, float]], share: float, longest: float
) -> float:
    """Seconds by which all of these have finished with the chance `share`, at most `longest`.

    Each is a forecast, the age at which the id was last seen running, and its age now. They are
    taken to be independent.
    """
    some = list(running)

    def unlikely(seconds: float) -> bool:
        gone = (forecast.chance(last, age + seconds) for forecast, last, age in some)
        return sum(math.log(max(chance, 1e-300)) for chance in gone) < math.log(share)

    low, high = 0.0, longest
    if not some or not unlikely(low):
        return 0.0
    if unlikely(high):
        return longest
    while high - low > max(0.05, 0.01 * high):
        middle = (low + high) / 2
        low, high = (middle, high) if unlikely(middle) else (low, middle)
    return high


def call_price(used_share: float, calls: float = 0.0) -> float:
    """The expected wait (task-seconds) that makes a call worth it.

    `used_share` (0..1) is the part of the believed rate limit that is in use, `calls` those per
    second that each worker makes now.
    """
    dear = clamp(calls / DEAR_CALLS, 0.0, DEAREST)
    return CALL_PRICE * (1 + dear**4) + CALL_PRICE_RISE * clamp(used_share, 0.0, 1.0) ** 2


def _until_worth(left: float, alive: float, hazard: float) -> float:
    """Seconds s until the expected wait has grown by `left`, by Newton's method.

    Solves s - alive * (1 - exp(-hazard * s)) / hazard = left. The start is where the parabola that
    touches at 0 gets there, which is a little early; the next steps come from above.
    """
    gone = 1 - alive
    s = 2 * left / (gone + math.sqrt(gone * gone + 2 * alive * hazard * left))
    for _ in range(20):
        missing = left - s - alive * math.expm1(-hazard * s) / hazard
        step = missing / (1 - alive * math.exp(-hazard * s))
        s += step
        if abs(step) < 1e-6 * s:
            break
    return s
