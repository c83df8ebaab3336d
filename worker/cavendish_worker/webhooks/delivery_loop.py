"""One round of deliveries: claim deliveries of each endpoint in turn, have them sent, and write
down what came of it.

A round takes new deliveries as soon as calls end, so that one slow receiver costs the others
nothing: what it may hold is its allowance, nothing more while it gives no sign of life, and all
endpoints that are not trusted share a part of the calls.
"""

from __future__ import annotations

import queue
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import httpx

from cavendish.errors import StoreUnavailable
from cavendish.model import OPERATIONS, Lane
from cavendish.store import Store
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.webhooks.attempt import Attempted, Sender
from cavendish_worker.webhooks.concurrent_calls import ConcurrentCalls, Job
from cavendish_worker.webhooks.endpoint_cache import EndpointCache
from cavendish_worker.webhooks.write_back import Delivered, WriteBack

#: Seconds that a round takes new deliveries, and that it waits for deliveries which are due soon.
LASTS, PATIENCE = 60.0, 15.0
#: Share of the calls that is claimed beyond them, that must be free before more is, and that
#: doubtful endpoints may hold.
AHEAD, REFILL, DOUBTFUL = 0.5, 0.05, 0.5
#: Seconds after which an endpoint with calls in flight gets no more of them until one ends: it may
#: be hanging.
STALLED = 1.0
#: Endpoints that one claim visits, seconds in which ends of calls are gathered, and between two
#: polls at full endpoints.
VISITS, GATHER, CHECK_AGAIN = 200, 0.004, 0.25
#: Seconds for which the list of lanes is believed.
LANES_FOR = 1.0


@dataclass(frozen=True, slots=True)
class Config:
    """What a round needs of the settings: calls at once, seconds."""

    calls: int
    timeout: float
    retention: float
    dead_retention: float
    result_lifetime: Callable[[str], float | None]
    #: Seconds that a claimed delivery may wait for its call, and those that the store may be away
    #: after it.
    slack: float = 5.0

    @property
    def lease(self) -> float:
        return self.timeout + 2 * self.slack


