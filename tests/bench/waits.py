"""What a thousand waits at once cost, and how long after the settle of its id each wakes.

python tests/bench/waits.py [--waits 1000] [--batch 50] [--times 1] [--sdk [--largest]]

The ends are written by the store's own settle in another process, `--batch` ids in each, at full
speed, or, of fewer than 50, 20 a second.
`--sdk`: 50 waits of one client of the vendor's SDK, through the gateway. To see whose time that is,
also plain sockets through the gateway (when the service has answered), and the SDK at a server that
has all answers ready and sends them at once (the floor: what the SDK itself takes for so many).
`--largest`: how many of these waits may end together, and the SDK still returns the last in 20 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from acedatacloud import AsyncAceDataCloud

sys.path.insert(0, str(Path(__file__).parents[1]))

from cavendish import AsyncClient, Client
from cavendish.model import Lane
from cavendish.store import Store
from cavendish_worker.devstack.ports import free_port
from conftest import Server
from ending import settle

LANE = Lane("default", "nano-banana")
#: Ids of one settle, and seconds between those of fewer ids.
BATCH, APART = 50, 0.05
#: Seconds after which all wait, and seconds for which nothing ends then.
WAITING, QUIET = 2.0, 5.0
#: Milliseconds within which the SDK should return.
BAR = 20.0
#: By id the moment of its settle, and that of its wake, by the monotonic clock of the machine.
Moments = dict[str, float]


class Run:
    """One way of waiting: what was measured of it."""

    def __init__(self, url: str, ids: list[str], batch: int) -> None:
        self.url, self.ids, self.batch, self.woke = url, ids, batch, Moments()
        self.threads, self.calls, self.settled = 0, 0.0, Moments()
        self.requests, self.quiet = 0, QUIET

    def sample(self) -> None:
        self.threads = max(self.threads, threading.active_count())

    def over(self) -> bool:
        return len(self.woke) == len(self.ids)

    def settling(self, *how: str) -> subprocess.Popen[str]:
        """Another process that settles all ids once they have waited for a while."""
        how = how or ("--settle", self.url)
        words = [sys.executable, __file__, *how, "--waits", str(len(self.ids))]
        words += ["--batch", str(self.batch), "--quiet", str(self.quiet)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def take(self, said: str) -> None:
        found = json.loads(said)
        self.settled, self.calls = found["settled"], found["calls"]

    def late(self) -> list[float]:
        """How many milliseconds after its settle each woke."""
        return [(self.woke[each] - self.settled[each]) * 1e3 for each in self.ids]


def row(runs: list[Run]) -> tuple[str, ...]:
    """What was measured of several runs together."""
    late = sorted(number for run in runs for number in run.late())
    quantiles = (late[0], statistics.median(late), statistics.quantiles(late, n=100)[98], late[-1])
    numbers = (f"{number:,.1f}" for number in quantiles)
    requests = sum(run.requests for run in runs) / len(late)
    return (f"{runs[-1].threads:,}", f"{runs[-1].calls:,.1f}", *numbers, f"{requests:.2f}")


def settle_all(url: str, count: int, batch: int, seconds: float) -> None:
    """In the other process: settle ids, and print when each was."""
    store, settled = Store(url), Moments()
    time.sleep(WAITING)
    before = calls(store)
    time.sleep(seconds)
    quiet = (calls(store) - before) / seconds
    for ids in batches([f"id-{number}" for number in range(count)], batch):
        time.sleep(0 if batch == BATCH else APART)
        settle(store, LANE, *ids)
        settled |= dict.fromkeys(ids, time.monotonic())
    print(json.dumps({"settled": settled, "calls": quiet}))


def calls(store: Store) -> int:
    """How often Redis was asked for the state of ids, or for what ended."""
    asked: Any = store.connection.redis.info("commandstats")
    return sum(asked.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "xread"))


def batches(ids: list[str], size: int) -> list[list[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def by_tasks(run: Run) -> None:
    """A task of asyncio for each wait."""

    async def wait(client: AsyncClient, task_id: str) -> None:
        await client.wait([task_id], service=LANE.service)
        run.woke[task_id] = time.monotonic()

    async def story() -> None:
        async with AsyncClient(run.url) as client:
            await client.submit(run.ids, service=LANE.service)
            tasks = [asyncio.create_task(wait(client, each)) for each in run.ids]
            process = run.settling()
            while not run.over():
                run.sample()
                await asyncio.sleep(0.005)
            await asyncio.gather(*tasks)
            run.take(process.communicate()[0])

    asyncio.run(story())


def by_threads(run: Run) -> None:
    """A thread for each wait."""

    def wait(client: Client, task_id: str) -> None:
        client.wait([task_id], service=LANE.service)
        run.woke[task_id] = time.monotonic()

    with Client(run.url) as client:
        client.submit(run.ids, service=LANE.service)
        for each in run.ids:
            threading.Thread(target=wait, args=(client, each), daemon=True).start()
        process = run.settling()
        while not run.over():
            run.sample()
            time.sleep(0.005)
        run.take(process.communicate()[0])


def by_sdk(run: Run) -> None:
    """A task of asyncio for each wait of the vendor's SDK, in one client of it."""
    through_the_gateway(run, lambda address: asyncio.run(sdk_waits(run, address)))


