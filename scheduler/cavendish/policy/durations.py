"""Pure: how long tasks take, as hazard rates learned per bin of age from polls.

The age of a task is cut into bins, from half a second to ten minutes by equal ratios. For each bin
the duration model counts how many tasks finished in it, and for how many seconds tasks were seen
running in it; finishes divided by seconds is the hazard rate of that bin. A poll that finds an id
still running teaches too: it adds seconds and no finish, so tasks that take long, or never end,
need no rule of their own. Old counts fade, so the model follows a service that changes.
`next_poll` says what follows from the hazard rates.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cavendish.stored_json import compact, read

#: Seconds: one bin up to SHORT, RATIOS bins up to LONG, and one from there to infinity.
SHORT, LONG, RATIOS = 0.5, 600.0, 48
EDGES: tuple[float, ...] = (
    0.0,
    *(SHORT * (LONG / SHORT) ** (i / RATIOS) for i in range(RATIOS)),
    LONG,
)
ENDS = (*EDGES[1:], math.inf)
BINS = len(EDGES)
#: No age is taken to be more seconds than this.
OLDEST = 1e8

#: Finishes after which an old finish counts half.
HALF_LIFE = 400
#: How many finishes the hazard believed beforehand counts for, over all bins.
PRIOR = 5.0
#: Hazard per second of a service that was never seen.
FLAT = (1 / 30,) * BINS
#: Bounds of a hazard per second: even a stuck id may end, and nothing ends at once.
RAREST, DENSEST = 1e-5, 100.0
#: Seconds by which the clock of the server may contradict the polls; beyond that its times teach
#: nothing, and the polls alone say when a task finished.
SKEW = 1.0
#: A span of so few seconds is a moment.
BLINK = 1e-3
#: Seconds in which a new task hardly finishes.
YOUTH = 1.0
#: Weights of a bin and its neighbours where the place of a finish is a guess.
KERNEL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


@dataclass(frozen=True, slots=True)
class Observation:
    """What one poll showed about one id. Ages are in seconds since the submit.

    `last_age` is the age at the last poll that found it running (0 if there was none), `duration`
    the age at which it finished by the clock of the server, where that gave times. `announced`: a
    callback had said that it has finished.
    """

    last_age: float
    age: float
    finished: bool
    duration: float | None = None
    announced: bool = False


@dataclass(frozen=True, slots=True)
class DurationModel:
    """Counts per bin of age, which fade: finishes, and seconds seen running.

    `seen` counts all finishes there ever were.
    """

    finished: tuple[float, ...] = (0.0,) * BINS
    running: tuple[float, ...] = (0.0,) * BINS
    seen: int = 0

    @classmethod
    def from_json(cls, text: object) -> DurationModel:
        """Read what `to_json` wrote; anything unreadable is a new duration model."""
        known = read(cls, text) or cls()
        counts = known.finished + known.running
        sound = len(known.finished) == len(known.running) == BINS and min(counts) >= 0
        return known if sound and known.seen >= 0 else cls()

    def to_json(self) -> str:
        """The JSON text that is stored. Six digits are plenty for a count that fades."""
        finished, running = (
            tuple(float(f"{count:.6g}") for count in counts)
            for counts in (self.finished, self.running)
        )
        return compact(DurationModel(finished, running, self.seen))


def observe(durations: DurationModel, observations: Iterable[Observation]) -> DurationModel:
    """Learn from one batch. Impossible ages are clamped, or left out where they are no numbers."""
    batch = _Tally(_smoothed(hazards(durations, FLAT)))
    for seen in observations:
        if not (math.isfinite(seen.last_age) and math.isfinite(seen.age)):
            continue
        since, until = span(min(seen.last_age, seen.age), seen.age)
        if not seen.finished:
            batch.ran(since, until)
            continue
        at = _believed(seen.duration, since, until)
        if at is None and until - since > BLINK:
            batch.finished_within(since, until)
        else:
            batch.finished_at(since, until if at is None else at)
    fade = 0.5 ** (batch.finishes / HALF_LIFE)

    def faded(old: Sequence[float], new: Sequence[float]) -> tuple[float, ...]:
        return tuple(fade * before + added for before, added in zip(old, new, strict=True))

    return DurationModel(
        faded(durations.finished, batch.finished),
        faded(durations.running, batch.seconds()),
        durations.seen + batch.finishes,
    )


def finished_at(seen: Observation) -> float:
    """The age at which an id finished that a poll found finished; a guess where nobody says it."""
    since, until = span(min(seen.last_age, seen.age), seen.age)
    at = _believed(seen.duration, since, until)
    return (since + until) / 2 if at is None else at


def hazards(durations: DurationModel, before: Sequence[float]) -> list[float]:
    """The hazard rate of each bin: finishes per second running.

    PRIOR tasks are added as if they had passed through it at the hazard `before`. No bin gets more
    of them than an even share, so that old ages, which few tasks reach, are learned quickly.
    """
    found = []
    for count, seconds, prior, start, end in zip(
        durations.finished, durations.running, before, EDGES, ENDS, strict=True
    ):
        passed = min(PRIOR * (end - start), PRIOR / BINS / prior)
        found.append(clamp((count + prior * passed) / (seconds + passed), RAREST, DENSEST))
    return found


def bin_of(age: float) -> int:
    """The number of the bin that an age (seconds, 0 and up) falls into."""
    return bisect_right(EDGES, age) - 1


def span(last_age: float, age: float) -> tuple[float, float]:
    """Both ages, made possible: from 0 to OLDEST, and in order."""
    since = clamp(last_age, 0.0, OLDEST)
    return since, clamp(age, since, OLDEST)


def clamp(value: float, least: float, most: float) -> float:
    """The value within its bounds; NaN becomes `least`."""
    return min(max(least, value), most)


class _Tally:
    """What one batch adds to each bin, under the hazard rates believed so far."""

    def __init__(self, believed: Sequence[float]) -> None:
        self._hazards = believed
        self.finishes = 0
        self.finished = [0.0] * BINS
        self._running = [0.0] * BINS
        self._reached = [0] * BINS

    def ran(self, since: float, until: float) -> None:
        """An id was running over this span: as from 0 to `until`, less from 0 to `since`."""
        for age, sign in ((until, 1), (since, -1)):
            i = bin_of(age)
            self._running[i] += sign * (age - EDGES[i])
            self._reached[i] += sign

    def finished_at(self, since: float, at: float) -> None:
        self.finishes += 1
        self.finished[bin_of(at)] += 1
        self.ran(since, at)

    def finished_within(self, since: float, until: float) -> None:
        """Spread one finish over the bins of a span by its chance in each: one EM step.

        Each bin also gets the seconds that the id is expected to have run there.
        """
        self.finishes += 1
        first, last = bin_of(since), bin_of(until)
        parts = list(enumerate(pairwise((since, *EDGES[first + 1 : last + 1], until)), first))
        end = math.exp(-sum(self._hazards[i] * (stop - start) for i, (start, stop) in parts))
        alive = 1.0
        for i, (start, stop) in parts:
            gone = -alive * math.expm1(-self._hazards[i] * (stop - start))
            self.finished[i] += gone / (1 - end)
            self._running[i] += (gone / self._hazards[i] - end * (stop - start)) / (1 - end)
            alive -= gone

    def seconds(self) -> list[float]:
        """Seconds running per bin: an id that reached a bin ran through every bin before it."""
        running, passed = self._running, 0
        for i in range(BINS - 1, 0, -1):
            passed += self._reached[i]
            running[i - 1] += passed * (ENDS[i - 1] - EDGES[i - 1])
        return [max(seconds, 0.0) for seconds in running]


def _believed(duration: float | None, since: float, until: float) -> float | None:
    """The age at which the server says an id finished, clamped to what the polls showed.

    None if it says nothing, or contradicts the polls by more than SKEW.
    """
    if duration is None or not since - SKEW <= duration <= until + SKEW:
        return None
    return clamp(duration, since, until)


def _smoothed(rates: Sequence[float]) -> list[float]:
    """The hazard rates that place a finish which no poll saw: smoothed, and rising from 0 at age 0.

    Without that, a guess once made about the ages before all first polls would confirm itself.
    """
    padded = (0.0, 0.0, *rates, rates[-1], rates[-1])
    smooth = (sum(w * padded[i + k] for k, w in enumerate(KERNEL)) for i in range(BINS))
    ends = (*EDGES[1:], LONG)
    return [max(rate * end / (end + YOUTH), RAREST) for rate, end in zip(smooth, ends, strict=True)]
