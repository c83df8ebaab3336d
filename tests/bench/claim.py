"""What a claim, a tick and a scrape cost with a million pending ids in one lane, in a real Redis.

python tests/bench/claim.py [--ids 1000000]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cavendish.model import Lane
from cavendish.policy.fair_share import fair_share
from cavendish.policy.rate_limit import RateLimit
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish.submission import SubmitOptions
from cavendish_worker.polling.dispatch import Dispatcher
from cavendish_worker.polling.dispatch_round import Dispatched, RoundConfig, Rounds
from cavendish_worker.telemetry.metrics import scraped, serving
from conftest import Server

LANE = Lane("default", "nano-banana")
CONFIG = RoundConfig(batch_size=50, lease=120.0, rate=0.0)
ROUNDS = 200
#: Ids that are submitted one by one, and JSON lines that the command gets.
ALONE, LINES = 20_000, 20_000


def fill(store: Store, count: int) -> float:
    """Submit `count` ids as producers do; returns the seconds it took."""
    now, started = store.fleet.now(), time.perf_counter()
    options = SubmitOptions(
        "nano-banana", "default", ("https://example.com/hook",), 86400.0, "", "", "", restart=False
    )
    for start in range(0, count, 20_000):
        ids = [
            f"00000000-0000-4000-8000-{number:012d}"
            for number in range(start, min(start + 20_000, count))
        ]
        store.tasks.add(ids, options, now - 60, now - 30 + start / count * 20)
    return time.perf_counter() - started


def microseconds_in_redis(store: Store) -> float:
    """Time that Redis has spent inside commands so far."""
    stats = store.connection.redis.info("commandstats")
    return sum(row["usec"] for name, row in stats.items() if "|" not in name)


def claims(store: Store) -> tuple[list[float], list[float]]:
    """Per claimed batch of 50: milliseconds inside Redis, and on the wall."""
    inside, wall = [], []
    for number in range(ROUNDS):
        before, started = microseconds_in_redis(store), time.perf_counter()
        now = store.fleet.now()
        batch = fair_share(store.tasks.candidates(LANE, now, 50), 50, now)
        taken = store.tasks.claim(LANE, now + 120, f"bench{number}", batch)
        wall.append((time.perf_counter() - started) * 1e3)
        inside.append((microseconds_in_redis(store) - before) / 1e3)
        assert len(taken) == 50
    return inside, wall


def ticks(store: Store) -> list[float]:
    """Milliseconds of one round of the dispatch, which weighs, asks the rate limit and claims."""
    dispatcher, spent = (
        Dispatcher(store, Rounds(store, Forecasts(store.shared_state), CONFIG), 0.25),
        [],
    )
    for _ in range(ROUNDS):
        store.shared_state.change_rate_limit("default", lambda _: (RateLimit(), None))
        did, now = Dispatched(), store.fleet.now()
        started = time.perf_counter()
        dispatcher.run_round(frozenset({"default"}), now, lambda *_: None, did)
        spent.append((time.perf_counter() - started) * 1e3)
        assert did.batches == 1
    return spent


def scrapes(store: Store) -> list[float]:
    """Milliseconds of one `cavendish metrics`, once it runs."""
    registry, spent = scraped.registry_of(store, CONFIG.batch_size), []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        serving.text(registry)
        spent.append((time.perf_counter() - started) * 1e3)
    return spent


def bytes_one_by_one(store: Store) -> float:
    """Memory of a pending id with one webhook that was submitted alone."""
    before, now = store.connection.redis.info("memory")["used_memory"], store.fleet.now()
    options = SubmitOptions(
        "flux", "default", ("https://example.com/hook",), 86400.0, "", "", "", restart=False
    )
    for number in range(ALONE):
        at = round(now + number / 100, 3)
        store.tasks.add([f"00000000-0000-4000-8000-{number:012d}"], options, at, at)
    return float(store.connection.redis.info("memory")["used_memory"] - before) / ALONE


def lines_a_second(url: str) -> float:
    """How fast the command takes JSON lines with metadata of their own, its start included."""
    ids = (f"00000000-0000-4000-8000-{number:012d}" for number in range(LINES))
    lines = [json.dumps({"id": each, "metadata": {"order": each}}) for each in ids]
    words = [sys.executable, "-m", "cavendish_worker.cli", "submit", "--service", "veo", "-"]
    began = time.perf_counter()
    subprocess.run(
        words,
        input="\n".join(lines),
        env=os.environ | {"CAVENDISH_REDIS_URL": url},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return LINES / (time.perf_counter() - began)


def tables(count: int = 1_000_000) -> list[tuple[str, str, str]]:
    """Rows: what, median, 99th percentile."""
    server = Server()
    server.start()
    try:
        store = Store(server.url)
        seconds = fill(store, count)
        memory = store.connection.redis.info("memory")["used_memory"] / count
        inside, wall = claims(store)
        rounds, asked = ticks(store), scrapes(store)
        one_by_one = bytes_one_by_one(store)
        lines = lines_a_second(server.url)
    finally:
        server.close()
    rows = [
        ("submit, ids/s", f"{count / seconds:,.0f}", ""),
        ("JSON lines with metadata of their own, lines/s", f"{lines:,.0f}", ""),
        ("memory, bytes per pending id with one webhook", f"{memory:.0f}", ""),
        ("the same, submitted one by one", f"{one_by_one:.0f}", ""),
    ]
    measured = {
        "claim of 50, ms in Redis": inside,
        "claim of 50, ms on the wall": wall,
        "tick, ms": rounds,
    }
    for name, values in (measured | {"scrape of the store, ms": asked}).items():
        rows.append(
            (
                name,
                f"{statistics.median(values):.2f}",
                f"{statistics.quantiles(values, n=100)[98]:.2f}",
            )
        )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ids", type=int, default=1_000_000)
    count = parser.parse_args().ids
    print(f"{count:,} pending ids in one lane".ljust(52), "median".rjust(10), "p99".rjust(10))
    for name, median, p99 in tables(count):
        print(name.ljust(52), median.rjust(10), p99.rjust(10))


if __name__ == "__main__":
    main()
