"""Pure: how long tasks take, learned from polls at them, and when the next poll is worth it.

The idea: the age of a task is cut into bins, from half a second to ten minutes by equal ratios. Per
bin the duration model counts how many tasks finished in it and for how many seconds tasks were seen
running in it; finishes by seconds is the hazard of that bin. A look that finds an id still running
teaches too: it adds seconds and no finish, so tasks that take long, or never end, need no rule of
their own. Old counts fade, so the duration model follows a service that changes.

With a constant hazard per bin everything asked of the duration model has a closed form. For an id
that was running at age a:

    H(t)     cumulative hazard; the id is still running at age t with chance S = exp(H(a) - H(t))
    M(a)     mean residual life: the seconds it still has to go at age a, on average
    E(a, t)  expected undetected wait: the task-seconds it will have lain finished and unseen, if
    looked at at age t;
             the mean of max(t - finish, 0), so E = (t - a) - M(a) + S * M(t)

The next poll is due at the age t where E(a, t) reaches a price, in task-seconds. Where the hazard h
changes little this means intervals of sqrt(2 * price / h): often where finishes are likely, seldom
where they are not.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

SHORT, LONG, RATIOS = (
    0.5,
    600.0,
    48,
)  # seconds: one bin up to SHORT, RATIOS bins up to LONG, one from there to infinity
EDGES: tuple[float, ...] = (
    0.0,
    *(SHORT * (LONG / SHORT) ** (i / RATIOS) for i in range(RATIOS)),
    LONG,
)
ENDS = (*EDGES[1:], math.inf)
BINS = len(EDGES)

HALF_LIFE = 400  # finishes after which an old finish counts half
PRIOR = 5.0  # finishes that the duration model believed in beforehand is worth, over all bins
FLAT = 1 / 30  # hazard per second that a service nobody has seen yet starts from
RAREST, DENSEST = (
    1e-5,
    100.0,
)  # bounds of a hazard per second: even a stuck id may end, and nothing ends at once
# Seconds by which a server's stamps may contradict what was seen; beyond that they are not
# believed.
SKEW = 5.0
OLDEST, BLINK = (
    1e8,
    1e-3,
)  # seconds: no age is taken to be more; a span no longer than a blink is a moment
YOUTH = 1.0  # seconds in which a new task hardly finishes
KERNEL = (
    1 / 16,
    4 / 16,
    6 / 16,
    4 / 16,
    1 / 16,
)  # weights of a bin and its neighbours, where a finish is placed by guess

# Of the mean duration is the price of a poll, in task-seconds; 20 times that hardly moves the mean
# delay.
PRICE_SHARE = 0.02
LEAST_PRICE, MOST_PRICE = 0.01, LONG
CALL_PRICE, CALL_PRICE_RISE = (
    1.0,
    6.0,
)  # task-seconds a call must be worth: with no rate limit in use, and more with all of it


@dataclass(frozen=True, slots=True)
class Observation:
    """What one poll at one id taught.

    Ages in seconds since the submit, `duration` the server's own where it had stamps.
    """

    last_age: float  # at the last poll that found it running; 0 if there was none
    age: float
    finished: bool
    duration: float | None = None


@dataclass(frozen=True, slots=True)
class DurationModel:
    """Per bin of age.

    Faded count of finishes, and of seconds seen running. `seen` counts all finishes there ever
    were.
    """

    finished: tuple[float, ...] = (0.0,) * BINS
    running: tuple[float, ...] = (0.0,) * BINS
    seen: int = 0

    @classmethod
    def from_json(cls, text: str | None) -> DurationModel:
        """Read what `to_json` wrote; anything unreadable is a new duration model."""
        try:
            known = json.loads(text or "null")
            finished, running = (
                tuple(map(float, known["finished"])),
                tuple(map(float, known["running"])),
            )
            seen = int(known["seen"])
        except (TypeError, ValueError, KeyError, OverflowError, RecursionError):
            return cls()
        sound = len(finished) == len(running) == BINS and all(
            0 <= count < math.inf for count in finished + running
        )
        return cls(finished, running, seen) if sound and seen >= 0 else cls()

    def to_json(self) -> str:
        """Six digits are plenty for a count that fades."""
        finished, running = (
            [float(f"{count:.6g}") for count in counts] for counts in (self.finished, self.running)
        )
        return json.dumps(
            {"finished": finished, "running": running, "seen": self.seen}, separators=(",", ":")
        )


def observe(durations: DurationModel, polls: Iterable[Observation]) -> DurationModel:
    """Learn from one batch. A look that makes no sense is clamped to what does, or left out."""
    batch = _Tally(_guessed(_hazards(durations, (FLAT,) * BINS)))
    for poll in polls:
        if not (math.isfinite(poll.last_age) and math.isfinite(poll.age)):
            continue
        since, until = _span(min(poll.last_age, poll.age), poll.age)
        if not poll.finished:
            batch.ran(since, until)
            continue
        at = _believed(poll.duration, since, until)
        if at is None and until - since > BLINK:
            batch.finished_within(since, until)
        else:
            batch.finished_at(since, until if at is None else at)
    fade = 0.5 ** (batch.finishes / HALF_LIFE)
    return DurationModel(
        tuple(
            fade * old + new for old, new in zip(durations.finished, batch.finished, strict=True)
        ),
        tuple(
            fade * old + new for old, new in zip(durations.running, batch.seconds(), strict=True)
        ),
        durations.seen + batch.finishes,
    )


def _believed(duration: float | None, since: float, until: float) -> float | None:
    """The age at which the server says an id finished, brought into what was seen.

    None if it says nothing or nonsense.
    """
    if duration is None or not since - SKEW <= duration <= until + SKEW:
        return None
    return _clamp(duration, since, until)


class _Tally:
    """What one batch adds to each bin, under the hazards believed in so far."""

    def __init__(self, hazards: Sequence[float]) -> None:
        self._hazards = hazards
        self.finishes = 0
        self.finished = [0.0] * BINS
        self._running = [0.0] * BINS
        self._reached = [0] * BINS

    def ran(self, since: float, until: float) -> None:
        """An id was running over this span.

        As one that ran from 0 to `until`, less one that ran from 0 to `since`.
        """
        for age, sign in ((until, 1), (since, -1)):
            i = _bin(age)
            self._running[i] += sign * (age - EDGES[i])
            self._reached[i] += sign

    def finished_at(self, since: float, at: float) -> None:
        self.finishes += 1
        self.finished[_bin(at)] += 1
        self.ran(since, at)

    def finished_within(self, since: float, until: float) -> None:
        """Count a finish in each bin of the span by its chance there, with the seconds expected
        there: one EM step.
        """
        self.finishes += 1
        first, last = _bin(since), _bin(until)
        spans = list(enumerate(pairwise((since, *EDGES[first + 1 : last + 1], until)), first))
        end = math.exp(-sum(self._hazards[i] * (stop - start) for i, (start, stop) in spans))
        alive = 1.0
        for i, (start, stop) in spans:
            gone = -alive * math.expm1(-self._hazards[i] * (stop - start))
            self.finished[i] += gone / (1 - end)
            self._running[i] += (gone / self._hazards[i] - end * (stop - start)) / (1 - end)
            alive -= gone

    def seconds(self) -> list[float]:
        """Seconds running per bin.

        Whoever reached a bin ran for the whole width of each bin before it.
        """
        running, passed = self._running, 0
        for i in range(BINS - 1, 0, -1):
            passed += self._reached[i]
            running[i - 1] += passed * (ENDS[i - 1] - EDGES[i - 1])
        return [max(seconds, 0.0) for seconds in running]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a duration model says about ids: per bin its hazard, and at each bin's begin the
    cumulative hazard and the residual life.

    `mean` is the mean duration in seconds, with all beyond LONG cut off at LONG: a few ids that
    never end must not make all polls rare. `price` is what a poll is worth if nobody says, the same
    for all models of a service as they share calls.
    """

    hazards: tuple[float, ...]
    cumulative: tuple[float, ...]
    residual: tuple[float, ...]  # one entry more, for infinity
    mean: float
    price: float

    def chance(self, last_age: float, age: float) -> float:
        """How likely an id that was running at `last_age` has finished by `age`."""
        since, until = _span(last_age, age)
        return -math.expm1(self._at(since)[0] - self._at(until)[0])

    def wait(self, last_age: float, age: float) -> float:
        """E.

        The task-seconds that an id running at `last_age` is expected to have lain finished and
        unseen by `age`.
        """
        since, until = _span(last_age, age)
        (hazard, residual), (hazard_then, residual_then) = self._at(since), self._at(until)
        return max(until - since - residual + math.exp(hazard - hazard_then) * residual_then, 0.0)

    def next_age(self, last_age: float, price: float | None = None) -> float:
        """The age at which an id that was running at `last_age` is worth a poll.

        Where E reaches `price`.
        """
        left = _clamp(self.price if price is None else price, LEAST_PRICE, MOST_PRICE)
        age, alive = _clamp(last_age, 0.0, OLDEST), 1.0
        for i in range(_bin(age), BINS - 1):
            hazard, width = self.hazards[i], ENDS[i] - age
            grown = width + alive * math.expm1(-hazard * width) / hazard
            if grown >= left:
                return age + _until_worth(left, alive, hazard)
            age, alive, left = ENDS[i], alive * math.exp(-hazard * width), left - grown
        return age + _until_worth(left, alive, self.hazards[-1])

    def quantile(self, share: float) -> float:
        """The age by which this share of all tasks has finished."""
        target = -math.log1p(-_clamp(share, 0.0, 1 - 1e-9))
        i = bisect_right(self.cumulative, target) - 1
        return EDGES[i] + (target - self.cumulative[i]) / self.hazards[i]

    def _at(self, age: float) -> tuple[float, float]:
        """The cumulative hazard and the residual life at an age."""
        i = _bin(age)
        hazard, to_go = self.hazards[i], ENDS[i] - age
        residual = (
            -math.expm1(-hazard * to_go) / hazard + math.exp(-hazard * to_go) * self.residual[i + 1]
        )
        return self.cumulative[i] + hazard * (age - EDGES[i]), residual


