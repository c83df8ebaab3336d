"""A book with debts to receivers, and couriers that pay them: what the tests of deliveries share."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import httpx

from scheduler.store import Book
from scheduler.store.debts import Debt
from scheduler.store.keys import LaneKeys, circuit
from scheduler.submission import Wishes
from scheduler.tracking import Lane, State
from scheduler.verdicts import Outcome
from worker.loop import LoopThread
from worker.webhooks.courier import Courier
from worker.webhooks.directory import Directory, Rules
from worker.webhooks.round import Knobs
from worker.webhooks.signing import new_secret
from worker.webhooks.vault import Vault
from worker.webhooks.writeback import Delivered
from worker.wire import egress

LANE = Lane("default", "nano-banana")
KEYS = LaneKeys(LANE)
SECRET = new_secret()
Served = Callable[[Callable[[httpx.Request], object]], str]


class Owing:
    """A book with debts to receivers, and couriers that pay them."""

    def __init__(self, book: Book, loop: LoopThread) -> None:
        self.book, self.loop = book, loop
        self.transports: dict[str, httpx.AsyncBaseTransport] = {}

    def end(self, *ids: str, webhook: str, record: dict[str, object] | None = None) -> None:
        now = self.book.fleet.now()
        wishes = Wishes("nano-banana", "default", (webhook,), 1000.0, '{"order":7}', "", "", again=False)
        self.book.tasks.add(ids, wishes, now - 10, now - 10)
        self.book.tasks.claim(LANE, now + 60, "t1", self.book.tasks.candidates(LANE, now, 1000))
        tasks = self.book.tasks.load(LANE, ids).tasks
        outcomes = [
            (Outcome(task, State.SUCCEEDED, record=record or {"id": task.id, "text": "水彩"}), 0.0) for task in tasks.values()
        ]
        self.book.tasks.settle(LANE, "t1", now, outcomes, 3600, 100)

    def courier(
        self,
        *,
        secret: str = SECRET,
        timeout: float = 2.0,
        allow: str = "127.0.0.0/8",
        calls: int = 100,
        per_endpoint: int = 100,
        disable_after: float = 432000.0,
        operations: str = "",
        lifetime: float | None = None,
        sealing: tuple[str, ...] = (),
    ) -> Courier:
        networks = [ip_network(allow)] if allow else []
        transport = self.transports.setdefault(allow, egress.transport(networks, None, None))
        directory = Directory(self.book, Vault(sealing), Rules(secret, per_endpoint, disable_after, operations, "us"))
        knobs = Knobs(calls, timeout, 3600.0, 7200.0, lambda _service: lifetime)
        return Courier(self.book, transport, self.loop, directory, knobs)

    def deliver(self, **options: Any) -> Delivered:
        """One round by a worker that has heard of nothing yet."""
        done = self.courier(**options).deliver(lambda: None)
        assert done is not None
        return done

    def owed(self) -> int:
        return sum(self.book.debts.waiting(LANE).values())

    def debt(self) -> Debt:
        """The debt that is tried next."""
        raw = self.book.connection.redis
        found = [row for key in raw.scan_iter(f"{KEYS.retries('*')}") for row in raw.zrange(key, 0, -1, withscores=True)]
        found.sort(key=lambda row: row[1])
        return self.book.debts.load(LANE, [found[0][0]], [found[0][1]])[0]

    def make_due(self) -> None:
        """Let the time pass until the next try."""
        raw, debt = self.book.connection.redis, self.debt()
        raw.zadd(KEYS.retries(debt.endpoint), {debt.name: 1})
        raw.zadd(KEYS.owing, {debt.endpoint: 1})
        raw.delete(circuit(debt.endpoint))


class Receiver:
    """Answers with what `answers` says next (the last one goes on; a number: 200 after so long), and keeps what came."""

    def __init__(self, *answers: httpx.Response | float) -> None:
        self._answers = list(answers) or [httpx.Response(200)]
        self.got: list[httpx.Request] = []
        self.at: list[float] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.got.append(request)
        self.at.append(time.monotonic())
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return httpx.Response(200)
        return httpx.Response(answer.status_code, headers=answer.headers)

    @property
    def ids(self) -> list[str]:
        return [json.loads(request.content)["data"]["id"] for request in self.got]
