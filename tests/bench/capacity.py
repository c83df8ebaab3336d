"""How many ids a second the whole system takes, and what each costs: open-loop load on two cores.

    .venv/bin/python tests/bench/capacity.py [--rates 600,900] [--seconds 15]
        [--batches 50,200] [--workers 1,2] [--against COMMIT]

Ids arrive evenly, whether the system keeps up or not; each has one webhook, to a receiver of this
machine. The emulated API has no limit, and answers within milliseconds; its CPU, and that of the
receiver, are counted apart. With the first size of batches everything is measured, with the others
the last rate and number of workers. With `--against`, each load runs on the code of that commit
too, in turns, and the ratios are printed pair by pair.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import httpx
from ground import Ground, free_port, ground
from score import spread

from cavendish import Client
from cavendish.policy.rate_limit import RateLimit
from cavendish.settings import Settings
from cavendish.store import Store

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
SERVICE, MEDIAN = "nano-banana", 5.0
#: Seconds between two handovers, before the load is measured, and after it until all is told.
SLOT, WARM_UP, REST = 0.1, 10.0, 60.0
#: The fleet starts with so many calls per second: it would take half a minute to learn that there
#: is no limit.
FIRST_RATE = 200.0
#: A cold start: ids at once, and calls per second that the API allows.
COLD = (2000, 10)
Row = dict[str, Any]


def one(rate: float, seconds: float, batch: int, workers: int) -> Row:
    """One load on the code that this process imports."""
    limits = ["--rate", "100000", "--burst", "1000", "--most-ids", "200"]
    options = [*limits, "--median", str(MEDIAN), "--seed", "1"]
    with ground(options) as here, ExitStack() as ends:
        receiver = ends.enter_context(_receiver(here))
        settings = _started(here, ends, batch, workers)
        client = ends.enter_context(Client(settings=settings))
        made: list[str] = []
        began = time.time()
        stop = threading.Event()
        load = threading.Thread(
            target=_produce, args=(here, client, f"{receiver}/tasks/0", rate, made, began, stop)
        )
        load.start()
        try:
            _wait(here, began + WARM_UP)
            before, calls, first = _cpu(here), _calls(here), len(made)
            _wait(here, began + WARM_UP + seconds)
            after, later, last = _cpu(here), _calls(here), len(made)
        finally:
            stop.set()
            load.join()
        counted = set(made[first:last])
        arrived = _arrived(here, receiver, counted)
        ledger = {one["id"]: one for one in here.ask("ledger", "emulated")["tasks"]}
    found = [ledger[each] for each in counted if ledger.get(each, {}).get("told_at")]
    detection = [max(each["told_at"] - each["finished_at"], 0.0) for each in found]
    delivery = [
        max(arrived[each["id"]] - each["finished_at"], 0.0)
        for each in found
        if each["id"] in arrived
    ]
    ids = last - first
    return {
        "rate": rate,
        "ids": ids,
        "lost": ids - len(delivery),
        "detection": spread(detection),
        "delivery": spread(delivery),
        "growing": _growing(found),
        "batches": (later - calls) / seconds,
        "cpu": {name: (after[name] - used) / ids * 1e3 for name, used in before.items()},
    }


def cold(count: int, rate: float) -> Row:
    """So many ids at once, of an account that nobody has asked before, and an API with a limit."""
    options = ["--rate", f"{rate:g}", "--burst", "1", "--most-ids", "200", "--seed", "1"]
    with ground([*options, "--median", str(MEDIAN)]) as here, ExitStack() as ends:
        settings = _started(here, ends, 50, 1, learned=False)
        client = ends.enter_context(Client(settings=settings))
        ids = here.create(count, "emulated")
        client.submit(ids, service=SERVICE)
        until = time.time() + 2 * REST
        while time.time() < until and len(here.ask("ledger", "emulated")["tasks"]) < count:
            _wait(here, time.time() + 1)
        _wait(here, time.time() + 10)
        told = [one for one in here.ask("ledger", "emulated")["tasks"] if one["told_at"]]
        tally = here.ask("tally", "emulated")
    delays = [one["told_at"] - one["finished_at"] for one in told]
    refused = tally["answers"].get("429", 0) / tally["calls"]
    return {"told": len(told), "detection": spread(delays), "refused": refused}


def _growing(found: Sequence[Row]) -> float:
    """By how much later the last third was detected than the first, in seconds."""
    ranked = sorted(found, key=lambda each: each["finished_at"])
    third = max(len(ranked) // 3, 1)
    means = [
        sum(each["told_at"] - each["finished_at"] for each in some) / len(some)
        for some in (ranked[:third], ranked[-third:])
        if some
    ]
    return means[1] - means[0] if len(means) == 2 else 0.0


def _started(
    here: Ground, ends: ExitStack, batch: int, workers: int, *, learned: bool = True
) -> Settings:
    """The stack, with so many worker processes; returns what a client needs.

    `learned`: the fleet knows already that many calls are allowed.
    """
    data = here.folder / "ours"
    environment = {
        "CAVENDISH_REDIS_URL": here.redis(0),
        "CAVENDISH_BROKER_URL": here.redis(1),
        "CAVENDISH_DATA_DIR": str(data),
        "CAVENDISH_API_URL": here.api,
        "CAVENDISH_API_TOKEN": "emulated",
        "CAVENDISH_BATCH_SIZE": str(batch),
        "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8",
        "CAVENDISH_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    store = ends.enter_context(_store(here))
    if learned:
        known = RateLimit(rate=FIRST_RATE)
        store.shared_state.change_rate_limit("default", lambda _: (known, None))
    command = [sys.executable, "-m", "cavendish_worker.cli", "up", "--no-flower"]
    command += ["--no-http"] if find_spec("cavendish_worker.service") else []  # not in old commits
    ends.enter_context(here.running("ours", command, environment))
    here.wait_for((data / "stack.json").exists)
    words = "-q -A cavendish_worker worker -P threads --without-gossip --without-mingle".split()
    for number in range(1, workers):
        command = [sys.executable, "-m", "celery", *words, "-n", f"w{number}@%h"]
        ends.enter_context(here.running(f"worker {number + 1}", command, environment))
    here.wait_for(lambda: _living(store) >= workers)
    time.sleep(2)
    return Settings.load({"CAVENDISH_REDIS_URL": here.redis(0)})


@contextmanager
def _store(here: Ground) -> Iterator[Store]:
    store = Store(here.redis(0))
    try:
        yield store
    finally:
        store.close()


def _living(store: Store) -> int:
    now = store.fleet.now()
    members = store.fleet.members(now)
    return sum(each.role == "worker" and each.alive(now) for each in members)


@contextmanager
def _receiver(here: Ground) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, str(HERE / "webhook_receiver.py"), str(port)]
    with here.running("receiver", command):
        url = f"http://127.0.0.1:{port}"
        here.wait_for(lambda: httpx.get(f"{url}/control/count", trust_env=False))
        yield url


def _produce(
    here: Ground,
    client: Client,
    webhook: str,
    rate: float,
    made: list[str],
    began: float,
    stop: threading.Event,
) -> None:
    slot = 0
    while not stop.wait(max(began + slot * SLOT - time.time(), 0.0)):
        slot += 1
        count = int(slot * SLOT * rate) - len(made)
        if count > 0:
            ids = here.create(count, "emulated")
            client.submit(ids, service=SERVICE, webhook=webhook)
            made += ids


def _wait(here: Ground, until: float) -> None:
    while time.time() < until:
        here.check()
        time.sleep(0.1)


def _calls(here: Ground) -> int:
    calls: int = here.ask("tally", "emulated")["calls"]
    return calls


def _arrived(here: Ground, receiver: str, wanted: set[str]) -> dict[str, float]:
    """When each of these ids came to the receiver, once all have, or the time is up."""
    until = time.time() + REST
    ahead = time.time() - time.monotonic()
    while True:
        time.sleep(2)
        here.check()
        rows = httpx.get(f"{receiver}/control/arrivals", trust_env=False, timeout=30).json()
        arrived = {name: at + ahead for name, _, at in reversed(rows)}
        if wanted <= arrived.keys() or time.time() > until:
            return arrived


def _cpu(here: Ground) -> dict[str, float]:
    """CPU seconds of each part so far."""
    facts = json.loads((here.folder / "ours" / "stack.json").read_text())["pids"]
    used = here.cpu()
    tick = os.sysconf("SC_CLK_TCK")
    parts = dict.fromkeys(("worker", "beat"), 0.0)
    for name in parts:
        fields = Path(f"/proc/{facts[name]}/stat").read_text().rpartition(")")[2].split()
        parts[name] = (int(fields[11]) + int(fields[12])) / tick
    parts["worker"] += sum(one for name, one in used.items() if name.startswith("worker "))
    parts |= {"redis": used["redis"], "producer": used["producers"]}
    return parts | {"api": used["emulator"], "receiver": used["receiver"]}


# --- all of it

HEADS = (
    "code", "batch", "workers", "ids/s", "detection p50", "p99", "delivery p50", "p99", "grows",
    "batches/s", "CPU ms an id", "worker", "beat", "redis", "producer", "API apart", "lost",
)  # fmt: skip


def _cells(name: str, batch: int, workers: int, row: Row) -> list[str]:
    cpu = row["cpu"]
    ours = sum(cpu[part] for part in ("worker", "beat", "redis", "producer"))
    times = [row[kind][cut] for kind in ("detection", "delivery") for cut in ("p50", "p99")]
    costs = [ours, *(cpu[part] for part in ("worker", "beat", "redis", "producer"))]
    return [
        name, str(batch), str(workers), f"{row['rate']:g}",
        *("-" if each is None else f"{each:.2f}" for each in times),
        f"{row['growing']:+.2f}", f"{row['batches']:.1f}", *(f"{each:.2f}" for each in costs),
        f"{cpu['api'] + cpu['receiver']:.2f}", str(row["lost"]),
    ]  # fmt: skip


def _run(tree: Path, what: str, *words: object) -> Row:
    """One load on the code of a tree, in a process of its own."""
    path = os.pathsep.join(str(tree / folder) for folder in ("scheduler", "worker"))
    command = [sys.executable, __file__, what, *map(str, words)]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


@contextmanager
def _trees(against: str) -> Iterator[dict[str, Path]]:
    """The trees that are measured, by name."""
    if not against:
        yield {"now": ROOT}
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(tree), against], check=True)
        try:
            yield {against: tree, "now": ROOT}
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", nargs=4, type=float, help=argparse.SUPPRESS)
    parser.add_argument("--cold", nargs=2, type=float, help=argparse.SUPPRESS)
    parser.add_argument("--rates", default="600,900")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--batches", default="50,200")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--against", default="", metavar="COMMIT")
    words = parser.parse_args()
    if words.one:
        rate, seconds, batch, workers = words.one
        sys.stdout.write(json.dumps(one(rate, seconds, int(batch), int(workers))) + "\n")
        return
    if words.cold:
        count, rate = words.cold
        sys.stdout.write(json.dumps(cold(int(count), rate)) + "\n")
        return
    with _trees(words.against) as trees:
        for name, tree in trees.items():
            row = _run(tree, "--cold", *COLD)
            delay = row["detection"]
            sys.stdout.write(
                f"{name}: {COLD[0]} ids at once, {COLD[1]} calls/s, nothing known: detection p50 "
                f"{delay['p50']:.2f} s, p99 {delay['p99']:.2f} s, {row['refused']:.1%} 429s\n"
            )
        sys.stdout.write(" | ".join(HEADS) + "\n")
        sys.stdout.flush()
        batches, workers = (
            list(map(int, text.split(","))) for text in (words.batches, words.workers)
        )
        rates = list(map(float, words.rates.split(",")))
        for load in product(batches[:1], workers, rates):
            _load(trees, words.seconds, *load)
        for load in product(batches[1:], workers[-1:], rates[-1:]):
            _load(trees, words.seconds, *load)


def _load(trees: dict[str, Path], seconds: float, batch: int, workers: int, rate: float) -> None:
    rows = {
        name: _run(tree, "--one", rate, seconds, batch, workers) for name, tree in trees.items()
    }
    for name, row in rows.items():
        sys.stdout.write(" | ".join(_cells(name, batch, workers, row)) + "\n")
    if len(rows) == 2:
        old, new = rows.values()
        costs = {part: new["cpu"][part] / max(old["cpu"][part], 1e-9) for part in old["cpu"]}
        shown = ", ".join(f"{part} {ratio:.2f}" for part, ratio in costs.items())
        sys.stdout.write(f"    CPU an id, now against before: {shown}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
