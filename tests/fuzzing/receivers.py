"""Answers of receivers, over real sockets, through the egress of webhooks to an attempt result.

A delivery counts as delivered exactly if its receiver sent a whole 2xx head after it had the whole
request; a sound answer must be understood, and no request may come twice.
"""

from __future__ import annotations

import asyncio
import json
from ipaddress import ip_network
from random import Random
from typing import Any

import httpx

from cavendish.endpoints.signing import new_secret
from cavendish_worker.http import egress
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind
from cavendish_worker.webhooks.post import Target, post
from fuzzing import shapes, wire
from fuzzing.reading import final_answer
from fuzzing.server import Case, Server
from fuzzing.tally import Tally

#: Calls at once; seconds for a call, for one that must succeed, and until a call never ends.
AT_ONCE, SOON, PATIENT, NEVER = 32, 0.6, 20.0, 60.0
_STATUSES = [200] * 8 + [201, 202, 204, 299, 301, 307, 400, 404, 408, 410, 429, 500, 502, 503, 504]


def run(seed: int, count: int) -> Tally:
    """So many answers to webhooks."""
    tally = Tally("answers of receivers", seed)
    asyncio.run(_Receivers(tally, count).run())
    return tally.end()


def drawn(seed: int, number: int) -> wire.Said:
    """The answer of one case."""
    chance = Random(f"receiver {seed} {number}")
    status = chance.choice(_STATUSES) if chance.random() < 0.95 else chance.randrange(100, 1000)
    body = chance.choice(
        [b"", b"ok", b"{}", shapes.value(chance).encode(errors="surrogatepass"), b"x" * 70_000]
    )
    return wire.answer(chance, status, body)


class _Receivers:
    def __init__(self, tally: Tally, count: int) -> None:
        self.tally, self.numbers, self.server = tally, iter(range(count)), Server()
        self.secret = new_secret()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, said: self.tally.traceback(f"event loop: {said}"))
        await self.server.open()
        async with (
            egress.transport([ip_network("127.0.0.0/8")]) as transport,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(AT_ONCE):
                group.create_task(self.some(transport))
        await self.server.close()
        if self.server.strangers:
            self.tally.mistake(f"{self.server.strangers} requests that nobody sent")

    async def some(self, transport: httpx.AsyncBaseTransport) -> None:
        for number in self.numbers:
            said = drawn(self.tally.seed, number)
            case = self.server.begin(number, said)
            result = await self.post(transport, number, SOON)
            self.tally.made += 1
            if result is not None:
                await self.judge(number, case, result)
            del self.server.cases[number]

    async def post(
        self, transport: httpx.AsyncBaseTransport, number: int, timeout: float
    ) -> AttemptResult | None:
        """One attempt; None if it raised or never ended, which is counted."""
        target = Target(f"http://127.0.0.1:{self.server.port}/c{number}", (self.secret,))
        words: Any = (target, f"msg_{number}", b"{}", 1.7e9, timeout, ShutdownDeadline())
        try:
            async with asyncio.timeout(timeout + NEVER):
                return await post(transport, *words)
        except TimeoutError:
            self.tally.death(f"case {number} never ended")
        except Exception as error:  # whatever it is, it would reach a log
            self.tally.traceback(f"case {number}: {error!r}")
        return None

    async def judge(self, number: int, case: Case, result: AttemptResult) -> None:
        said, where = case.said, f"case {number}: {result.outcome}"
        if case.received > 1:
            self.tally.mistake(f"{where}: sent {case.received} times")
        found = final_answer(said.data) if case.received else None
        if result.kind is ResultKind.DELIVERED and not (found and 200 <= found[0] < 300):
            self.tally.mistake(f"{where}: delivered by {said.data[:200]!r}")
        entry = result.entry()
        if not json.loads(entry)["outcome"].isprintable() or len(entry) > 4000:
            self.tally.mistake(f"{where}: its log line cannot be read")
        if said.sound:
            self.tally.good += 1
            await self.must_be_understood(number, said, result)

    async def must_be_understood(
        self, number: int, said: wire.Said, result: AttemptResult | None
    ) -> None:
        """Once more on a connection of its own, if an earlier answer spoilt the first one."""
        if result is not None and result.status != said.status:
            async with egress.transport([ip_network("127.0.0.0/8")]) as fresh:
                result = await self.post(fresh, number, PATIENT)
        delivered = result is not None and result.kind is ResultKind.DELIVERED
        if result is None or result.status != said.status or delivered != (said.status < 300):
            self.tally.mistake(f"case {number}: {result} for the sound {said.data[:200]!r}")
