"""What a webhook call costs on the bare transport, and what a hostile answer costs. Prints only.

    python tests/bench/wire.py

First the CPU of this process for each POST, with 100 in flight to a receiver that takes 100 ms.
Then, for each kind of hostile answer, 10 calls at once: CPU in all, and by how much the event loop
was late at most. With PYTHONPATH at `scheduler` and `worker` of an older checkout, its code is
measured.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection as Pipe
from typing import Any

from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.webhooks.post import Target, post

SECRET = "whsec_" + "A" * 43 + "="
CALLS, IN_FLIGHT, TAKES, HOSTILE = 6_000, 100, 0.1, 10
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
#: What is said first, and what is said again and again after it.
ANSWERS: dict[str, tuple[bytes, bytes]] = {
    "65,000 chunks of one byte": (CHUNKED + b"1\r\nx\r\n" * 65_000 + b"0\r\n\r\n", b""),
    "endless 100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000),
    "endless header lines": (HEAD, b"a: b\r\n" * 8_000),
    "endless trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"a: b\r\n" * 8_000),
    "endless chunk extensions": (CHUNKED, (b"1;%b\r\nx\r\n" % (b"e" * 60)) * 1_000),
    "one endless chunk extension": (CHUNKED + b"5;", b"e" * 50_000),
    "1,000,000 bytes": (HEAD + b"content-length: 1000000\r\n\r\n" + b"x" * 1_000_000, b""),
}


class Receiver(asyncio.Protocol):
    """Answers each request after a while, or at once with a hostile answer; the path says which."""

    def __init__(self) -> None:
        self.received, self.takes = b"", True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link: asyncio.Transport = transport  # type: ignore[assignment]

    def pause_writing(self) -> None:
        self.takes = False

    def resume_writing(self) -> None:
        self.takes = True

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found or len(body) < 2:
            return
        self.received, path = b"", head.split(b" ")[1]
        loop = asyncio.get_running_loop()
        if path == b"/hook":
            loop.call_later(TAKES, self.link.write, HEAD + b"content-length: 2\r\n\r\nok")
            return
        first, more = list(ANSWERS.values())[int(path[1:])]
        self.link.write(first)
        if more:
            self.pour(more)

    def pour(self, more: bytes) -> None:
        if not self.link.is_closing():
            if self.takes:
                self.link.write(more)
            asyncio.get_running_loop().call_later(0.0 if self.takes else 0.001, self.pour, more)


def serve(pipe: Pipe) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(
            Receiver, "127.0.0.1", 0, backlog=500
        )
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.poll, None)

    asyncio.run(run())


async def call(transport: PooledTransport, url: str, timeout: float = 15.0) -> str:
    target = Target(url, (SECRET,))
    result = await post(transport, target, "msg_1", b"{}", 1.7e9, timeout, ShutdownDeadline())
    return result.outcome


async def cost_of_a_post(root: str) -> None:
    async with PooledTransport() as transport:

        async def caller(number: int) -> None:
            for _ in range(number):
                await call(transport, f"{root}/hook")

        await asyncio.gather(*(caller(2) for _ in range(IN_FLIGHT)))
        cpu, began = time.process_time(), time.monotonic()
        await asyncio.gather(*(caller(CALLS // IN_FLIGHT) for _ in range(IN_FLIGHT)))
        cpu, took = time.process_time() - cpu, time.monotonic() - began
        speed = f"{CALLS / took:.0f} POSTs/s, {IN_FLIGHT} in flight"
        print(f"CPU of a POST: {cpu / CALLS * 1000:.3f} ms; {speed}")


async def cost_of_harm(root: str) -> None:
    for number, name in enumerate(ANSWERS):
        async with PooledTransport() as transport:
            lag = [0.0]
            watch = asyncio.create_task(watched(lag))
            await asyncio.sleep(0.1)
            cpu, lag[0] = time.process_time(), 0.0
            outcomes = await asyncio.gather(
                *(call(transport, f"{root}/{number}", 5.0) for _ in range(HOSTILE))
            )
            cpu = time.process_time() - cpu
            await asyncio.sleep(0.02)
            watch.cancel()
            said = ", ".join(sorted(set(outcomes)))[:60]
            costs = f"{cpu:6.2f} s of CPU, loop late by {lag[0]:.3f} s"
            print(f"{name:28} {HOSTILE} at once: {costs}; {said}")


async def watched(lag: list[float]) -> None:
    while True:
        began = time.monotonic()
        await asyncio.sleep(0.005)
        lag[0] = max(lag[0], time.monotonic() - began - 0.005)


def main() -> None:
    here, there = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    receiver = spawn.Process(target=serve, args=(there,), daemon=True)
    receiver.start()
    root = f"http://127.0.0.1:{here.recv()}"
    measures: list[Callable[[str], Coroutine[Any, Any, None]]] = [cost_of_a_post, cost_of_harm]
    for measure in measures:
        asyncio.run(measure(root))
    here.send("enough")
    receiver.join(5)


if __name__ == "__main__":
    main()
