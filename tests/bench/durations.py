"""The learned duration model against the study (docs/polling.md, sections 3.3 and 3.5), on a
virtual clock with the real duration model.

    python tests/bench/durations.py [name of a scenario]

Ids arrive as a Poisson stream and finish after a drawn duration. RATE calls a second go out, each
with the ids that are due first, up to BATCH; ids not due yet fill spare places. A delay is the
moment of the call that first sees a finish, less that finish. All runs are seeded; the study's own
runs had other seeds, so a difference of one or two percent is chance.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cavendish.policy.durations import (
    BINS,
    EDGES,
    ENDS,
    DurationModel,
    Forecast,
    Observation,
    forecast,
    observe,
)

RATE, BATCH = 5.0, 100
"""Calls a second, and ids a call."""
REFRESH = 5.0
"""Seconds after which a worker builds its forecast anew."""
NEVER = 1e9
MEDIAN, SIGMA = 15.0, 0.5

Draw = Callable[[random.Random, float], tuple[float, int]]
"""From chance and the moment of the submit: the duration, and the number of the model."""


class Row(NamedTuple):
    """One line of the table.

    `bar` is the relative difference that is asked for, None where nothing is.
    """

    scenario: str
    figure: str
    study: float | None
    ours: float
    bar: float | None = None

    @property
    def off(self) -> float:
        """Relative; 0 where the study says nothing."""
        return self.ours / self.study - 1 if self.study else 0.0

    @property
    def pauses(self) -> bool:
        """Better than the study holds, too."""
        return self.bar is None or self.off <= self.bar


# ------------------------------------------------------------------------------------------------
# durations


def lognormal(median: float = MEDIAN, sigma: float = SIGMA) -> Draw:
    return lambda chance, _at: (median * math.exp(sigma * chance.gauss(0, 1)), 0)


def drifting(chance: random.Random, at: float) -> tuple[float, int]:
    return (15.0 if at < 300 else 40.0) * math.exp(SIGMA * chance.gauss(0, 1)), 0


def two_models(chance: random.Random, _at: float) -> tuple[float, int]:
    model = chance.randrange(2)
    return (6.0, 60.0)[model] * math.exp(0.3 * chance.gauss(0, 1)), model


def sometimes_stuck(chance: random.Random, at: float) -> tuple[float, int]:
    return (NEVER, 0) if chance.random() < 0.03 else lognormal()(chance, at)


def known(
    median: float = MEDIAN, sigma: float = SIGMA, tail: float = 1e-3, sure: float = 1e6
) -> DurationModel:
    """The duration model that `sure` exact finishes would teach.

    The lognormal's own counts, a share of `tail` with a mean of 300 s.
    """

    def alive(age: float) -> float:
        normal = (
            0.5 * math.erfc(math.log(age / median) / sigma / math.sqrt(2))
            if 0 < age < math.inf
            else float(age == 0)
        )
        return (1 - tail) * normal + tail * math.exp(-age / 300)

    finished, running = [], []
    for start, end in zip(EDGES, ENDS, strict=True):
        last = end if end < math.inf else 100 * start
        width = (last - start) / 50
        inner = sum(alive(start + i * width) for i in range(1, 50))
        finished.append(sure * (alive(start) - alive(last)))
        running.append(sure * width * (inner + (alive(start) + alive(last)) / 2))
    assert len(finished) == BINS
    return DurationModel(tuple(finished), tuple(running), int(sure))


# ------------------------------------------------------------------------------------------------
# the pollers


class RoundRobin:
    """Whoever was looked at longest ago: no duration model."""

    def due(self, submitted: float, last_age: float, _model: int) -> float:
        return submitted + last_age

    def learn(self, polls: list[tuple[int, Observation]]) -> None: ...

    def refresh(self) -> None: ...


class Knowing:
    """Due times by a duration model that is known and stays what it is."""

    def __init__(self, durations: DurationModel) -> None:
        self._forecast = forecast(durations)

    def due(self, submitted: float, last_age: float, _model: int) -> float:
        return submitted + self._forecast.next_age(last_age)

    def learn(self, polls: list[tuple[int, Observation]]) -> None: ...

    def refresh(self) -> None: ...


class Learning:
    """Due times by duration models learned on the way, one for each of `models`, and one for their
    service.
    """

    def __init__(self, models: int = 1, *, stamps: bool = True) -> None:
        self._service = DurationModel()
        self._duration_models = [DurationModel()] * models
        self._stamps = stamps
        self._forecasts: list[Forecast] = []
        self.refresh()

    def due(self, submitted: float, last_age: float, model: int) -> float:
        return submitted + self._forecasts[model % len(self._forecasts)].next_age(last_age)

    def learn(self, polls: list[tuple[int, Observation]]) -> None:
        if not self._stamps:
            polls = [(model, replace(poll, duration=None)) for model, poll in polls]
        self._service = observe(self._service, [poll for _, poll in polls])
        if len(self._duration_models) > 1:
            for model in range(len(self._duration_models)):
                self._duration_models[model] = observe(
                    self._duration_models[model], [poll for of, poll in polls if of == model]
                )

    def refresh(self) -> None:
        several = len(self._duration_models) > 1
        self._forecasts = (
            [forecast(durations, self._service) for durations in self._duration_models]
            if several
            else [forecast(self._service)]
        )


Poller = RoundRobin | Knowing | Learning


# ------------------------------------------------------------------------------------------------
# the clock


@dataclass
class Run:
    """The finishes of one run.

    When each was, and how long it lay unseen; those never seen count up to the horizon.
    """

    horizon: float
    delays: list[tuple[float, float]] = field(default_factory=list)
    calls: int = 0

    def between(self, since: float, until: float) -> list[float]:
        return [delay for finish, delay in self.delays if since <= finish < until]


def arrivals(
    chance: random.Random, per_second: float, horizon: float, draw: Draw
) -> Iterator[tuple[float, float, int]]:
    at = chance.expovariate(per_second)
    while at < horizon:
        yield (at, *draw(chance, at))
        at += chance.expovariate(per_second)


def simulate(
    poller: Poller,
    draw: Draw,
    per_second: float,
    horizon: float,
    seed: int,
    deadline: float = math.inf,
) -> Run:
    tasks = list(arrivals(random.Random(seed), per_second, horizon, draw))
    run, new, refreshed = Run(horizon), 0, 0.0
    due: list[tuple[float, int]] = []
    last = [0.0] * len(tasks)
    for tick in range(1, int(horizon * RATE) + 1):
        now = tick / RATE
        if now >= refreshed + REFRESH:
            poller.refresh()
            refreshed = now
        while new < len(tasks) and tasks[new][0] <= now:
            heapq.heappush(due, (poller.due(tasks[new][0], 0.0, tasks[new][2]), new))
            new += 1
        batch: list[int] = []
        while due and len(batch) < BATCH:
            _, task = heapq.heappop(due)
            if now - tasks[task][0] <= deadline:
                batch.append(task)
        run.calls += bool(batch)
        polls = []
        for task in batch:
            submitted, duration, model = tasks[task]
            age = now - submitted
            done = duration <= age
            polls.append((model, Observation(last[task], age, done, duration if done else None)))
            last[task] = age
            if done:
                run.delays.append((submitted + duration, age - duration))
        poller.learn(polls)
        for (model, poll), task in zip(polls, batch, strict=True):
            if not poll.finished:
                heapq.heappush(due, (poller.due(tasks[task][0], poll.age, model), task))
    left = (tasks[task][0] + tasks[task][1] for _, task in due if tasks[task][1] < NEVER)
    run.delays += [(finish, horizon - finish) for finish in left if finish < horizon]
    return run


def figures(
    make: Callable[[], Poller],
    draw: Draw,
    per_second: float,
    horizon: float,
    windows: list[tuple[float, float]],
    seeds: tuple[int, ...] = (1,),
    deadline: float = math.inf,
) -> list[tuple[float, float]]:
    """Mean and p99 of the delay in each window, over all seeds."""
    delays: list[list[float]] = [[] for _ in windows]
    for seed in seeds:
        run = simulate(make(), draw, per_second, horizon, seed, deadline)
        for found, window in zip(delays, windows, strict=True):
            found.extend(run.between(*window))
    return [(statistics.fmean(found), sorted(found)[int(0.99 * len(found))]) for found in delays]


# ------------------------------------------------------------------------------------------------
# the scenarios

MEAN = MEDIAN * math.exp(SIGMA**2 / 2)


def load(ids: int) -> list[Row]:
    horizon = 800.0 if ids <= 1000 else 400.0
    study = {100: (0.10, None), 1000: (0.73, 3.2), 2500: (1.98, 5.86), 5000: (4.95, 11.6)}[
        ids
    ]  # 3.2: with the plain price
    rows = []
    for name, make in (("duration model known", partial(Knowing, known())), ("learned", Learning)):
        seeds = (1,) if ids <= 1000 else (1, 2)
        ((mean, p99),) = figures(
            make, lognormal(), ids / MEAN, horizon, [(150, horizon - 50)], seeds
        )
        rows.append(
            Row(f"{ids} in flight, {name}", "mean", study[0], mean, 0.05 if ids == 2500 else None)
        )
        rows.append(Row(f"{ids} in flight, {name}", "p99", study[1], p99))
    return rows


def stationary() -> list[Row]:
    windows = [(0.0, 30.0), (120.0, 400.0)]
    rows, settled = [], 0.0
    for name, make, study in (
        ("duration model known", partial(Knowing, known()), (1.52, 1.99)),
        ("learned, stamps", Learning, (1.79, 2.01)),
        ("learned, own observation", partial(Learning, stamps=False), (1.74, 1.98)),
    ):
        first, later = figures(make, lognormal(), 2500 / MEAN, 420, windows, (1, 2))
        rows.append(Row(f"2500, {name}: first 30 s", "mean", study[0], first[0]))
        rows.append(Row(f"2500, {name}: settled", "mean", study[1], later[0]))
        settled = settled or later[0]
        rows.append(
            Row(
                f"2500, {name}: settled, against duration model known",
                "mean",
                settled,
                later[0],
                0.03,
            )
        )
    return rows


def drift() -> list[Row]:
    windows = [(360.0, 420.0), (420.0, 680.0)]
    rows = []
    for name, make, study, bar in (
        ("stale duration model", partial(Knowing, known()), (3.57, 3.94), None),
        ("learned, stamps", Learning, (2.82, 3.00), 0.1),
        ("learned, own observation", partial(Learning, stamps=False), (2.84, 3.08), 0.1),
    ):
        after, later = figures(make, drifting, 1500 / MEAN, 700, windows, (1, 2))
        rows.append(Row(f"15 -> 40 s, {name}: 60..120 s after", "mean", study[0], after[0], bar))
        rows.append(Row(f"15 -> 40 s, {name}: later", "mean", study[1], later[0], bar))
    return rows


def models() -> list[Row]:
    per_second = 4000 / (33 * math.exp(0.045))
    rows = []
    for name, make, study in (
        ("one key", Learning, 2.85),
        ("key per model", partial(Learning, 2), 1.67),
    ):
        ((mean, _),) = figures(make, two_models, per_second, 500, [(120, 450)], (1, 2))
        rows.append(Row(f"models of 6 and 60 s, {name}", "mean", study, mean, 0.1))
    return rows


def stuck() -> list[Row]:
    rows = []
    for name, deadline, study in (("no deadline", math.inf, 1.92), ("deadline 300 s", 300.0, 1.79)):
        ((mean, _),) = figures(
            Learning, sometimes_stuck, 2000 / MEAN, 820, [(400, 800)], (1, 2), deadline
        )
        rows.append(Row(f"3 % never end, {name}", "mean", study, mean, 0.1))
    return rows


def width() -> list[Row]:
    rows = []
    for name, sigma, in_flight_mean, of in (
        (
            "narrow, sigma 0.15",
            0.15,
            15.17,
            {
                "duration model known": (0.72, None),
                "learned": (0.74, None),
                "own observation": (None, None),
            },
        ),
        (
            "wide, sigma 1.2",
            1.2,
            30.8,
            {
                "duration model known": (2.48, None),
                "learned": (2.51, 7.6),
                "round robin": (2.60, 5.2),
            },
        ),
    ):
        makers: dict[str, Callable[[], Poller]] = {
            "duration model known": partial(Knowing, known(sigma=sigma)),
            "learned": Learning,
            "own observation": partial(Learning, stamps=False),
            "round robin": RoundRobin,
        }
        for kind, make in ((kind, makers[kind]) for kind in of):
            ((mean, p99),) = figures(
                make, lognormal(sigma=sigma), 2500 / in_flight_mean, 420, [(120, 400)], (1, 2)
            )
            rows.append(Row(f"{name}, {kind}", "mean", of[kind][0], mean))
            rows.append(Row(f"{name}, {kind}", "p99", of[kind][1], p99))
    return rows


SCENARIOS: dict[str, Callable[[], list[Row]]] = {
    **{f"load {ids}": partial(load, ids) for ids in (100, 1000, 2500, 5000)},
    **{each.__name__: each for each in (stationary, drift, models, stuck, width)},
}


def tables(only: str | None = None) -> list[Row]:
    """All rows, or those of one scenario."""
    return [
        row for name, scenario in SCENARIOS.items() if only in (None, name) for row in scenario()
    ]


def main() -> None:
    began = time.perf_counter()
    print(f"{'scenario':<62} {'':<5} {'study':>7} {'ours':>7} {'off':>7}  bar")
    for name in SCENARIOS:
        for row in tables(name) if all(word in name for word in sys.argv[1:]) else ():
            bar = f"{row.bar:.0%} {'pauses' if row.pauses else 'MISSED'}" if row.bar else ""
            study, off = (f"{row.study:.2f}", f"{row.off:+.1%}") if row.study else ("-", "")
            print(
                f"{row.scenario:<62} {row.figure:<5} {study:>7} {row.ours:7.2f} {off:>7}  {bar}",
                flush=True,
            )
    print(f"[{time.perf_counter() - began:.0f} s]")


if __name__ == "__main__":
    main()