def by_sockets(run: Run) -> None:
    """A connection for each wait, and a clock that looks only whether an answer has come."""
    through_the_gateway(run, lambda address: socket_waits(run, address))


def through_the_gateway(run: Run, wait: Callable[[str], None]) -> None:
    """Wait at an HTTP service of our own."""
    with Client(run.url) as client:
        client.submit(run.ids, service=LANE.service)
    ours = {"REDIS_URL": run.url, "HTTP_PORT": str(free_port()), "API_TOKEN": "a-token"}
    ours |= {"LOG_LEVEL": "warning"}
    environment = os.environ | {f"CAVENDISH_{name}": text for name, text in ours.items()}
    words = [sys.executable, "-m", "cavendish_worker.cli", "serve"]
    service = subprocess.Popen(words, env=environment)
    try:
        address = f"http://127.0.0.1:{ours['HTTP_PORT']}"
        until_up(address)
        wait(address)
    finally:
        service.terminate()
        service.wait(30)


def until_up(address: str) -> None:
    for _ in range(200):
        with suppress(httpx.TransportError):
            httpx.get(f"{address}/readyz", trust_env=False)
            return
        time.sleep(0.1)


def socket_waits(run: Run, address: str) -> None:
    """Ask for each id on a connection of its own, and note when its answer is there."""
    waiting, port = selectors.DefaultSelector(), int(address.rpartition(":")[2])
    for each in run.ids:
        asked = json.dumps({"id": each, "action": "retrieve"})
        head = "POST /nano-banana/tasks HTTP/1.1\r\nhost: a\r\nauthorization: Bearer a-token\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(asked)}\r\n\r\n"
        peer = socket.create_connection(("127.0.0.1", port))
        peer.sendall((head + asked).encode())
        waiting.register(peer, selectors.EVENT_READ, each)
        run.requests += 1
    process = run.settling()
    while not run.over():
        for found, _ in waiting.select():
            if found.data not in run.woke:
                run.woke[found.data] = time.monotonic()
            waiting.unregister(found.fileobj)
            found.fileobj.close()  # type: ignore[union-attr]
    run.take(process.communicate()[0])


def by_sdk_alone(run: Run) -> None:
    """The same, without Cavendish."""
    port = str(free_port())
    process = run.settling("--answer", port)
    until_up(f"http://127.0.0.1:{port}")
    asyncio.run(sdk_waits(run, f"http://127.0.0.1:{port}", process))


async def sdk_waits(run: Run, address: str, process: subprocess.Popen[str] | None = None) -> None:
    """Wait for the ids at an address, with one client, until another process has settled them."""

    async def count(_: httpx.Request) -> None:
        run.requests += 1

    async def wait(sdk: AsyncAceDataCloud, task_id: str) -> None:
        await sdk.tasks.wait(task_id, service=LANE.service)
        run.woke[task_id] = time.monotonic()

    async with AsyncAceDataCloud(api_token="a-token", base_url=address) as sdk:
        sdk._transport._client.event_hooks["request"].append(count)
        tasks = [asyncio.create_task(wait(sdk, each)) for each in run.ids]
        process = process or run.settling()
        run.sample()
        await asyncio.gather(*tasks)
    run.take(process.communicate()[0])


