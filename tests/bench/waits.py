"""What a thousand waits at once cost, and how long after the settle of its id each wakes.

python tests/bench/waits.py [--waits 1000]

The ends are written by the store's own settle in another process, 50 in each, at full speed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from cavendish import AsyncClient, Client
from cavendish.model import Lane
from cavendish.store import Store
from conftest import Server
from ending import settle

LANE = Lane("default", "nano-banana")
#: Ids of one settle, seconds after which all wait, and seconds for which nothing ends then.
BATCH, WAITING, QUIET = 50, 2.0, 5.0
#: By id the moment of its settle, and that of its wake, by the monotonic clock of the machine.
Moments = dict[str, float]


class Run:
    """One way of waiting: what was measured of it."""

    def __init__(self, url: str, ids: list[str]) -> None:
        self.url, self.ids, self.woke = url, ids, Moments()
        self.threads, self.calls, self.settled = 0, 0.0, Moments()

    def sample(self) -> None:
        self.threads = max(self.threads, threading.active_count())

    def over(self) -> bool:
        return len(self.woke) == len(self.ids)

    def settling(self) -> subprocess.Popen[str]:
        """Another process that settles all ids once they have waited for a while."""
        words = [sys.executable, __file__, "--settle", self.url, "--waits", str(len(self.ids))]
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def take(self, said: str) -> None:
        found = json.loads(said)
        self.settled, self.calls = found["settled"], found["calls"]

    def row(self) -> tuple[str, ...]:
        late = sorted((self.woke[each] - self.settled[each]) * 1e3 for each in self.ids)
        quantiles = (statistics.median(late), statistics.quantiles(late, n=100)[98], late[-1])
        numbers = (f"{number:,.1f}" for number in quantiles)
        return (f"{self.threads:,}", f"{self.calls:,.1f}", *numbers)


def settle_all(url: str, count: int) -> None:
    """In the other process: settle ids, and print when each was."""
    store, settled = Store(url), Moments()
    time.sleep(WAITING)
    before = calls(store)
    time.sleep(QUIET)
    quiet = (calls(store) - before) / QUIET
    for ids in batches([f"id-{number}" for number in range(count)]):
        settle(store, LANE, *ids)
        settled |= dict.fromkeys(ids, time.monotonic())
    print(json.dumps({"settled": settled, "calls": quiet}))


def calls(store: Store) -> int:
    """How often Redis was asked for the state of ids, or for what ended."""
    asked: Any = store.connection.redis.info("commandstats")
    return sum(asked.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "xread"))


def batches(ids: list[str]) -> list[list[str]]:
    return [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]


def by_tasks(run: Run) -> None:
    """A task of asyncio for each wait."""

    async def wait(client: AsyncClient, task_id: str) -> None:
        await client.wait([task_id], service=LANE.service)
        run.woke[task_id] = time.monotonic()

    async def story() -> None:
        async with AsyncClient(run.url) as client:
            await client.submit(run.ids, service=LANE.service)
            tasks = [asyncio.create_task(wait(client, each)) for each in run.ids]
            process = run.settling()
            while not run.over():
                run.sample()
                await asyncio.sleep(0.005)
            await asyncio.gather(*tasks)
            run.take(process.communicate()[0])

    asyncio.run(story())


def by_threads(run: Run) -> None:
    """A thread for each wait."""

    def wait(client: Client, task_id: str) -> None:
        client.wait([task_id], service=LANE.service)
        run.woke[task_id] = time.monotonic()

    with Client(run.url) as client:
        client.submit(run.ids, service=LANE.service)
        for each in run.ids:
            threading.Thread(target=wait, args=(client, each), daemon=True).start()
        process = run.settling()
        while not run.over():
            run.sample()
            time.sleep(0.005)
        run.take(process.communicate()[0])


#: The rows of the table.
WAYS: dict[str, Callable[[Run], None]] = {
    "AsyncClient.wait, a task each": by_tasks,
    "Client.wait, a thread each": by_threads,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--waits", type=int, default=1000)
    parser.add_argument("--settle", metavar="URL", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.settle:
        settle_all(told.settle, told.waits)
        return
    names = ("threads", "calls of Redis/s", "wake p50, ms", "p99", "max")
    print(f"{told.waits:,} waits at once".ljust(32), *(name.rjust(16) for name in names))
    for name, way in WAYS.items():
        server = Server()
        server.start()
        try:
            run = Run(server.url, [f"id-{number}" for number in range(told.waits)])
            way(run)
            print(name.ljust(32), *(number.rjust(16) for number in run.row()))
        finally:
            server.close()


if __name__ == "__main__":
    main()
