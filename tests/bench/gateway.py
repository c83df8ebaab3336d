"""Waits of the vendor's SDK, unmodified: through the gateway, and at the API itself.

    python tests/bench/gateway.py [--waits 1000] [--each 50] [--shared] [--only through]
        [--arrivals 40] [--seconds 75] [--shares 0,0.5,1] [--batch 50]

Each row has an emulated API of its own, with one token, the same limit and the same durations. The
SDK asks `cavendish up` in the place of the API, and asks the API itself: so many waits begin at
once. It also buys through us, so many tasks a second, of which none, half or all call back; from
WARM_UP on all that finishes is counted. `--each`: waits of one client; each client has a key of its
own, or, `--shared`, all send the one token and count as one client, of which 60 waits are held.
`--batch`: most ids of a call, in the place of the default.

Printed: waits that ended and that were lost; seconds from the finish to the settle (`settle`), and
to the return of the SDK (`mean`, `p99`); calls of the API for each task; requests for each wait;
verdicts that are `wrong`, since they came before the finish or say something else than the record.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from acedatacloud import AceDataCloudError, AsyncAceDataCloud

from cavendish import Client, State
from cavendish.policy.access import ApiKey
from cavendish.store import Store

SERVICE, TOKEN = "nano-banana", "emulated"
#: Seconds of buying before anything is counted: twice what a task takes.
WARM_UP = 30.0
CAVENDISH = [sys.executable, "-m", "cavendish_worker.cli"]


@dataclass
class Seen:
    """What became of the waits; `returned`: when each did, by id."""

    returned: dict[str, float] = field(default_factory=dict)
    lost: int = 0
    requests: int = 0


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=60).raise_for_status()


async def wait_for_all(address: str, tokens: list[str], ids: list[str], waits: int) -> Seen:
    """Wait for ids at an address, with a client for each token."""
    seen = Seen()

    async def count(_: httpx.Request) -> None:
        seen.requests += 1

    clients = [AsyncAceDataCloud(api_token=token, base_url=address) for token in tokens]
    for one in clients:
        one._transport._client.event_hooks["request"].append(count)
    several = enumerate(ids[:waits])
    await asyncio.gather(
        *(wait(clients[n % len(clients)], task_id, seen) for n, task_id in several)
    )
    for one in clients:
        await one.close()
    return seen


async def wait(sdk: AsyncAceDataCloud, task_id: str, seen: Seen) -> None:
    try:
        await sdk.tasks.wait(task_id, service=SERVICE)
    except AceDataCloudError:
        seen.lost += 1
    else:
        seen.returned[task_id] = time.time()


async def buy_and_wait(
    address: str, tokens: list[str], arrivals: float, seconds: float, mark: Callable[[], object]
) -> Seen:
    """Buy tasks evenly, and wait for each; `mark` is called after WARM_UP and after the last one.

    Nobody waits longer than a minute after the last one.
    """
    seen = Seen()
    clients = [AsyncAceDataCloud(api_token=token, base_url=address) for token in tokens]

    async def buy(sdk: AsyncAceDataCloud) -> None:
        handle = await sdk.nano_banana.generate(action="generate", prompt="a banana")
        await wait(sdk, handle.id, seen)

    began, bought = time.monotonic(), list[asyncio.Task[None]]()
    marks = [began + WARM_UP, began + seconds]
    for number in range(int(arrivals * seconds)):
        await asyncio.sleep(max(began + number / arrivals - time.monotonic(), 0.0))
        bought.append(asyncio.create_task(buy(clients[number % len(clients)])))
        if time.monotonic() >= marks[0]:
            await asyncio.to_thread(mark)
            marks.pop(0)
    await asyncio.to_thread(mark)
    await asyncio.wait(bought, timeout=60)
    for one in clients:
        await one.close()
    return seen


def flow(share: str, facts: dict[str, Any], options: argparse.Namespace) -> None:
    """Tasks that are bought through us, of which this share calls back; prints its row."""
    tokens, marks = keys(facts["store"], 20), list[tuple[float, int]]()

    def mark() -> None:
        tally = get(f"{facts['api']}/emulator/tally").json()
        marks.append((time.time(), tally["calls"]))

    buying = buy_and_wait(facts["http"], tokens, options.arrivals, options.seconds, mark)
    seen = asyncio.run(buying)
    (since, before), (until, after) = marks
    rows = get(f"{facts['api']}/emulator/ledger").json()["tasks"]
    told = sum(since <= (row["told_at"] or 0) < until for row in rows)
    finished = {
        row["id"]: row["finished_at"] for row in rows if since <= row["finished_at"] < until
    }
    late = sorted(at - finished[each] for each, at in seen.returned.items() if each in finished)
    row = {"bought": f"{float(share):.0%} call back", "ended": len(late), "lost": seen.lost}
    row |= {
        "unseen": len(finished) - len(late),
        "calls per task": round((after - before) / told, 4),
    }
    row |= {"mean": round(statistics.mean(late), 3), "p99": round(late[len(late) * 99 // 100], 3)}
    print(json.dumps(row), flush=True)
    settled(facts["store"], finished.keys())


def measure(
    name: str, facts: dict[str, Any], options: argparse.Namespace, where: str = "http"
) -> None:
    """One run; prints its row."""
    api, waits, count = facts["api"], options.waits, -(-options.waits // options.each)
    tokens = [TOKEN] * count
    if where == "http" and not options.shared:
        tokens = keys(facts["store"], count)
    told = {"count": waits}
    made = httpx.post(f"{api}/emulator/tasks", json=told, trust_env=False).json()["ids"]
    seen = asyncio.run(wait_for_all(facts[where], tokens, made, waits))
    rows = get(f"{api}/emulator/ledger").json()["tasks"]
    finished = {row["id"]: row["finished_at"] for row in rows}
    late = sorted(at - finished[task_id] for task_id, at in seen.returned.items())
    row = {"waits": name, "ended": len(late), "lost": seen.lost}
    if late:
        row |= {
            "mean": round(statistics.mean(late), 3),
            "p99": round(late[len(late) * 99 // 100], 3),
        }
    calls = get(f"{api}/emulator/tally").json()["calls"]
    row |= {"calls per task": round(calls / waits, 3), "requests": round(seen.requests / waits, 2)}
    print(json.dumps(row), flush=True)


def keys(url: str, count: int) -> list[str]:
    """Keys of so many programs."""
    store = Store(url)
    made = [
        store.api_keys.add(ApiKey(f"app-{n}", "", "", ("submit", "read"))) for n in range(count)
    ]
    store.close()
    time.sleep(3)  # until the service has read them
    return [text for text in made if text]


def settled(store: str, ids: Collection[str] = ()) -> None:
    """Print how long after their finish the tasks of a store were settled: these, or all."""
    with Client(store) as client:
        names = list(ids) or [task.id for task in client.iter()]
        chunks = [names[first : first + 500] for first in range(0, len(names), 500)]
        found = [client.get_many(some, service=SERVICE) for some in chunks]
    tasks = [task for some in found for task in some.values() if task.finished_at]
    late = sorted((task.settled_at or 0) - (task.finished_at or 0) for task in tasks)
    wrong = sum(task.state is not right(task.record) for task in tasks)
    row = {"settle": round(statistics.mean(late), 3), "p99": round(late[len(late) * 99 // 100], 3)}
    print(json.dumps(row | {"wrong": wrong + sum(each < -0.1 for each in late)}), flush=True)


def right(record: Any) -> State:
    return State.SUCCEEDED if record["response"]["success"] else State.FAILED


@contextmanager
def running(*words: str, **environment: str) -> Iterator[None]:
    process = subprocess.Popen(
        [*CAVENDISH, *words],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(40)


@contextmanager
def stack(*words: str, **more: str) -> Iterator[dict[str, Any]]:
    """`cavendish up` with `more` settings; yields the addresses of its parts, and their `pids`."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "CAVENDISH_DATA_DIR": f"{folder}/data",
            "CAVENDISH_FLOWER_PORT": "0",
            "CAVENDISH_HTTP_PORT": "0",
            "CAVENDISH_LOG_LEVEL": "error",
            **more,
        }
        with running("up", "--emulate", "--workers", "1", *words, **environment):
            yield until_up(Path(folder) / "data")


