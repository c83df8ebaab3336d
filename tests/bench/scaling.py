"""How throughput grows with worker processes, where the workers are the limit and nothing else is.

    .venv/bin/python tests/bench/scaling.py [--share 0.3] [--workers 1,2] [--seconds 20]

Two cores cannot show it by themselves: one worker, Redis, the emulated API and the receiver take
most of both. So each worker process gets a share of one core, as from a machine that is as much
slower, by Linux' control groups (needs root); all else has the rest. More ids arrive than the
workers can take, and what is counted is webhooks that arrived in a second.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from capacity import MEDIAN, WARM_UP, _cpu, _produce, _receiver, _started, _wait
from ground import Ground, ground

from cavendish import Client

GROUPS = Path("/sys/fs/cgroup/cpu")
#: Microseconds of a period; and ids per second that one worker with a whole core might take.
PERIOD, WHOLE = 10_000, 1500.0


def throughput(workers: int, share: float, seconds: float) -> tuple[float, float]:
    """Webhooks that arrive in a second, and CPU seconds of the workers for each."""
    options = ["--rate", "100000", "--burst", "1000", "--most-ids", "200", "--seed", "1"]
    with ground([*options, "--median", str(MEDIAN)]) as here, ExitStack() as ends:
        receiver = ends.enter_context(_receiver(here))
        client = ends.enter_context(Client(settings=_started(here, ends, 50, workers)))
        for pid in _pids(here):
            ends.enter_context(_limited(pid, share))
        began, stop = time.time(), threading.Event()
        rate, hook = WHOLE * share * workers, f"{receiver}/tasks/0"
        words = (here, client, hook, rate, [], began, stop)
        load = threading.Thread(target=_produce, args=words)
        load.start()
        try:
            _wait(here, began + 2 * WARM_UP)
            used, before = _cpu(here)["worker"], _count(receiver)
            _wait(here, began + 2 * WARM_UP + seconds)
            arrived = _count(receiver) - before
            used = _cpu(here)["worker"] - used
        finally:
            stop.set()
            load.join()
    return arrived / seconds, used / max(arrived, 1)


def _count(receiver: str) -> int:
    return int(httpx.get(f"{receiver}/control/count", trust_env=False).json()["count"])


def _pids(here: Ground) -> list[int]:
    first = json.loads((here.folder / "ours" / "stack.json").read_text())["pids"]["worker"]
    more = [one.pid for name, one in here.processes.items() if name.startswith("worker ")]
    return [first, *more]


@contextmanager
def _limited(pid: int, share: float) -> Iterator[None]:
    """A process that gets so much of one core."""
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
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--seconds", type=float, default=20.0)
    words = parser.parse_args()
    if not os.access(GROUPS, os.W_OK):
        sys.exit(f"{GROUPS} cannot be written: this bench needs root and control groups, version 1")
    first = 0.0
    sys.stdout.write(f"each worker has {words.share:g} of a core\nworkers | webhooks/s | of one")
    sys.stdout.write(" | worker CPU ms each\n")
    for workers in map(int, words.workers.split(",")):
        rate, used = throughput(workers, words.share, words.seconds)
        first = first or rate
        row = (str(workers), f"{rate:.0f}", f"{rate / first:.2f}", f"{used * 1e3:.2f}")
        sys.stdout.write(" | ".join(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
