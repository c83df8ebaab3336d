"""The floor under `whole.py`: the same load on a virtual clock, polled by one who knows everything.

    python tests/bench/whole_floor.py [--minutes 6] [--prices 1,2,3]

Who polls here knows the true distribution of the durations and the limit of the moment, calls take
no time, and each call has the ids with the longest expected undetected wait. A call is made when
the limit allows it and its ids wait for `price` task-seconds together: a low price means many calls
and short delays. No real system knows that much, so its mean at so many calls lies above.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import sys
from dataclasses import dataclass

from contestants import BATCH
from whole import BURST, IN_FLIGHT, LIMITS, MEAN, MEDIAN, SEED, SIGMA, SLOT, WARM_UP

#: Seconds between two decisions.
STEP = 0.02


@dataclass(slots=True)
class Task:
    submitted: float
    finished: float
    #: Age at the last poll, and what follows from it: the chance to run longer, and the integral of
    #: the distribution up to that age.
    last: float = 0.0
    alive: float = 1.0
    area: float = 0.0

    def wait(self, now: float) -> float:
        """The expected undetected wait: E(a, t) of `policy/next_poll.py`, for the true durations.

        It is the integral of P(finished by u | running at a) for u from a to t.
        """
        age = now - self.submitted
        _, area = _distribution(age)
        return (area - self.area - (1 - self.alive) * (age - self.last)) / self.alive

    def seen_running(self, now: float) -> None:
        self.last = now - self.submitted
        gone, self.area = _distribution(self.last)
        self.alive = max(1 - gone, 1e-12)


def _distribution(age: float) -> tuple[float, float]:
    """The chance that a task takes less than `age`, and its integral from 0 to there."""
    if age <= 0:
        return 0.0, 0.0
    z = math.log(age / MEDIAN) / SIGMA
    gone = _normal(z)
    return gone, age * gone - MEDIAN * math.exp(SIGMA**2 / 2) * _normal(z - SIGMA)


def _normal(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def floor(price: float, seconds: float) -> tuple[float, float]:
    """The mean delay in seconds, and the calls per task, of one run."""
    chance, delays, calls, ended = random.Random(SEED), list[float](), 0, 0
    running, tokens, now = list[Task](), float(BURST), 0.0
    arrives_at = chance.expovariate(IN_FLIGHT / MEAN)
    while now < seconds:
        now += STEP
        limit = LIMITS[min(int(now / seconds * len(LIMITS)), len(LIMITS) - 1)]
        tokens = min(tokens + limit * STEP, BURST)
        while arrives_at < now:
            # As in the load of `whole.py`, ids are handed over at the end of their slot.
            at = (arrives_at // SLOT + 1) * SLOT
            running.append(Task(at, at + chance.lognormvariate(math.log(MEDIAN), SIGMA)))
            arrives_at += chance.expovariate(IN_FLIGHT / MEAN)
        if tokens < 1:
            continue
        waits = [(each.wait(now), place) for place, each in enumerate(running)]
        batch = heapq.nlargest(BATCH, waits)
        if sum(wait for wait, _ in batch) < price:
            continue
        tokens -= 1
        over = set[int]()
        for _, place in batch:
            task = running[place]
            if task.finished <= now:
                over.add(place)
                if now >= WARM_UP:
                    delays.append(now - task.finished)
            else:
                task.seen_running(now)
        running = [each for place, each in enumerate(running) if place not in over]
        if now >= WARM_UP:
            calls, ended = calls + 1, ended + len(over)
    return sum(delays) / len(delays), calls / ended


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--prices", default="6,7,7.5,8,9")
    words = parser.parse_args()
    for price in map(float, words.prices.split(",")):
        mean, calls = floor(price, words.minutes * 60)
        sys.stdout.write(
            f"price {price:g}: mean {mean:.3f} s after the finish, {calls:.4f} calls per task\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
