"""How many batches a second dispatchers send: real Redis, real messages, an API without a limit.

python tests/bench/dispatching.py [--seconds 5]

Nobody takes the messages, so this is the dispatch alone. One account has one dispatcher at a time;
several accounts are dispatched by several workers at once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cavendish.policy.rate_limit import RateLimit
from cavendish.store import Store
from cavendish.submission import SubmitOptions
from conftest import Server

SERVICE = "nano-banana"
#: Calls per second that the API allows, and ids of each account for a second of one run.
RATE, IDS = 1000.0, 25_000
ACCOUNTS = [f"a{number}" for number in range(8)]


def fill(store: Store, accounts: list[str], seconds: float) -> None:
    """Give each account so many ids that are due, and an API that has taken all calls so far."""
    now = store.fleet.now()
    for account in accounts:
        options = SubmitOptions(
            SERVICE, account, ("https://example.com/hook",), 86400.0, "", "", "", restart=False
        )
        ids = [f"{account}-{number:08d}" for number in range(int(IDS * seconds))]
        for start in range(0, len(ids), 20_000):
            store.tasks.add(ids[start : start + 20_000], options, now - 60, now - 30)
        known = RateLimit(rate=RATE, limited=True, began=now - 100, since=now - 100)
        store.shared_state.change_rate_limit(account, lambda _, known=known: (known, None))


def work(accounts: list[str], seconds: float, *, busy: bool) -> None:
    """One worker: print how many batches it sent. `busy`: its other threads want the CPU, too."""
    from cavendish_worker.celeryapp.app import SWITCH  # noqa: PLC0415 (in a worker only)
    from cavendish_worker.polling.dispatch_round import Dispatched  # noqa: PLC0415
    from cavendish_worker.runtime import get_runtime  # noqa: PLC0415
    from cavendish_worker.tasks import send_retrieves  # noqa: PLC0415

    runtime, did, over = get_runtime(), Dispatched(), threading.Event()

    def spin() -> None:
        while not over.is_set():
            sum(range(1000))

    if busy:
        threading.Thread(target=spin, daemon=True).start()
    sys.setswitchinterval(SWITCH)  # as in a worker
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        now = runtime.store.fleet.now()
        wait = runtime.dispatcher.run_round(frozenset(accounts), now, send_retrieves, did)
        time.sleep(min(max(wait, 0.0), 0.01))
    over.set()
    sys.stdout.write(f"{did.batches} {did.ids}\n")


def sent(shares: list[list[str]], seconds: float, *, busy: bool = False) -> float:
    """Batches a second of so many workers at once, each with its accounts."""
    server = Server()
    server.start()
    try:
        fill(store := Store(server.url), sorted({one for some in shares for one in some}), seconds)
        environment = os.environ | {
            "CAVENDISH_REDIS_URL": server.url,
            "CAVENDISH_BROKER_URL": server.url.replace("unix://", "redis+socket://"),
            "CAVENDISH_API_TOKEN": "bench",
        }
        workers = [
            subprocess.Popen(
                [sys.executable, __file__, "--work", ",".join(some), str(seconds), str(int(busy))],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for some in shares
        ]
        said = [worker.communicate()[0].split() for worker in workers]
        store.close()
    finally:
        server.close()
    return sum(int(batches) for batches, _ in said) / seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.work:
        accounts, seconds, busy = words.work
        work(accounts.split(","), float(seconds), busy=busy == "1")
        return
    halves = [ACCOUNTS[::2], ACCOUNTS[1::2]]
    rows = (
        ("one account, one worker", [ACCOUNTS[:1]], False),
        ("one account, one worker whose other threads are busy", [ACCOUNTS[:1]], True),
        ("8 accounts, one worker", [ACCOUNTS], False),
        ("8 accounts, two workers", halves, False),
    )
    print("batches of 50 a second".ljust(56), "batches/s".rjust(10))
    for name, shares, busy in rows:
        print(name.ljust(56), f"{sent(shares, words.seconds, busy=busy):.0f}".rjust(10), flush=True)


if __name__ == "__main__":
    main()
