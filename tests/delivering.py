"""A store with deliveries to receivers, and delivery workers that pay them.

What the tests of deliveries share.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import httpx

from cavendish.endpoints.encryption import Encryption
from cavendish.endpoints.signing import new_secret
from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish.store.delivery_reader import Delivery
from cavendish.store.keys import LaneKeys, circuit
from cavendish.submission import SubmitOptions
from cavendish_worker.http import egress
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.webhooks.delivery_loop import DeliveryConfig
from cavendish_worker.webhooks.delivery_worker import DeliveryWorker
from cavendish_worker.webhooks.endpoint_cache import EndpointCache, EndpointRules
from cavendish_worker.webhooks.write_back import Delivered

LANE = Lane("default", "nano-banana")
KEYS = LaneKeys(LANE)
SECRET = new_secret()
Served = Callable[[Callable[[httpx.Request], object]], str]


class Delivering:
    """A store with deliveries to receivers, and delivery workers that pay them."""

    def __init__(self, store: Store, loop: LoopThread) -> None:
        self.store, self.loop = store, loop
        self.transports: dict[str, httpx.AsyncBaseTransport] = {}

    def end(self, *ids: str, webhook: str, record: dict[str, object] | None = None) -> None:
        now = self.store.fleet.now()
        options = SubmitOptions(
            "nano-banana", "default", (webhook,), 1000.0, '{"order":7}', "", "", restart=False
        )
        self.store.tasks.add(ids, options, now - 10, now - 10)
        self.store.tasks.claim(LANE, now + 60, "t1", self.store.tasks.candidates(LANE, now, 1000))
        tasks = self.store.tasks.load(LANE, ids).tasks
        outcomes = [
            (Outcome(task, State.SUCCEEDED, record=record or {"id": task.id, "text": "水彩"}), 0.0)
            for task in tasks.values()
        ]
        self.store.tasks.settle(LANE, "t1", now, outcomes, 3600, 100)

    def delivery_worker(
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
        encrypting: tuple[str, ...] = (),
        linger: float = 0.0,
    ) -> DeliveryWorker:
        networks = [ip_network(allow)] if allow else []
        transport = self.transports.setdefault(allow, egress.transport(networks, None, None))
        endpoint_cache = EndpointCache(
            self.store,
            Encryption(encrypting),
            EndpointRules(secret, per_endpoint, disable_after, operations, "us"),
        )
        times = (timeout, 3600.0, 7200.0, lambda _service: lifetime)
        config = DeliveryConfig(calls, *times, linger=linger)
        return DeliveryWorker(self.store, transport, self.loop, endpoint_cache, config)

    def deliver(self, **options: Any) -> Delivered:
        """One round by a worker that has heard of nothing yet."""
        done = self.delivery_worker(**options).deliver(lambda: None)
        assert done is not None
        return done

    def pending_deliveries(self) -> int:
        return sum(self.store.statistics([LANE]).pending_by_endpoint.values())

    def delivery(self) -> Delivery:
        """The delivery that is tried next."""
        raw = self.store.connection.redis
        found = [
            row
            for key in raw.scan_iter(f"{KEYS.retries('*')}")
            for row in raw.zrange(key, 0, -1, withscores=True)
        ]
        found.sort(key=lambda row: row[1])
        return self.store.deliveries.load(LANE, [found[0][0]], [found[0][1]])[0]

    def make_due(self) -> None:
        """Let the time pass until the next try."""
        raw, delivery = self.store.connection.redis, self.delivery()
        raw.zadd(KEYS.retries(delivery.endpoint), {delivery.name: 1})
        raw.zadd(KEYS.endpoint_index, {delivery.endpoint: 1})
        raw.delete(circuit(delivery.endpoint))


class Receiver:
    """Answers with what `answers` says next (the last one goes on.

    A number: 200 after so long), and keeps what came.
    """

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


class RoundTrips:
    """Counts the round trips to Redis from now on."""

    def __init__(self, store: Store) -> None:
        self.count = 0
        pool = store.connection.redis.connection_pool
        connect = pool.get_connection

        def get_connection(*args: object, **options: object) -> object:
            self.count += 1
            return connect(*args, **options)

        pool.get_connection = get_connection
