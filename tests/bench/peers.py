"""Two ways to poll that are in use today, as programs: ids come on stdin, one a line, and are asked
about until finished.

`peers.py sdk URL TOKEN` is the README of the official SDK, one thread per id. `peers.py beat URL
TOKEN` asks about all that is pending every 3 s, in batches. Both end with their stdin; the SDK's
then says in a line of JSON how often `wait` gave up.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
from acedatacloud import AceDataCloud, AceDataCloudError

SERVICE = "nano-banana"
#: Seconds between two polls: what the SDK waits by default, so that all peers look equally often.
EVERY = 3.0
#: Threads of the SDK's program. More ids than this wait for a thread, as in any service that has to
#: bound them.
THREADS = 1000
BATCH = 100


def sdk(url: str, token: str) -> None:
    """`tasks.wait` for each id in a thread of its own.

    Where it gives up (at the third 429 in a row) it is called again.
    """
    client, gave_up = AceDataCloud(api_token=token, base_url=url), 0

    def wait(task_id: str) -> None:
        nonlocal gave_up
        while True:
            try:
                client.tasks.wait(task_id, service=SERVICE, poll_interval=EVERY)
                return
            except AceDataCloudError:
                gave_up += 1
                time.sleep(EVERY)

    pool = ThreadPoolExecutor(THREADS)
    for line in sys.stdin:
        pool.submit(wait, line.strip())
    _leave({"gave_up": gave_up})


def beat(url: str, token: str) -> None:
    """Every 3 s all that is pending, in batches; a 429 is waited out, and the batch asked again."""
    pending: dict[str, None] = {}

    def read() -> None:
        for line in sys.stdin:
            pending[line.strip()] = None
        _leave()

    threading.Thread(target=read, daemon=True).start()
    with httpx.Client(
        base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=30, trust_env=False
    ) as http:
        while True:
            began = time.monotonic()
            ids = list(pending)
            for first in range(0, len(ids), BATCH):
                for task_id in _finished(http, ids[first : first + BATCH]):
                    del pending[task_id]
            time.sleep(max(began + EVERY - time.monotonic(), 0.0))


def _finished(http: httpx.Client, ids: list[str]) -> list[str]:
    question = {"action": "retrieve_batch", "ids": ids, "limit": len(ids)}
    while (answer := http.post(f"/{SERVICE}/tasks", json=question)).status_code == 429:
        time.sleep(float(answer.headers.get("retry-after", 1)))
    answer.raise_for_status()
    return [item["id"] for item in answer.json()["items"] if item.get("finished_at")]


def _leave(facts: dict[str, int] | None = None) -> None:
    """End at once, with all threads: most of them are asleep."""
    if facts:
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    programs: dict[str, Callable[[str, str], None]] = {"sdk": sdk, "beat": beat}
    programs[sys.argv[1]](sys.argv[2], sys.argv[3])