def answer_all(port: int, count: int, batch: int) -> None:
    """In the other process: hold so many requests, and answer as many at once; print when."""
    held: list[tuple[str, asyncio.StreamWriter]] = []
    settled = Moments()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if length := int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0):
            held.append((json.loads(await reader.readexactly(length))["id"], writer))
        else:
            writer.close()  # it asks whether this is up

    async def story() -> Moments:
        async with await asyncio.start_server(hold, "127.0.0.1", port):
            while len(held) < count:
                await asyncio.sleep(0.01)
            await asyncio.sleep(WAITING)
            answers = [(answered(each), writer) for each, writer in held]
            for start in range(0, count, batch):
                now = time.monotonic()
                for answer, writer in answers[start : start + batch]:
                    writer.write(answer)
                settled.update(
                    dict.fromkeys((each for each, _ in held[start : start + batch]), now)
                )
                await asyncio.sleep(APART)
            await asyncio.sleep(1)
        return settled

    print(json.dumps({"settled": asyncio.run(story()), "calls": 0}))


def answered(task_id: str) -> bytes:
    """What the gateway says of such an id."""
    said = {"id": task_id, "finished_at": 1.8e9, "response": {"success": True}}
    body = json.dumps(said)
    kind = "content-type: application/json"
    return f"HTTP/1.1 200 OK\r\n{kind}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


Ways = dict[str, Callable[[Run], None]]
#: The rows of the tables.
OURS: Ways = {"AsyncClient.wait, a task each": by_tasks, "Client.wait, a thread each": by_threads}
SDK: Ways = {
    "SDK through the gateway": by_sdk,
    "sockets, the same": by_sockets,
    "SDK, ready answers": by_sdk_alone,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--waits", type=int)
    parser.add_argument("--batch", type=int, default=BATCH, help="ids that end in one settle")
    parser.add_argument("--times", type=int, default=1, help="runs that are counted together")
    parser.add_argument("--sdk", action="store_true", help="waits of the vendor's SDK")
    parser.add_argument("--largest", action="store_true", help="how many may end together")
    parser.add_argument("--quiet", type=float, default=QUIET, help=argparse.SUPPRESS)
    parser.add_argument("--settle", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--answer", metavar="PORT", type=int, help=argparse.SUPPRESS)
    told = parser.parse_args()
    waits = told.waits or (50 if told.sdk else 1000)
    if told.settle:
        settle_all(told.settle, waits, told.batch, told.quiet)
        return
    if told.answer:
        answer_all(told.answer, waits, told.batch)
        return
    if told.largest:
        largest(waits, told.times)
        return
    names = ("threads", "calls of Redis/s", "first, ms", "p50", "p99", "max", "requests each")
    print(f"{waits:,} waits at once".ljust(32), *(name.rjust(16) for name in names))
    for name, way in (SDK if told.sdk else OURS).items():
        runs = made(way, waits, told.batch, told.times)
        print(name.ljust(32), *(number.rjust(16) for number in row(runs)))


def made(
    way: Callable[[Run], None], waits: int, batch: int, times: int, quiet: float = QUIET
) -> list[Run]:
    """Run one way of waiting so many times; nothing ends for so many `quiet` seconds before."""
    runs = list[Run]()
    for _ in range(times):
        server = Server()
        server.start()
        try:
            runs.append(Run(server.url, [f"id-{n}" for n in range(waits)], batch))
            runs[-1].quiet = quiet
            way(runs[-1])
        finally:
            server.close()
    return runs


def largest(waits: int, times: int) -> None:
    """Print how late the last of some waits returns that end together, and for how many that is
    within the bar.
    """
    ways = {name: way for name, way in SDK.items() if way is not by_sockets}
    print("end together".ljust(16), *(name.rjust(24) for name in ways), "   (max, ms)")
    within = 0
    for size in (5, 10, 15, 20, 25, 30, 40, 50):
        late = [
            max(number for run in made(way, waits, size, times, 0.2) for number in run.late())
            for way in ways.values()
        ]
        print(f"{size}".ljust(16), *(f"{number:.1f}".rjust(24) for number in late))
        within = size if late[0] <= BAR else within
    print(f"So many may end together: {within} (the last returns within {BAR:.0f} ms).")


if __name__ == "__main__":
    main()
