"""One producer keeps 100 ids in flight, another drops 20,000: what the small one waits
(docs/polling.md, section 3.6).

    python tests/bench/fairness.py

A virtual clock with the real duration model and the real shares: each call takes what `fair_share`
picks from the ids next in turn of each producer, just as the dispatch does. Without producer labels
all ids stand in one line.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections import defaultdict
from dataclasses import dataclass

from cavendish.model import Candidate
from cavendish.policy.durations import DurationModel, Observation, forecast, observe
from cavendish.policy.fair_share import fair_share

RATE, BATCH, HORIZON, DROP_AT = 5.0, 100, 600.0, 300.0
MEDIAN, SIGMA, MEAN = 15.0, 0.5, 17.0


@dataclass(slots=True)
class Task:
    """A remote job of a producer."""

    producer: str
    submitted_at: float
    duration: float
    last_age: float = 0.0


def crowd(chance: random.Random) -> list[Task]:
    """All tasks of the run, in the order of their submits."""
    tasks, at = [], 0.0
    while (at := at + chance.expovariate(100 / MEAN)) < HORIZON:
        tasks.append(Task("small", at, MEDIAN * math.exp(SIGMA * chance.gauss(0, 1))))
    burst = (DROP_AT + chance.uniform(0, 10) for _ in range(20_000))
    tasks += [Task("big", at, MEDIAN * math.exp(SIGMA * chance.gauss(0, 1))) for at in burst]
    return sorted(tasks, key=lambda task: task.submitted_at)


def simulate(seed: int, *, labelled: bool) -> dict[str, list[float]]:
    """Delays of the tasks that finished while the burst was worked off, by producer."""
    tasks, durations = crowd(random.Random(seed)), DurationModel()
    lines: dict[str, list[tuple[float, int]]] = defaultdict(list)
    view, new, delays = forecast(durations), 0, defaultdict[str, list[float]](list)
    for step in range(1, int(HORIZON * RATE) + 1):
        now = step / RATE
        if step % int(5 * RATE) == 0:
            view = forecast(durations)
        while new < len(tasks) and tasks[new].submitted_at <= now:
            line = lines[tasks[new].producer if labelled else ""]
            heapq.heappush(line, (tasks[new].submitted_at + view.next_age(0.0), new))
            new += 1
        next_in_turn = [
            (name, heapq.heappop(line))
            for name, line in lines.items()
            for _ in range(min(BATCH, len(line)))
        ]
        candidates = [
            Candidate(str(number), name, due, 0.0, math.inf, None, "")
            for name, (due, number) in next_in_turn
        ]
        chosen = {one.id for one in fair_share(candidates, BATCH, now)}
        polls = []
        for name, (due, number) in next_in_turn:
            if str(number) not in chosen:
                heapq.heappush(lines[name], (due, number))
                continue
            task = tasks[number]
            age = now - task.submitted_at
            done = task.duration <= age
            polls.append(Observation(task.last_age, age, done, task.duration if done else None))
            if not done:
                task.last_age = age
                heapq.heappush(lines[name], (task.submitted_at + view.next_age(age), number))
            elif DROP_AT + 5 < task.submitted_at + task.duration < DROP_AT + 100:
                delays[task.producer].append(age - task.duration)
        durations = observe(durations, polls)
    return delays


def tables() -> list[tuple[str, str, float, float, str]]:
    """Rows: line, producer, mean, p99, what the study has."""
    study = {
        ("one line", "small"): "8.7 / 34",
        ("a line each", "small"): "1.42 / 4.3",
        ("a line each", "big"): "17.1",
    }
    rows = []
    for name, labelled in (("one line", False), ("a line each", True)):
        runs = [simulate(seed, labelled=labelled) for seed in (1, 2, 3)]
        for producer in ("small", "big"):
            found = [delay for run in runs for delay in run[producer]]
            p99 = statistics.quantiles(found, n=100)[98]
            rows.append(
                (name, producer, statistics.fmean(found), p99, study.get((name, producer), ""))
            )
    return rows


def main() -> None:
    """Print the table."""
    print(f"{'':<14}{'producer':<10}{'mean s':>8}{'p99 s':>8}   study: mean / p99")
    for name, producer, mean, p99, study in tables():
        print(f"{name:<14}{producer:<10}{mean:8.2f}{p99:8.2f}   {study}")


if __name__ == "__main__":
    main()
