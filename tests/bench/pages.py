"""What our pages in Flower cost with many ids, endpoints and dead letters.

python tests/bench/pages.py [--ids 1000000] [--endpoints 10000] [--dead 100000]
python tests/bench/pages.py --only webhooks --only revive: only the pages with that in their name
python tests/bench/pages.py --broken: how long they take while Redis is slow, silent or gone
python tests/bench/pages.py --memory 2000: MiB of Flower after so many pages, with ours and without
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx

from cavendish import Client, Task
from cavendish.endpoints.webhook_endpoint import Endpoint
from cavendish.model import Lane, State
from cavendish.policy.attempt_history import KEPT, PERIOD
from cavendish.policy.circuit import TRIP, Circuit, failed, worked
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish.store.deliveries import Attempt
from cavendish_worker.devstack.ports import free_port
from conftest import Server
from flowering import flower, process_of_flower
from slow_redis import slow

LANE = Lane("default", "nano-banana")
CHUNK, TIMES = 2000, 5
PAGES = {
    "now": "/cavendish",
    "ids": "/cavendish/ids",
    "ids of one producer": "/cavendish/ids?producer=p7",
    "ids of one endpoint": "/cavendish/ids?endpoint=e-7",
    "ids since a moment ago": "/cavendish/ids?since=1s&state=succeeded",
    "ids of a group that none is in": "/cavendish/ids?group=nothing",
    "ids, a filter that few match": "/cavendish/ids?state=failed&producer=p7",
    "one id by its key": "/cavendish/ids?q=key-5",
    "one id": "/cavendish/id/nano-banana/id-0-5",
    "webhooks": "/cavendish/webhooks",
    "webhooks, the last endpoints": "/cavendish/webhooks?from=9950",
    "webhooks, an endpoint by its URL": "/cavendish/webhooks?named=e777.example",
    "webhooks, a reason that none has": "/cavendish/webhooks?reason=nothing",
    "webhooks, dead letters of one": "/cavendish/webhooks?endpoint=e-7",
    "one endpoint": "/cavendish/endpoint/e-7",
    "actions": "/cavendish/actions",
    "one account": "/cavendish/account/default",
    "to confirm: forget all": "/cavendish/act?verb=forget&until=9e9",
    "to confirm: revive all": "/cavendish/dead?verb=revive&until=9e9",
    "Flower's workers": "/workers",
}


def fill(store: Store, client: Client, ids: int, endpoints: int, dead: int) -> None:
    """So many pending ids of ten producers, registered endpoints, and dead letters to them."""
    for number in range(endpoints):
        store.endpoints.add(Endpoint(f"e-{number}", f"https://e{number}.example/hook", 1.0))
    tried(store, [f"e-{number}" for number in range(endpoints)])
    for start in range(0, dead, CHUNK):
        some = [f"dead-{n}" for n in range(start, min(start + CHUNK, dead))]
        hook = f"e-{start // CHUNK % max(endpoints, 1)}"
        client.submit(some, service=LANE.service, webhook=hook)
        now = store.fleet.now()
        store.tasks.seize(LANE, some, now, "t")
        tasks = store.tasks.load(LANE, some, token="t").tasks.values()
        outcomes = [(Outcome(task, State.SUCCEEDED, record={"id": task.id}), now) for task in tasks]
        store.tasks.settle(LANE, "t", now, outcomes, 86400.0, 10_000)
        while store.deliveries.sort([LANE], now).worth:
            names = store.deliveries.claim_delivery(LANE, now + 1, now + 9, "t", 1000, {hook: 1000})
            if not names:
                break
            attempts = [Attempt(name, "HTTP 500") for name in names]
            store.deliveries.bury(LANE, "t", now, attempts, 86400)
    client.submit([Task("id-0-5", key="key-5")], service=LANE.service)
    for start in range(0, ids, CHUNK):
        some = [f"id-{start}-{n}" for n in range(CHUNK)]
        client.submit(some, service=LANE.service, producer=f"p{start // CHUNK % 10}")


def tried(store: Store, endpoints: list[str]) -> None:
    """Each endpoint has a circuit and a day of attempts; every hundredth circuit is open."""
    now, before = store.fleet.now(), used(store)
    for number, name in enumerate(endpoints):
        steps = TRIP if number % 100 == 0 else 1

        def step(known: Circuit, steps: int = steps) -> Circuit:
            known = worked(known, 1, 0.1, now, 100)
            for _ in range(steps if steps > 1 else 0):
                known = failed(known, now, now, 0.5, error="HTTP 500")
            return known

        store.shared_state.change_circuit(name, step)
    circuits = used(store)
    for period in range(KEPT):
        at = now - period * PERIOD
        store.attempt_counts.add(dict.fromkeys(endpoints, (100 + period, period % 5)), at)
    if endpoints:
        print(
            f"bytes for each endpoint: circuit {(circuits - before) / len(endpoints):.0f}, "
            f"a day of attempts {(used(store) - circuits) / len(endpoints):.0f}"
        )


def used(store: Store) -> int:
    """Bytes that the data of Redis takes."""
    return int(store.connection.redis.info("memory")["used_memory"])  # type: ignore[index]


def spent(store: Store) -> tuple[dict[str, float], float]:
    """Milliseconds that Redis has spent so far: in each command (those inside a script count there
    as well, and once more in the script), and of its main thread's CPU, with reading and writing.
    """
    stats: Any = store.connection.redis.info("commandstats")
    cpu: Any = store.connection.redis.info("cpu")
    within = {name[8:]: row["usec"] / 1000 for name, row in stats.items() if "|" not in name}
    used = cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"]
    return within, used * 1000


def measure(http: httpx.Client, store: Store, only: list[str]) -> None:
    """Each page some times: how long it took, and how long Redis was busy with it."""
    head = "server ms: first, median, most"
    print(f"{'page':<36} {head:>30}   {'ms in Redis, CPU ms (medians)':>29}   mostly in")
    for name, place in PAGES.items():
        if only and not any(each in name for each in only):
            continue
        walls, inside, cpus, commands = list[float](), list[float](), list[float](), Counter[str]()
        for _ in range(TIMES):
            (before, cpu_before), began = spent(store), time.perf_counter()
            answer = http.get(place, follow_redirects=True)
            walls.append((time.perf_counter() - began) * 1000)
            after, cpu = spent(store)
            each = {name: after[name] - before.get(name, 0.0) for name in after if name != "info"}
            commands.update(each)
            inside.append(sum(each.values()))
            cpus.append(cpu - cpu_before)
            time.sleep(2.1)  # the numbers of all are kept for two seconds
        first, (wall, cost, used) = walls[0], (sorted(x)[TIMES // 2] for x in (walls, inside, cpus))
        most = ", ".join(f"{name} {ms / TIMES:.1f}" for name, ms in commands.most_common(3))
        said = "" if answer.status_code == 200 else f"  {answer.status_code}"
        times = f"{first:.0f}, {wall:.0f}, {max(walls):.0f}"
        print(f"{name:<36} {times:>30}   {f'{cost:.1f}, {used:.1f}':>29}   {most}{said}")


def broken() -> None:
    """The longest of three times of each page, in seconds, while Redis is not well."""
    server = Server()
    server.start()
    client = Client(server.url)
    client.submit(["id-0-5"], service=LANE.service)
    client.add_endpoint("e-7", "https://e7.example/hook", unencrypted=True)
    pages = [place for place in PAGES.values() if place.startswith("/cavendish")]
    try:
        with ExitStack() as stack:
            silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            urls = {
                "1 s for each command": stack.enter_context(slow(server.url, 1.0)),
                "silent": f"redis://127.0.0.1:{silent.getsockname()[1]}/0",
                "gone": f"redis://127.0.0.1:{free_port()}/0",
                "well, Flower just started": server.url,
            }
            for name, url in urls.items():
                print(f"{name:<28} {_worst(url, pages)}")
    finally:
        server.close()


def _worst(url: str, pages: list[str]) -> str:
    """The page that took longest, and which answers there were."""
    times, answers = dict[str, float](), Counter[int]()
    with tempfile.TemporaryDirectory() as folder, flower(url, Path(folder)) as http:
        for place in pages * 3:
            began = time.perf_counter()
            answer = http.get(place, follow_redirects=True)
            times[place] = max(times.get(place, 0.0), time.perf_counter() - began)
            answers[answer.status_code] += 1
            if answer.status_code == 503 and "Redis" not in answer.text:
                raise AssertionError(f"no sentence: {place}")
    worst = max(times, key=lambda place: times[place])
    return f"longest {times[worst]:.2f} s ({worst}); answers {dict(answers)}"


def memory(times: int) -> None:
    """MiB of Flower after so many pages, with our pages and without them, in turns."""
    server = Server()
    server.start()
    store, client = Store(server.url), Client(server.url)
    fill(store, client, 20_000, 1_000, 2_000)
    of_flower = ["/workers", "/tasks", "/broker"]
    of_ours = [place for place in PAGES.values() if place.startswith("/cavendish")]
    print("MiB after         0" + "".join(f"{times * step // 4:>8}" for step in range(1, 5)))
    try:
        for turn in range(2):
            for name, pages in (("with our pages", of_ours), ("without", of_flower)):
                seen = _resident(server.url, of_flower + pages, times, ours=pages is of_ours)
                print(f"{name:<14}" + "".join(f"{each:>8.1f}" for each in seen), f"turn {turn + 1}")
    finally:
        server.close()


def _resident(url: str, pages: list[str], times: int, *, ours: bool) -> list[float]:
    """MiB of one Flower at the beginning, and after each quarter of so many pages."""
    with tempfile.TemporaryDirectory() as folder:
        words = []
        if not ours:  # as a Flower whose seam has moved
            conf = Path(folder) / "flowerconfig.py"
            conf.write_text("from flower import urls\nurls.handlers = tuple(urls.handlers)\n")
            words = [f"--conf={conf}"]
        with process_of_flower(url, Path(folder), *words) as (http, process):
            for place in pages * 3:  # what is made once, such as templates, is not counted
                http.get(place, follow_redirects=True)
            found = [_mib(process.pid)]
            for number in range(1, times + 1):
                http.get(pages[number % len(pages)], follow_redirects=True)
                if number % (times // 4) == 0:
                    found.append(_mib(process.pid))
            return found


def _mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=1_000_000)
    parser.add_argument("--endpoints", type=int, default=10_000)
    parser.add_argument("--dead", type=int, default=100_000)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--broken", action="store_true")
    parser.add_argument("--memory", type=int, metavar="PAGES")
    chosen = parser.parse_args()
    if chosen.broken:
        broken()
    elif chosen.memory:
        memory(chosen.memory)
    else:
        full(chosen)


def full(chosen: argparse.Namespace) -> None:
    """The costs of each page with many ids."""
    server = Server()
    server.start()
    try:
        store, client = Store(server.url), Client(server.url)
        store.connection.redis.config_set("appendonly", "no")  # only reads are measured
        began = time.perf_counter()
        fill(store, client, chosen.ids, chosen.endpoints, chosen.dead)
        print(f"{chosen.ids:,} ids, {chosen.endpoints:,} endpoints, {chosen.dead:,} dead letters")
        print(f"filled in {time.perf_counter() - began:.0f} s")
        with tempfile.TemporaryDirectory() as folder, flower(server.url, Path(folder)) as http:
            measure(http, store, chosen.only)
    finally:
        server.close()


if __name__ == "__main__":
    main()