class DeliveryLoop:
    """Belongs to the thread that goes on it; only `poke` and `stop` may be called by others."""

    def __init__(
        self,
        store: Store,
        transport: httpx.AsyncBaseTransport,
        loop: LoopThread,
        endpoint_cache: EndpointCache,
        config: Config,
        shutdown_deadline: ShutdownDeadline,
    ) -> None:
        self._store, self._endpoint_cache, self._config = store, endpoint_cache, config
        self._clock, self._token = store.clock(), secrets.token_hex(8)
        self._sender = Sender(
            transport,
            endpoint_cache,
            self._clock,
            config.timeout,
            config.slack,
            config.result_lifetime,
            shutdown_deadline,
        )
        self._writing = WriteBack(store, self._token, config.retention, config.dead_retention)
        self._ended: queue.SimpleQueue[Attempted | None] = queue.SimpleQueue()
        self._calls = ConcurrentCalls(loop, config.calls, self._ended)
        self._unwritten: list[Attempted] = []
        self._held: Counter[tuple[Lane, str]] = (
            Counter()
        )  # deliveries that are claimed and not yet written down
        self._heard: dict[
            str, float
        ] = {}  # when a call to an endpoint last ended, or the first of those held was claimed
        self._doubtful = 0
        self._turn = 0
        self._lanes, self._lanes_at = list[Lane](), float("-inf")
        self._stopped = False
        self.poked = False

    def poke(self) -> None:
        """Look again: something fresh is pending."""
        self.poked = True
        self._ended.put(None)

    def stop(self) -> None:
        """Take nothing new."""
        self._stopped = True
        self._ended.put(None)

    def go(self, leave: Callable[[], bool]) -> Delivered:
        """Take and pay until nothing is pending for a while and `leave` says that it may end, or
        until the time is up.

        Raises BookUnavailable if the store is away; what is under way then is written down by
        `come_home`.
        """
        until = self._clock.now() + LASTS
        while not self._stopped and (now := self._clock.now()) < until:
            self.poked = False
            wait = self._take(now)
            if self._holding or wait <= PATIENCE:
                self._settle_up(min(wait, PATIENCE))
            elif leave():
                return self._writing.did
        self._writing.did.more = not self._stopped
        return self._writing.did

    def come_home(self) -> Delivered:
        """Wait for the calls that are still under way, and write them down."""
        while self._holding:
            self._settle_up(self._config.timeout)
        return self._writing.did

    @property
    def _holding(self) -> int:
        return self._held.total()

    def _take(self, now: float) -> float:
        """Claim what there is room for, and have it sent.

        Returns seconds until there may be more to take.
        """
        most = self._config.calls + int(self._config.calls * AHEAD)
        if most - self._holding < max(self._config.calls * REFILL, 1):
            return self._config.timeout
        if now - self._lanes_at >= LANES_FOR:
            self._lanes, self._lanes_at = [*self._store.tasks.lanes(), OPERATIONS], now
        began, visits = self._holding, self._store.deliveries.sort(self._lanes, now)
        if not visits.worth:
            return float("inf") if visits.next_at is None else visits.next_at - now
        self._endpoint_cache.refresh(
            {endpoint for endpoints in visits.worth.values() for endpoint in endpoints}, now
        )
        self._turn += 1
        order = sorted(
            visits.worth, key=lambda lane: (self._lanes.index(lane) + self._turn) % len(self._lanes)
        )
        for place, lane in enumerate(order):
            self._visit(
                lane, visits.worth[lane], -(-(most - self._holding) // (len(order) - place)), now
            )
        if self._holding > began:
            return 0.0  # there may be more at once
        next_at = self._store.deliveries.next_visit(self._lanes)
        if next_at is None:
            return float("inf")
        return next_at - now if next_at > now else CHECK_AGAIN

    def _visit(self, lane: Lane, endpoints: Sequence[str], at_most: int, now: float) -> None:
        """Claim of the endpoints of one lane, the trusted ones first."""
        held = {endpoint: self._held[lane, endpoint] for endpoint in endpoints}
        held = {
            endpoint: n
            for endpoint, n in held.items()
            if not n or now - self._heard.get(endpoint, now) <= STALLED
        }
        rooms = {
            endpoint: self._endpoint_cache.room(endpoint, n, now) for endpoint, n in held.items()
        }
        closed = {
            endpoint: self._endpoint_cache.closed_until(endpoint, now)
            for endpoint, room in rooms.items()
            if not room
        }
        self._store.deliveries.postpone(lane, closed)
        elsewhere = Counter[str]()
        for (other, endpoint), deliveries in self._held.items():
            elsewhere[endpoint] += deliveries if other != lane else 0
        rooms = {
            endpoint: room - elsewhere[endpoint] for endpoint, room in rooms.items() if room > 0
        }
        trusted = {
            endpoint: room
            for endpoint, room in rooms.items()
            if self._endpoint_cache.trusted(endpoint)
        }
        # A claim is a write, so an endpoint that holds all it may, such as one that hangs, is not
        # asked about at all.
        doubtful = {e: room for e, room in rooms.items() if e not in trusted and room > held[e]}
        left = at_most - self._claim(lane, trusted, at_most, now, trusted=True)
        share = max(int(self._config.calls * DOUBTFUL), 1) - self._doubtful
        self._claim(lane, doubtful, min(left, share), now, trusted=False)
        for endpoint, room in rooms.items():
            self._endpoint_cache.unused(
                endpoint, room + elsewhere[endpoint] - self._held[lane, endpoint]
            )

    def _claim(
        self, lane: Lane, rooms: dict[str, int], at_most: int, now: float, *, trusted: bool
    ) -> int:
        """Claim and hand over to the slots.

        Of trusted endpoints a little more is claimed than they may have in flight.
        """
        began, endpoints = self._holding, list(rooms)
        for start in range(0, len(endpoints), VISITS):
            some = {endpoint: rooms[endpoint] for endpoint in endpoints[start : start + VISITS]}
            if trusted:
                ahead = {
                    e: 0 if self._endpoint_cache.limited(e) else int(room * AHEAD)
                    for e, room in some.items()
                }
                some = {endpoint: room + ahead[endpoint] for endpoint, room in some.items()}
                some = {
                    endpoint: room
                    for endpoint, room in some.items()
                    if room > self._held[lane, endpoint]
                }
            left = at_most - (self._holding - began)
            names = self._store.deliveries.claim_delivery(
                lane, now, now + self._config.lease, self._token, left, some
            )
            if names:
                self._send(lane, names, rooms, now, trusted=trusted)
        return self._holding - began

    def _send(
        self, lane: Lane, names: Sequence[str], rooms: dict[str, int], now: float, *, trusted: bool
    ) -> None:
        deliveries = self._store.deliveries.load(lane, names)
        ids = list(dict.fromkeys(delivery.task_id for delivery in deliveries))
        tasks = self._store.tasks.load(lane, ids, with_record=True).tasks
        jobs = []
        for delivery in deliveries:
            if not self._held[lane, delivery.endpoint]:
                self._heard[delivery.endpoint] = now
            self._held[lane, delivery.endpoint] += 1
            self._doubtful += not trusted
            work = partial(
                self._sender.send, delivery, tasks.get(delivery.task_id), now, trusted=trusted
            )
            jobs.append(Job(delivery.endpoint, rooms[delivery.endpoint], work))
        self._calls.add(jobs)

    def _settle_up(self, wait: float) -> None:
        """Wait for calls to end, or for a poke, and write down what has ended."""
        with suppress(queue.Empty):
            first = self._ended.get(timeout=max(wait, 0.0) if not self._unwritten else CHECK_AGAIN)
            if first is not None and self._holding > 1:
                time.sleep(GATHER)
            heard = [first]
            while not self._ended.empty():
                heard.append(self._ended.get())
            self._unwritten += [attempted for attempted in heard if attempted is not None]
        if not self._unwritten:
            return
        now = self._clock.now()
        try:
            self._writing.write(self._unwritten, now)
        except StoreUnavailable:
            # The store may be back before the leases run out; then nobody is told twice.
            if (
                now
                < min(attempted.result.sent_at for attempted in self._unwritten)
                + self._config.lease
            ):
                return
            logger().error(
                "webhook.unwritten",
                ids=len(self._unwritten),
                outcome="the store is away; they are sent again",
            )
        ended, self._unwritten = self._unwritten, []
        for attempted in ended:
            self._heard[attempted.delivery.endpoint] = now
            self._held[attempted.delivery.lane, attempted.delivery.endpoint] -= 1
            self._doubtful -= not attempted.trusted
        self._held = +self._held
        with suppress(StoreUnavailable):  # only what is learned of the endpoints would be lost
            self._endpoint_cache.heard(
                [(attempted.delivery, attempted.result) for attempted in ended], now
            )