def until_up(folder: Path) -> dict[str, Any]:
    while True:
        try:
            facts: dict[str, Any] = json.loads((folder / "stack.json").read_text())
            get(f"{facts['http']}/readyz")
            get(f"{facts['api']}/emulator/tally")
            return facts
        except (OSError, ValueError, KeyError, httpx.HTTPError):
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--waits", type=int, default=1000)
    parser.add_argument("--each", type=int, default=50)
    parser.add_argument("--rate", type=float, default=6)
    parser.add_argument("--median", type=float, default=15)
    parser.add_argument("--shared", action="store_true", help="one token, so one client")
    parser.add_argument("--arrivals", type=float, default=40, help="tasks bought a second")
    parser.add_argument("--seconds", type=float, default=75, help="of buying")
    parser.add_argument("--shares", default="0,0.5,1", help="of the bought tasks, that call back")
    parser.add_argument("--batch", type=int, default=0, help="most ids of a call")
    parser.add_argument("--only", choices=["through", "bought", "direct"], help="one kind of row")
    options = parser.parse_args()
    api = ["--rate", str(options.rate), "--median", str(options.median)]
    more = {"CAVENDISH_BATCH_SIZE": str(options.batch)} if options.batch else {}
    if options.only in (None, "through"):
        with stack(*api, **more) as facts:
            measure("through us", facts, options)
            settled(facts["store"])
    for share in options.shares.split(",") if options.only in (None, "bought") else ():
        with stack(*api, "--callbacks", share, **more) as facts:
            flow(share, facts, options)
    if options.only in (None, "direct"):
        with stack(*api) as facts:
            measure("direct", facts, options, where="api")


if __name__ == "__main__":
    main()
