"""The whole system against three ways to poll that are in use today: real time, real Redis, real
Celery, one emulated API.

    .venv/bin/python tests/bench/whole.py [--minutes 6] [--together] [--only ours,beat] [--json
    FILE]

Each contestant has a token of its own at the same emulated API, a hidden limit of its own that goes
6 -> 3 -> 6 calls/s, and a stream of tasks that is equal for all: Poisson arrivals, about 1,000 in
flight. All is measured at the API, equally for all: a task is detected with the first answer that
told that it was finished. The contestants that batch run first, side by side; those that ask about
one id per call run after them, with the same load, because their refused calls keep a small machine
busy, which is no merit of the others. `--together` runs all at once.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from contestants import BATCH, CONTESTANTS, ROUNDS, SERVICE, HandOver, settings_of_ours
from ground import Ground, ground
from score import Mark, Row, row, spread, table

from cavendish import Client

#: Seconds that a task takes: lognormal, with this median and this sigma; their mean; and how many
#: are in flight.
MEDIAN, SIGMA, MEAN, IN_FLIGHT = 15.0, 0.5, 17.0, 1000
#: The hidden limit in calls per second, a third of the time each; and how many calls it lets
#: through at once after a rest.
LIMITS, BURST = (6.0, 3.0, 6.0), 5
#: Seconds at the beginning that count for nobody; and at the end, in which load goes on and what
#: had finished may still be seen.
WARM_UP, GRACE = 30.0, 10.0
#: Seconds that Celery's workers get to be ready before the load begins: they do not say when they
#: are.
START = 5.0
#: Arrivals are made in slots of so many seconds, by one and the same chance for each contestant.
SLOT, SEED = 0.1, 20261122

Say = Callable[[str], object]


def tables(
    minutes: float = 6.0,
    *,
    together: bool = False,
    only: Sequence[str] | None = None,
    say: Say = lambda _: None,
) -> list[Row]:
    """Run it all; returns a row for each contestant (see `score.row`)."""
    names = [one.name for one in CONTESTANTS if only is None or one.name in only]
    rounds = [names] if together else [[name for name in names if name in some] for some in ROUNDS]
    seconds = minutes * 60
    with ground(_api(seconds)) as here:
        return [one for some in rounds if some for one in _round(here, some, seconds, say)]


def _api(seconds: float) -> list[str]:
    """The options of the emulated API."""
    options = {
        "rate": LIMITS[0],
        "burst": BURST,
        "median": MEDIAN,
        "sigma": SIGMA,
        "most-ids": BATCH,
        "seed": SEED,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    for number, limit in enumerate(LIMITS[1:], start=1):
        words += ["--later", f"{number * seconds / len(LIMITS)}:{limit}"]
    return words + [word for one in CONTESTANTS for word in ("--token", one.name)]


def _round(here: Ground, names: Sequence[str], seconds: float, say: Say) -> list[Row]:
    """Some contestants side by side."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(names)) as pool, ExitStack() as ends:
        feeds = {one.name: one.start(here, ends) for one in CONTESTANTS if one.name in names}
        ends.callback(stop.set)
        time.sleep(START)
        began = time.time()
        say(f"{time.strftime('%H:%M:%S')}  {seconds / 60:g} min of load on {', '.join(names)}")
        producers = [
            pool.submit(_produce, here, name, feed, began, stop) for name, feed in feeds.items()
        ]
        _watch(here, producers, began + WARM_UP)
        before = _mark(here, names)
        _watch(here, producers, began + seconds)
        after = _mark(here, names)
        _watch(here, producers, began + seconds + GRACE)
        ledgers = {name: here.ask("ledger", name)["tasks"] for name in names}
        stop.set()
        steps = [began + number * seconds / len(LIMITS) for number in range(1, len(LIMITS))]
        rows = [row(name, ledgers[name], before, after, steps) for name in names]
        for one, producer in zip(rows, producers, strict=True):
            one["producer_late"] = producer.result(30)
            if one["contestant"] == "ours":
                one["settled"] = _settled(here, ledgers["ours"], before.at, after.at)
        say(_usage(before, after))
    for one in rows:  # now that they have ended, and said their last
        one.update(_said(here, one["contestant"]))
    return rows


def _said(here: Ground, name: str) -> dict[str, Any]:
    """What only the contestant knew, if it said anything: a line of JSON at its end."""
    return next(
        (json.loads(line) for line in here.last_words(name) if line.startswith('{"gave_up"')), {}
    )