def forecast(durations: DurationModel, service: DurationModel | None = None) -> Forecast:
    """What a duration model says.

    Where it has seen little, the duration model of its service says it, and where that has not, a
    flat hazard.
    """
    whole = None if service is None else forecast(service)
    hazards = _hazards(durations, whole.hazards if whole else (FLAT,) * BINS)
    cumulative = [0.0]
    for i in range(BINS - 1):
        cumulative.append(cumulative[-1] + hazards[i] * (ENDS[i] - EDGES[i]))
    residual = [0.0]
    for i in range(BINS - 1, -1, -1):
        passing = -hazards[i] * (ENDS[i] - EDGES[i])
        residual.append(-math.expm1(passing) / hazards[i] + math.exp(passing) * residual[-1])
    residual.reverse()
    mean = residual[0] - math.exp(-cumulative[-1]) * residual[BINS - 1]
    price = whole.price if whole else PRICE_SHARE * mean
    return Forecast(tuple(hazards), tuple(cumulative), tuple(residual), mean, price)


def first_age(forecast: Forecast) -> float:
    """The age at which a new id is worth its first poll."""
    return forecast.next_age(0.0)


def until_all(
    running: Iterable[tuple[Forecast, float, float]], share: float, longest: float
) -> float:
    """Seconds by which all of these have finished with this chance; `longest` where that is later.

    Each is an forecast, the age at which the id was last seen running, and its age now. They are
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


def call_price(used_share: float) -> float:
    """The task-seconds of expected wait that a call must be worth, when this share of the believed
    rate limit is in use.
    """
    return CALL_PRICE + CALL_PRICE_RISE * _clamp(used_share, 0.0, 1.0) ** 2


def _hazards(durations: DurationModel, before: Sequence[float]) -> list[float]:
    """Finishes per second running in each bin, and as if PRIOR tasks had passed through it before,
    at the hazard `before`.

    No bin gets more of them than an even share, so that old ages, which few tasks reach, are
    learned quickly.
    """
    hazards = []
    for count, seconds, prior, start, end in zip(
        durations.finished, durations.running, before, EDGES, ENDS, strict=True
    ):
        passed = min(PRIOR * (end - start), PRIOR / BINS / prior)
        hazards.append(_clamp((count + prior * passed) / (seconds + passed), RAREST, DENSEST))
    return hazards


def _guessed(hazards: Sequence[float]) -> list[float]:
    """The hazards by which a finish is placed where nobody looked: smoothed over neighbours, and
    rising from 0 at age 0.

    Without that, a guess once made of the ages before all first polls would confirm itself for
    good.
    """
    padded = (0.0, 0.0, *hazards, hazards[-1], hazards[-1])
    smooth = (sum(w * padded[i + k] for k, w in enumerate(KERNEL)) for i in range(BINS))
    return [
        max(hazard * end / (end + YOUTH), RAREST)
        for hazard, end in zip(smooth, (*EDGES[1:], LONG), strict=True)
    ]


def _until_worth(left: float, alive: float, hazard: float) -> float:
    """The seconds s in which the wait grows by `left`.

    S - alive * (1 - exp(-hazard * s)) / hazard = left, by Newton.
    """
    gone = (
        1 - alive
    )  # start where the parabola that touches at 0 gets there: a little early; the next steps come from above
    s = 2 * left / (gone + math.sqrt(gone * gone + 2 * alive * hazard * left))
    for _ in range(20):
        step = (left - s - alive * math.expm1(-hazard * s) / hazard) / (
            1 - alive * math.exp(-hazard * s)
        )
        s += step
        if abs(step) < 1e-6 * s:
            break
    return s


def _bin(age: float) -> int:
    return bisect_right(EDGES, age) - 1


def _span(last_age: float, age: float) -> tuple[float, float]:
    """Both ages brought into what can be: from 0 to OLDEST, and in order."""
    since = _clamp(last_age, 0.0, OLDEST)
    return since, _clamp(age, since, OLDEST)


def _clamp(value: float, least: float, most: float) -> float:
    """NaN is `least`."""
    return min(max(least, value), most)
