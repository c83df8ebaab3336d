"""What the HTTP service costs: gets and bulk submits a second, and the memory of held waits.

One process of the service, a Redis beside it; the client is a process of its own, on another core.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from cavendish.environment.local_paths import store_url
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.devstack import embedded_redis as embedded
from cavendish_worker.devstack.ports import free_port
from serving import new_key

SERVICE = "nano-banana"
#: Connections of the client, and ids in one bulk submit.
CONNECTIONS, BULK = 16, 1000


def memory(pid: int) -> float:
    """Resident MB of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(address: str, key: str, pid: int, seconds: float, waits: int) -> None:
    """Print a line for each bar."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        base_url=address, headers=headers, limits=limits, timeout=60, trust_env=False
    ) as http:
        body = {"service": SERVICE, "ids": ["id-0"]}
        await http.post("/v1/tasks", json=body)
        done, used = await _hammer(address, key, pid, seconds)
        print(f"gets: {done / seconds:,.0f}/s; {done / used:,.0f} per second of its CPU")
        began, used = time.monotonic(), cpu(pid)
        for number in range(20):
            ids = [f"bulk-{number}-{n}" for n in range(BULK)]
            (await http.post("/v1/tasks", json={"service": SERVICE, "ids": ids})).raise_for_status()
        wall, used = time.monotonic() - began, cpu(pid) - used
        print(
            f"bulk submits: {20 * BULK / wall:,.0f} ids/s; {20 * BULK / used:,.0f} per CPU second"
        )
        before, path = memory(pid), f"/v1/tasks/{SERVICE}/id-0?wait=20"
        held = [asyncio.ensure_future(http.get(path)) for _ in range(waits)]
        await asyncio.sleep(12)
        print(
            f"{waits} held waits: {memory(pid):.0f} MB in all, {memory(pid) - before:.0f} for them"
        )
        answers = await asyncio.gather(*held)
        assert {one.json()["state"] for one in answers} == {"pending"}


class Caller(asyncio.Protocol):
    """A connection that sends the same get again after each answer: a client of httpx costs more
    than the service, and would be what is measured.
    """

    def __init__(self, request: bytes) -> None:
        self.request, self.done, self.asking = request, 0, True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.request)
        self.came = b""

    def data_received(self, data: bytes) -> None:
        self.came += data
        head, end, body = self.came.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0]) if end else 1
        if len(body) < length:
            return
        assert head.startswith(b"HTTP/1.1 200"), head
        self.done, self.came = self.done + 1, b""
        if self.asking:
            self.transport.write(self.request)


async def _hammer(address: str, key: str, pid: int, seconds: float) -> tuple[int, float]:
    where, before = httpx.URL(address), cpu(pid)
    head = f"host: {where.netloc.decode()}\r\nauthorization: Bearer {key}\r\n"
    request = f"GET /v1/tasks/{SERVICE}/id-0 HTTP/1.1\r\n{head}\r\n".encode()
    callers = [Caller(request) for _ in range(CONNECTIONS)]
    for one in callers:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda one=one: one, where.host, where.port)
    await asyncio.sleep(seconds)
    used = cpu(pid) - before
    done = sum(one.done for one in callers)
    for one in callers:
        one.asking = False
    await asyncio.sleep(0.5)
    for one in callers:
        one.transport.close()
    return done, used


def main() -> None:
    """Start a Redis and the service, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--waits", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, port = Path(folder), free_port()
        server = subprocess.Popen(
            embedded.arguments(data, data / "redis.sock"), env=embedded.environment()
        )
        url = f"unix://{data}/redis.sock?db=0"
        embedded.wait_for(url, server, data / "redis" / "server.log")
        store = Store(store_url(Settings.load({"CAVENDISH_REDIS_URL": url})))
        ours = {"REDIS_URL": url, "HTTP_PORT": str(port), "HTTP_RATE": "100000"}
        ours |= {"LOG_LEVEL": "warning", "GATEWAY": "off"}
        environment = os.environ | {f"CAVENDISH_{name}": text for name, text in ours.items()}
        command = [sys.executable, "-m", "cavendish_worker.cli", "serve"]
        service = subprocess.Popen(command, env=environment)
        address, key = f"http://127.0.0.1:{port}", new_key(store, "bench")
        for _ in range(200):
            try:
                httpx.get(f"{address}/healthz", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        try:
            asyncio.run(measure(address, key, service.pid, options.seconds, options.waits))
        finally:
            for process in (service, server):
                process.terminate()
                process.wait(30)


if __name__ == "__main__":
    main()
