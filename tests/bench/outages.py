"""Waits of the vendor's SDK, unmodified, while something breaks for real in the middle of them.

    python tests/bench/outages.py [--waits 100] [--seconds 60] [--only redis]

Each row has a stack of its own: an emulated API of 6 calls/s, tasks of 15 s. Three seconds after
the waits began, the API answers every call with 429 or 500 for so many seconds, or Redis, the
worker or the HTTP service is killed (`cavendish up` starts it again). The rows `direct` have the
SDK ask the API itself.

Printed: waits that ended and that were lost; the longest one, in seconds after its finish.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import httpx
from gateway import TOKEN, Seen, get, keys, stack, wait_for_all

#: Seconds from the first wait to what breaks.
AFTER = 3.0
API = ["--rate", "6", "--median", "15"]
Facts = dict[str, Any]


def outage(status: int, seconds: float) -> Callable[[Facts], None]:
    """The API answers all calls with a status for so many seconds."""

    def begin(facts: Facts) -> None:
        told = {"status": status, "seconds": seconds}
        httpx.post(f"{facts['api']}/emulator/outage", json=told, trust_env=False)

    return begin


def killed(part: str) -> Callable[[Facts], None]:
    return lambda facts: os.kill(facts["pids"][part], signal.SIGKILL)


def row(name: str, breaks: Callable[[Facts], None], waits: int, *, where: str = "http") -> None:
    """One run; prints its row."""
    with stack(*API) as facts:
        made = httpx.post(f"{facts['api']}/emulator/tasks", json={"count": waits}, trust_env=False)
        count = -(-waits // 50)
        tokens = keys(facts["store"], count) if where == "http" else [TOKEN] * count

        async def run() -> Seen:
            waiting = asyncio.create_task(
                wait_for_all(facts[where], tokens, made.json()["ids"], waits)
            )
            await asyncio.sleep(AFTER)
            await asyncio.to_thread(breaks, facts)
            return await waiting

        began = time.time()
        seen = asyncio.run(run())
        ledger = get(f"{facts['api']}/emulator/ledger").json()["tasks"]
        finished = {one["id"]: one["finished_at"] for one in ledger}
    late = [at - finished[task_id] for task_id, at in seen.returned.items()]
    said = {"in the middle": name, "waits": waits, "ended": len(late), "lost": seen.lost}
    said |= {"latest": round(max(late, default=0.0), 1), "all": round(time.time() - began, 1)}
    print(json.dumps(said), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--waits", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", help="rows whose name has this word")
    options = parser.parse_args()
    outages = {
        f"the API answers {status} for {options.seconds:g} s": outage(status, options.seconds)
        for status in (429, 500)
    }
    kills = {f"{part} is killed": killed(part) for part in ("redis", "worker", "http")}
    for name, breaks in (outages | kills).items():
        if not options.only or options.only in name:
            row(name, breaks, options.waits)
    for name, breaks in outages.items():
        if not options.only or options.only in "direct":
            row(f"direct, {name}", breaks, options.waits, where="api")


if __name__ == "__main__":
    main()
