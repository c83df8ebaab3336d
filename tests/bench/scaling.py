"""How throughput grows with worker processes, where the workers are the limit and nothing else is.

    .venv/bin/python tests/bench/scaling.py [--share 0.4] [--turns 1,2,1,2] [--ids 18000]

Two cores cannot show it by themselves: one worker, Redis, the emulated API and the receiver take
most of both. So the workers share one core, of which each gets so much and no more, however many
there are (Linux' control groups, which need root); all else has the other core. A backlog of ids
for each worker has ended at the API and is due when the work begins, and Redis writes to memory,
since a disk that syncs slowly would be the limit. Counted is how fast the webhooks of its middle
come, from a tenth to nine tenths. A turn counts only if its workers used all that they may have,
and the other core was not used up: the table shows both.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from capacity import SERVICE, _cpu, _receiver, _started, _wait
from ground import Ground, ground

from cavendish import Client

GROUPS, MEMORY = Path("/sys/fs/cgroup/cpu"), "/dev/shm"  # noqa: S108 (its files are private)
#: Microseconds of a period of a control group.
PERIOD = 10_000
#: The cores of the workers and of all else; seconds of a job at the API, and until all have ended.
WORKERS_ON, REST_ON, MEDIAN, ENDED_AFTER = 0, 1, 0.5, 10.0
#: Ids in one submit, and the part of the backlog at either end that is not counted.
SUBMIT, EDGE = 1000, 0.1


class Turn(NamedTuple):
    """Webhooks in a second; seconds; CPU ms of the workers for each; what part of their shares the
    workers used, and what part of its core all else.
    """

    rate: float
    seconds: float
    cost: float
    used: float
    rest: float


def drain(workers: int, share: float, ids: int) -> Turn:
    """Let so many workers, each with its share of a core, drain `ids` for each of them."""
    os.sched_setaffinity(0, {REST_ON})
    tempfile.tempdir = MEMORY
    options = ["--rate", "100000", "--burst", "1000", "--most-ids", "200", "--seed", "1"]
    with ground([*options, "--median", str(MEDIAN)]) as here, ExitStack() as ends:
        receiver = ends.enter_context(_receiver(here))
        client = ends.enter_context(Client(settings=_started(here, ends, 50, workers)))
        for pid in _pids(here):
            ends.enter_context(_limited(pid, share))
        client.pause("default")
        count, hook = ids * workers, f"{receiver}/tasks/0"
        for start in range(0, count, SUBMIT):
            some = here.create(min(SUBMIT, count - start), "emulated")
            client.submit(some, service=SERVICE, webhook=hook)
        _wait(here, time.time() + ENDED_AFTER)
        client.resume("default")
        began, at, first = _at(here, receiver, count * EDGE)
        ended, later, last = _at(here, receiver, count * (1 - EDGE))
    seconds, arrived = ended - began, last - first
    spent = {name: later[name] - used for name, used in at.items()}
    rest = sum(spent.values()) - spent["worker"]
    used = spent["worker"] / (seconds * share * workers)
    return Turn(arrived / seconds, seconds, spent["worker"] / arrived * 1e3, used, rest / seconds)


def _at(here: Ground, receiver: str, count: float) -> tuple[float, dict[str, float], int]:
    """Wait until so many webhooks came; the time, the CPU seconds of each part, how many came."""
    while True:
        here.check()
        came = httpx.get(f"{receiver}/control/count", trust_env=False).json()["count"]
        if came >= count:
            return time.monotonic(), _cpu(here), came
        time.sleep(0.1)


def _pids(here: Ground) -> list[int]:
    first = json.loads((here.folder / "ours" / "stack.json").read_text())["pids"]["worker"]
    more = [one.pid for name, one in here.processes.items() if name.startswith("worker ")]
    return [first, *more]


@contextmanager
def _limited(pid: int, share: float) -> Iterator[None]:
    """A process that runs on the core of the workers, and gets so much of it."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {WORKERS_ON})
    group = GROUPS / f"cavendish-bench-{pid}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(int(PERIOD * share)))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for one in (group / "cgroup.procs").read_text().split():
            (GROUPS / "cgroup.procs").write_text(one)
        group.rmdir()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=0.4)
    parser.add_argument("--turns", default="1,2,1,2")
    parser.add_argument("--ids", type=int, default=18_000)
    words = parser.parse_args()
    if not os.access(GROUPS, os.W_OK):
        sys.exit(f"{GROUPS} cannot be written: this bench needs root and control groups, version 1")
    sys.stdout.write(f"each worker has {words.share:g} of a core\nworkers | webhooks/s | seconds")
    sys.stdout.write(" | worker CPU ms each | of their shares | of the other core\n")
    rates: dict[int, list[float]] = {}
    for workers in map(int, words.turns.split(",")):
        turn = drain(workers, words.share, words.ids)
        rates.setdefault(workers, []).append(turn.rate)
        row = (str(workers), f"{turn.rate:.0f}", f"{turn.seconds:.0f}", f"{turn.cost:.2f}")
        sys.stdout.write(" | ".join((*row, f"{turn.used:.0%}", f"{turn.rest:.0%}")) + "\n")
        sys.stdout.flush()
    means = {workers: sum(some) / len(some) for workers, some in sorted(rates.items())}
    one = means.get(1, 0.0)
    for workers, mean in means.items():
        if one:
            sys.stdout.write(f"{workers} against 1: {mean / one:.2f}\n")


if __name__ == "__main__":
    main()
