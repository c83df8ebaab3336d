"""What a producer who names services that the API does not know costs the others, and what quiet
lanes cost Redis. Prints only; in about 10 minutes.

    python tests/bench/strangers.py [--names 200,2000] [--pairs 2] [--only shares,idle,alerts]

Shares: 100 real ids of one producer, at an emulated API of 6 calls/s; alone, and 20 s after another
producer has submitted an id to each of 200 (2,000) services of which the API knows nothing. Each id
is timed from its finish at the API to its webhook. Idle: the commands per second that Redis gets
from a whole stack, with no lane, with 2,000 quiet ones, and with these and operator alerts
(CAVENDISH_OPERATIONS_WEBHOOK): in one half of the lanes all ids have ended, in the other half they
wait for a paused account.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
from ground import NOTHING, Ground, ground

from cavendish import Client
from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store
from conftest import http_server

REAL, RATE, BURST, BATCH, SERVICE, TOKEN = 100, 6.0, 5.0, 50, "nano-banana", "ours"
SECRET = "whsec_" + "A" * 43 + "="
#: Seconds: between the strangers and the real ids, the longest wait for these, until the idle stack
#: has settled, and for which its commands are counted.
AHEAD, LONGEST, SETTLES, COUNTED = 20.0, 120.0, 30.0, 60.0
QUIET = 2000


class Arrivals:
    """A receiver that notes when the webhook of each id came first."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}

    async def handle(self, request: httpx.Request) -> httpx.Response:
        event = json.loads(await request.aread())
        self.at.setdefault(event["data"]["id"], time.time())
        return httpx.Response(204)


@contextmanager
def stack(here: Ground, more: Mapping[str, str] = NOTHING) -> Iterator[Client]:
    """The whole stack on an empty Redis, with these settings besides, and a client of it."""
    data = here.folder / "ours"
    settings = {
        "CAVENDISH_REDIS_URL": here.redis(0),
        "CAVENDISH_BROKER_URL": here.redis(0),
        "CAVENDISH_DATA_DIR": str(data),
        "CAVENDISH_API_URL": here.api,
        "CAVENDISH_API_TOKEN": TOKEN,
        "CAVENDISH_BATCH_SIZE": str(BATCH),
        "CAVENDISH_SERVICES": "*",
        "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8",
        "CAVENDISH_WEBHOOK_SECRET": SECRET,
        **more,
    }
    command = [sys.executable, "-m", "cavendish_worker.cli", "up", "--no-flower"]
    with here.running("ours", command, settings), Client(settings=Settings.load(settings)) as one:
        here.wait_for((data / "stack.json").exists)
        time.sleep(5)  # Celery's worker does not say when it is ready
        yield one


def announced(names: int) -> list[float]:
    """Seconds from the finish of each real id to its webhook, beside so many strangers."""
    options = ["--rate", f"{RATE:g}", "--burst", f"{BURST:g}", "--token", TOKEN, "--seed", "1"]
    arrivals = Arrivals()
    with ExitStack() as ends:
        here = ends.enter_context(ground(options, {"CAVENDISH_SERVICES": "*"}))
        receiver = f"{ends.enter_context(http_server(arrivals.handle))}/hook"
        client = ends.enter_context(stack(here))
        for number in range(names):
            client.submit(
                [f"bogus-{number}"],
                service=f"bogus{number}",
                deadline=3600,
                producer="careless",
                webhook=receiver,
            )
        time.sleep(AHEAD)
        ids = here.create(REAL, TOKEN)
        client.submit(ids, service=SERVICE, webhook=receiver, producer="careful")
        until = time.monotonic() + LONGEST
        while time.monotonic() < until and not arrivals.at.keys() >= set(ids):
            time.sleep(0.2)
            here.check()
        jobs = {job["id"]: job["finished_at"] for job in here.ask("ledger", TOKEN)["tasks"]}
        answers = here.ask("tally", TOKEN)["answers"]
        print(f"    {names:>5} strangers: the API answered {answers}", flush=True)
        return [arrivals.at[each] - jobs[each] for each in ids if each in arrivals.at]


def shares(names: int, pairs: int) -> None:
    """Alone and beside strangers, in turns."""
    ratios = []
    for _ in range(pairs):
        p95s = []
        for strangers in (0, names):
            delays = announced(strangers)
            cut = statistics.quantiles(delays, n=20) if len(delays) > 1 else [float("nan")] * 19
            print(
                f"{strangers:>5} strangers: {len(delays)} of {REAL} announced, "
                f"p50 {cut[9]:.2f} s, p95 {cut[18]:.2f} s",
                flush=True,
            )
            p95s.append(cut[18])
        ratios.append(p95s[1] / p95s[0])
    print(f"p95 beside {names} strangers / alone: {', '.join(f'{one:.2f}' for one in ratios)}")


def quiet(client: Client, store: Store) -> None:
    """Fill the store with quiet lanes."""
    now = store.fleet.now()
    store.shared_state.change_rate_limit(
        "default", lambda known: (replace(known, paused_until=now + 3600, pause_reason="x"), None)
    )
    for number in range(QUIET):
        service = f"quiet{number}"
        client.submit([f"id-{number}"], service=service, deadline=7200)
        if number % 2:
            end(store, Lane("default", service), f"id-{number}")


def end(store: Store, lane: Lane, task_id: str) -> None:
    """End one id, as a retrieve does."""
    now = store.fleet.now()
    store.tasks.claim(lane, now + 60, "bench", store.tasks.candidates(lane, now + 3600, 1))
    task = store.tasks.load(lane, [task_id]).tasks[task_id]
    outcome = Outcome(task, State.SUCCEEDED, record={"id": task_id})
    store.tasks.settle(lane, "bench", now, [(outcome, now)], 7 * 86400, 1000)


def idle(*, lanes: bool, alerts: bool = False) -> None:
    """Commands per second of a stack that has nothing to do."""
    # Nobody listens there, as there is nothing to tell.
    more = {"CAVENDISH_OPERATIONS_WEBHOOK": "http://127.0.0.1:9/alerts"} if alerts else NOTHING
    with ExitStack() as ends:
        here = ends.enter_context(ground(["--token", TOKEN]))
        client = ends.enter_context(stack(here, more))
        store = Store(here.redis(0))
        if lanes:
            quiet(client, store)
        time.sleep(SETTLES)
        before, began = _commands(store), time.monotonic()
        time.sleep(COUNTED)
        seconds, after = time.monotonic() - began, _commands(store)
        store.close()
    each = {name: (after[name] - before.get(name, 0)) / seconds for name in after}
    each.pop("info", None)
    most = sorted(each.items(), key=lambda row: -row[1])[:8]
    what = "quiet lanes and alerts" if alerts else "quiet lanes"
    print(
        f"{QUIET if lanes else 0:>5} {what}: {sum(each.values()):.1f} commands/s "
        f"({', '.join(f'{name} {rate:.1f}' for name, rate in most)})",
        flush=True,
    )


def _commands(store: Store) -> dict[str, int]:
    stats = store.connection.redis.info("commandstats")
    return {
        name.removeprefix("cmdstat_"): row["calls"]
        for name, row in stats.items()
        if "|" not in name
    }


def main(words: Sequence[str] | None = None) -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", default="200,2000")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--only", default="shares,idle,alerts")
    options = parser.parse_args(words)
    if "idle" in options.only:
        idle(lanes=False)
        idle(lanes=True)
    if "alerts" in options.only:
        idle(lanes=True, alerts=True)
    for names in map(int, options.names.split(",") if "shares" in options.only else ()):
        shares(names, options.pairs)


if __name__ == "__main__":
    main()
