"""Waits of the vendor's SDK, unmodified: through the gateway, and at the API itself.

    python tests/bench/gateway.py [--waits 1000] [--each 50] [--shared] [--only through]

Each row has an emulated API of its own, with one token, the same limit and the same durations. The
SDK asks `cavendish up` in the place of the API, buys through it (of the tasks none, half or all
call back), and asks the API itself. `--each`: waits of one client; each client has a key of its
own, or, `--shared`, all send the one token and count as one client, of which 60 waits are held.

Printed: waits that ended and that were lost; seconds from the finish to the settle (`settle`), and
to the return of the SDK (`mean`, `p99`); calls of the API for each task; requests for each wait.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from acedatacloud import AceDataCloudError, AsyncAceDataCloud

from cavendish import Client
from cavendish.policy.access import ApiKey
from cavendish.store import Store

SERVICE, TOKEN = "nano-banana", "emulated"
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
    """Wait for ids at an address, with a client for each token; without ids, buy them before."""
    seen = Seen()

    async def count(_: httpx.Request) -> None:
        seen.requests += 1

    async def wait(sdk: AsyncAceDataCloud, task_id: str) -> None:
        try:
            await sdk.tasks.wait(task_id, service=SERVICE)
        except AceDataCloudError:
            seen.lost += 1
        else:
            seen.returned[task_id] = time.time()

    clients = [AsyncAceDataCloud(api_token=token, base_url=address) for token in tokens]
    if not ids:
        buying = [
            clients[number % len(clients)].nano_banana.generate(
                action="generate", prompt="a banana"
            )
            for number in range(waits)
        ]
        ids = [handle.id for handle in await asyncio.gather(*buying)]
    for one in clients:
        one._transport._client.event_hooks["request"].append(count)
    waiting = [wait(clients[number % len(clients)], task_id) for number, task_id in enumerate(ids)]
    await asyncio.gather(*waiting)
    for one in clients:
        await one.close()
    return seen


def measure(
    name: str, facts: dict[str, str], options: argparse.Namespace, *, buy: bool, where: str = "http"
) -> None:
    """One run; prints its row."""
    api, waits, count = facts["api"], options.waits, -(-options.waits // options.each)
    tokens = [TOKEN] * count
    if where == "http" and not options.shared:
        tokens = keys(facts["store"], count)
    told = {"count": 0 if buy else waits}
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


def settled(store: str) -> None:
    """Print how long after their finish the tasks of a store were settled."""
    with Client(store) as client:
        tasks = [task for task in client.iter() if task.finished_at and task.settled_at]
    late = sorted((task.settled_at or 0) - (task.finished_at or 0) for task in tasks)
    p99 = round(late[len(late) * 99 // 100], 3)
    print(json.dumps({"settle": round(statistics.mean(late), 3), "p99": p99}), flush=True)


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
    parser.add_argument("--only", choices=["through", "bought", "direct"], help="one kind of row")
    options = parser.parse_args()
    api = ["--rate", str(options.rate), "--median", str(options.median)]
    if options.only in (None, "through"):
        with stack(*api) as facts:
            measure("through us", facts, options, buy=False)
            settled(facts["store"])
    for share in ("0", "0.5", "1") if options.only in (None, "bought") else ():
        with stack(*api, "--callbacks", share) as facts:
            name = f"bought, {float(share):.0%} call back"
            measure(name, facts, options, buy=True)
            settled(facts["store"])
    if options.only in (None, "direct"):
        with stack(*api) as facts:
            measure("direct", facts, options, buy=False, where="api")


if __name__ == "__main__":
    main()