def _produce(
    here: Ground, name: str, hand_over: HandOver, began: float, stop: threading.Event
) -> float:
    """Make tasks and hand them over until told to stop.

    Returns by how many seconds it was late at worst.
    """
    chance, slot, late = random.Random(SEED), 0, 0.0
    arrives_at = chance.expovariate(IN_FLIGHT / MEAN)
    while not stop.wait(max(began + slot * SLOT - time.time(), 0.0)):
        late = max(late, time.time() - began - slot * SLOT)
        count, slot = 0, slot + 1
        while arrives_at < slot * SLOT:
            count, arrives_at = count + 1, arrives_at + chance.expovariate(IN_FLIGHT / MEAN)
        if count:
            hand_over(here.create(count, name))
    return late


def _watch(here: Ground, producers: Sequence[Future[float]], until: float) -> None:
    """Wait, and raise as soon as something ended that should run."""
    while time.time() < until:
        here.check()
        for producer in producers:
            if producer.done():
                producer.result()
        time.sleep(0.1)


def _mark(here: Ground, names: Sequence[str]) -> Mark:
    return Mark(time.time(), {name: here.ask("tally", name) for name in names}, here.cpu())


def _settled(
    here: Ground, tasks: Sequence[dict[str, Any]], since: float, until: float
) -> dict[str, float | None]:
    """Seconds from the finish of a task to its terminal state in our store."""
    ids = [task["id"] for task in tasks if since <= task["finished_at"] < until]
    with Client(settings=settings_of_ours(here)) as client:
        chunks = [ids[first : first + 500] for first in range(0, len(ids), 500)]
        known = [
            task
            for some in chunks
            for task in client.get_many(some, service=SERVICE, with_record=False).values()
        ]
    return spread(
        [
            task.settled_at - task.finished_at
            for task in known
            if task.settled_at and task.finished_at
        ]
    )


def _usage(before: Mark, after: Mark) -> str:
    """Who kept the cores busy: beyond 0.9 a Python process is bound by its one core."""
    cores = {
        name: (after.cpu[name] - used) / (after.at - before.at)
        for name, used in before.cpu.items()
        if name in after.cpu
    }
    if "machine" not in cores:
        return "CPU: not known on this system"
    machine = cores.pop("machine")
    cores["others on this machine"] = machine - sum(cores.values())
    return f"  cores busy {machine:.2f} of {os.cpu_count()}: " + ", ".join(
        f"{name} {used:.2f}" for name, used in cores.items()
    )


def _report(rows: Sequence[Row], say: Say) -> None:
    say("")
    say(table(rows))
    say("")
    for contestant in CONTESTANTS:
        say(f"{contestant.name:7s} {contestant.what}")
    say(
        "x ours: against ours. missed: finished, but not told by the end. calls/task: calls per "
        "task told in the same time. mean,"
    )
    say(
        "p50, p95, p99: seconds from finish to detection, of those detected; >= mean: the missed "
        "as if they were told at the end."
    )
    say(
        "By phase: 6, 3 and 6 calls/s allowed. cores: CPU seconds per second; a Python process has "
        "1 at most."
    )
    for one in rows:
        if "settled" in one:
            said = " / ".join(
                "-" if value is None else f"{value:.2f}" for value in one["settled"].values()
            )
            say(
                f"ours, from finish to the terminal state in the store: mean / p50 / p95 / p99 "
                f"{said} s"
            )
        if "gave_up" in one:
            say(
                f"{one['contestant']}: tasks.wait raised RateLimitError {one['gave_up']} times, "
                f"and was called again 3 s later"
            )
        if one["producer_late"] > 1:
            say(f"{one['contestant']}: its load came up to {one['producer_late']:.1f} s late")
    today = dt.datetime.now(dt.UTC).date()
    say(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"{platform.platform()}, {today}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=6.0, help="length of each round (default 6, at least 1)"
    )
    parser.add_argument("--together", action="store_true", help="all contestants at once")
    parser.add_argument(
        "--only", help="some contestants, with commas: " + ",".join(one.name for one in CONTESTANTS)
    )
    parser.add_argument("--json", type=Path, help="also write the rows into this file")
    words = parser.parse_args()
    if words.minutes < 1:
        parser.error("the warm-up alone takes half a minute")
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that everything is ended on the way out

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        rows = tables(
            words.minutes,
            together=words.together,
            only=words.only and words.only.split(","),
            say=say,
        )
    except KeyboardInterrupt:
        sys.exit(130)
    _report(rows, say)
    if words.json:
        words.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
