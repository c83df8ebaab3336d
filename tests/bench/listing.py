"""What it costs to list, to cancel and to forget, in a real Redis that syncs every write.

python tests/bench/listing.py [--ids 25000] [--wrong 100000]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from cavendish import Client, Filter
from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from conftest import Server

LANE = Lane("default", "nano-banana")
#: Ids that arrive while pages are read, and ids of one page.
ARRIVING, PAGE = 5000, 500
#: A record of about the size that the API sends.
IMAGE = {"image_urls": ["https://cdn.example.com/" + "x" * 400] * 3}


def ids(name: str, count: int) -> list[str]:
    return [f"{name}-0000-4000-8000-{number:012d}" for number in range(count)]


def end(store: Store, some: list[str]) -> None:
    """End ids without webhooks, each with its record."""
    for start in range(0, len(some), PAGE):
        now, chunk = store.fleet.now(), some[start : start + PAGE]
        store.tasks.seize(LANE, chunk, now, "t")
        tasks = store.tasks.load(LANE, chunk, token="t").tasks.values()
        outcomes = [
            (Outcome(task, State.SUCCEEDED, record={"id": task.id, "response": IMAGE}), now)
            for task in tasks
        ]
        store.tasks.settle(LANE, "t", now, outcomes, 86400.0, 10_000)


def in_redis(store: Store) -> float:
    """Milliseconds that Redis has spent inside commands so far."""
    stats: Any = store.connection.redis.info("commandstats")
    return float(sum(row["usec"] for name, row in stats.items() if "|" not in name) / 1000)


@contextmanager
def printed(store: Store, what: str, count: int) -> Iterator[None]:
    inside, started = in_redis(store), time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    print(f"{what:<50} {seconds:7.2f} s, {in_redis(store) - inside:9.1f} ms in Redis ({count:,})")


def list_all(client: Client, store: Store, count: int) -> None:
    """Pages of 500 with records, while others come."""
    inside, wall, seen = list[float](), list[float](), list[str]()
    cursor, first = None, True
    while first or cursor:
        before, started = in_redis(store), time.perf_counter()
        page = client.list(cursor=cursor, limit=PAGE, with_record=True)
        wall.append((time.perf_counter() - started) * 1000)
        inside.append(in_redis(store) - before)
        seen += [task.id for task in page.items if task.record]
        cursor, first = page.next, False
        arrived = (len(wall) - 1) * ARRIVING * PAGE // count
        client.submit(ids(f"arr{arrived:05}", ARRIVING * PAGE // count), service=LANE.service)
    worst = f"median {sorted(inside)[len(inside) // 2]:.1f}, most {max(inside):.1f}"
    print(f"{'ended ids with records, each exactly once':<50} {len(seen):,} of {count:,}", end=", ")
    print(f"{len(seen) - len(set(seen))} twice")
    print(f"{f'a page of {PAGE} with records, ms in Redis':<50} {worst}")
    print(f"{'the same on the wall, ms':<50} median {sorted(wall)[len(wall) // 2]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=25_000)
    parser.add_argument("--wrong", type=int, default=100_000)
    chosen = parser.parse_args()
    server = Server()
    server.start()
    try:
        store, client = Store(server.url), Client(server.url)
        client.submit(known := ids("aaaaaaaa", chosen.ids), service=LANE.service)
        end(store, known)
        redis: Any = store.connection.redis
        index = sum(redis.memory_usage(key, samples=0) for key in redis.keys("*:minute*"))
        print(f"{'index, bytes per retained id':<50} {index / chosen.ids:.1f}")
        list_all(client, store, chosen.ids)
        wrong = Filter(producer="careless")
        hooks = ["https://example.com/hook"]
        for name, webhook in (("no webhook", None), ("one webhook", hooks)):
            some = ids(f"{name[:2]}bbbbbb", chosen.wrong)
            client.submit(some, service=LANE.service, producer="careless", webhook=webhook)
            pending = Filter(producer="careless", state="pending")
            with printed(store, f"count ids by filter, {name}", client.count(pending)):
                client.count(pending)
            with printed(store, f"cancel them, {name}", chosen.wrong):
                client.cancel(wrong)
        with printed(store, "forget 1,000 of them", 1000):
            client.forget(some[:1000], service=LANE.service)
    finally:
        server.kill()


if __name__ == "__main__":
    main()
