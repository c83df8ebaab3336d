"""One delivery loop: claim deliveries of each endpoint in turn, have them sent, and write back the
results.

The loop claims new deliveries as soon as calls end, so that one slow receiver costs the others
nothing. An endpoint may have only its share of the calls, gets no more of them while its calls
hang, and all endpoints that are not trusted together get only a part of the calls.
"""

from __future__ import annotations

import queue
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from cavendish.endpoints.webhook_endpoint import GROUP
from cavendish.errors import StoreUnavailable
from cavendish.model import Lane
from cavendish.store import Store
from cavendish.store.due_index import Place
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.telemetry.logs import logger, report_unreadable
from cavendish_worker.webhooks.attempt import FinishedAttempt, Sender
from cavendish_worker.webhooks.attempt_counter import AttemptCounter
from cavendish_worker.webhooks.concurrent_calls import ConcurrentCalls, Job
from cavendish_worker.webhooks.endpoint_cache import EndpointCache
from cavendish_worker.webhooks.group_ends import GroupEnds
from cavendish_worker.webhooks.write_back import Delivered, WriteBack

#: Seconds for which a loop claims new deliveries, and that it waits for deliveries that are due
#: soon.
LASTS, PATIENCE = 60.0, 15.0
#: Seconds that an idle loop of a worker waits for a poke; see DeliveryConfig.
LINGER = 0.25
#: Shares of the calls: claimed beyond the calls that may run; free before more is claimed; and the
#: most that endpoints get that are not trusted.
AHEAD, REFILL, DOUBTFUL = 0.5, 0.05, 0.5
#: Seconds after which an endpoint gets no more calls until one of its calls ends: it may hang.
STALLED = 1.0
#: Endpoints that one claim visits; seconds in which ends of calls are gathered; seconds until
#: endpoints without room are visited again.
VISITS, GATHER, CHECK_AGAIN = 200, 0.004, 0.25
#: Seconds for which the list of lanes is used, and how many lanes of an account it has at most.
LANES_FOR, LANES = 1.0, 1000


@dataclass(frozen=True, slots=True)
class DeliveryConfig:
    """The settings of a delivery loop: calls at once, and times in seconds.

    `slack`: how long a claimed delivery may wait for its call, and the store may be away after it;
    `linger`: how long a loop with nothing to do waits for a poke, since the next loop costs a
    message, and reads all that this one knows.
    """

    calls: int
    timeout: float
    retention: float
    dead_retention: float
    result_lifetime: Callable[[str], float | None]
    slack: float = 5.0
    linger: float = 0.0

    @property
    def lease(self) -> float:
        return self.timeout + 2 * self.slack


class DeliveryLoop:
    """Belongs to the thread that runs it; other threads may call only `poke` and `stop`.

    State: `_claimed` counts the deliveries that are claimed and not yet written back, by lane and
    endpoint; `_active_at` is when a call to an endpoint last ended, or when the first of its
    claimed deliveries was claimed; `_doubtful` counts those of endpoints that are not trusted.
    """

    def __init__(
        self,
        store: Store,
        transport: PooledTransport,
        loop: LoopThread,
        endpoint_cache: EndpointCache,
        config: DeliveryConfig,
        shutdown_deadline: ShutdownDeadline,
    ) -> None:
        self._store, self._endpoint_cache, self._config = store, endpoint_cache, config
        self._clock, self._token = store.clock(), secrets.token_hex(8)
        times = (config.timeout, config.slack, config.result_lifetime)
        self._sender = Sender(transport, endpoint_cache, self._clock, *times, shutdown_deadline)
        kept_for = (config.retention, config.dead_retention)
        self._write_back = WriteBack(store, self._token, *kept_for, endpoint_cache.waits)
        self._group_ends = GroupEnds(store, self._token, config.retention, config.lease)
        self._ended: queue.SimpleQueue[FinishedAttempt | None] = queue.SimpleQueue()
        self._calls = ConcurrentCalls(loop, config.calls, self._ended)
        self._unwritten: list[FinishedAttempt] = []
        self._counter = AttemptCounter(store)
        self._claimed: Counter[tuple[Lane, str]] = Counter()
        self._active_at: dict[str, float] = {}
        self._doubtful = 0
        self._turn = 0
        self._lanes, self._lanes_at = list[Lane](), float("-inf")
        self._other_lanes_at = float("inf")  # when a lane that is not listed is worth a visit
        self._reported = set[Lane]()  # lanes that cannot be read, once each in a loop
        self._stopped = False
        self._pokes: deque[Lane | None] = deque()

    def poke(self, lane: Lane | None = None) -> None:
        """Look for deliveries again: there is a new one, in this lane if it is known."""
        self._pokes.append(lane)
        self._ended.put(None)

    @property
    def poked(self) -> bool:
        """True if this loop has not looked since it was poked. May be asked from any thread."""
        return bool(self._pokes)

    @property
    def busy(self) -> bool:
        """True if as many calls run as may run at once."""
        return self._calls.full

    def stop(self) -> None:
        """Claim nothing new."""
        self._stopped = True
        self._ended.put(None)

    def run(self, may_end: Callable[[], bool]) -> Delivered:
        """Deliver until nothing is pending for a while and `may_end` agrees, or the time is up.

        Raises StoreUnavailable if the store is away; `finish` then writes what is under way.
        """
        until = self._clock.now() + LASTS
        while not self._stopped and (now := self._clock.now()) < until:
            for _ in range(len(self._pokes)):
                if self._pokes.popleft() not in self._lanes:
                    self._lanes_at = float("-inf")
            wait = self._claim_more(now)
            if self._claimed_count or wait <= PATIENCE:
                self._write_ended(min(wait, PATIENCE))
            elif not self._poked_within(self._config.linger) and may_end():
                self._leave_lanes(now)
                return self._write_back.did
        self._write_back.did.more = not self._stopped
        return self._write_back.did

    def _poked_within(self, seconds: float) -> bool:
        """While no call runs: wait so long for a poke or the stop; true if it was a poke."""
        while not self._ended.empty():  # pokes that were taken already
            self._ended.get()
        if not self.poked and not self._stopped:
            with suppress(queue.Empty):
                self._ended.get(timeout=seconds)
        return self.poked

    def finish(self) -> Delivered:
        """Wait for the calls that still run, and write back their results."""
        while self._claimed_count:
            self._write_ended(self._config.timeout)
        self._counter.write(self._clock.now())
        return self._write_back.did

    @property
    def _claimed_count(self) -> int:
        return self._claimed.total()

    def _claim_more(self, now: float) -> float:
        """Claim as many deliveries as there is room for, and have them sent.

        Returns the seconds until there may be more to claim.
        """
        most = self._config.calls + int(self._config.calls * AHEAD)
        if most - self._claimed_count < max(self._config.calls * REFILL, 1):
            return self._config.timeout
        if now - self._lanes_at >= LANES_FOR or not self._lanes:
            self._refresh_lanes(now)
        began, visits = self._claimed_count, self._store.deliveries.sort(self._lanes, now)
        told, lanes = self._tell_groups(visits.worth, now), self._lanes
        worth = {lane: some for lane, some in visits.worth.items() if some}
        for lane in visits.unreadable.keys() - self._reported:
            report_unreadable(lane, visits.unreadable[lane])
        self._reported |= visits.unreadable.keys()
        if not worth:
            next_at = min(self._other_lanes_at, visits.next_at or self._other_lanes_at)
            return 0.0 if told else next_at - now
        self._endpoint_cache.refresh({each for some in worth.values() for each in some}, now)
        self._turn += 1
        order = sorted(worth, key=lambda lane: (lanes.index(lane) + self._turn) % len(lanes))
        for place, lane in enumerate(order):
            share = -(-(most - self._claimed_count) // (len(order) - place))
            self._visit(lane, worth[lane], share, now)
        if self._claimed_count > began or told:
            return GATHER  # there may be more
        firsts = self._store.deliveries.next_visits(lanes)
        next_at = min((at for at in firsts if isinstance(at, float)), default=self._other_lanes_at)
        return next_at - now if next_at > now else CHECK_AGAIN

    def _tell_groups(self, worth: Mapping[Lane, list[str]], now: float) -> int:
        """Tell groups the ends of their ids, and take their endpoint out of those of each lane."""
        lanes = [lane for lane, endpoints in worth.items() if GROUP in endpoints]
        for lane in lanes:
            worth[lane].remove(GROUP)
        told = sum(self._group_ends.tell(lane, now) for lane in lanes)
        if told:  # a group may be complete, and its webhooks pending in another lane
            self._lanes_at = float("-inf")
        return told

    def _refresh_lanes(self, now: float) -> None:
        """Take the lanes that are worth a visit within LANES_FOR seconds, and leave the others.

        A lane that another process is about to write to is left as well: who writes pokes.
        """
        deliveries, soon = self._store.deliveries, now + LANES_FOR
        self._leave_lanes(now)
        groups = deliveries.index.groups()
        due = [name for name, at in groups if at <= soon]
        places = deliveries.index.due(due, soon, LANES)
        self._lanes, self._lanes_at = [place.lane for place in places], now
        later = (at for _, at in groups if at > soon)
        more = len(places) >= LANES  # an account may have more lanes than were listed
        self._other_lanes_at = soon if more else min(later, default=float("inf"))

    def _leave_lanes(self, now: float) -> None:
        """Write in the index when the lanes that were visited are worth the next visit."""
        deliveries, lanes = self._store.deliveries, self._lanes
        if lanes:
            firsts = zip(lanes, deliveries.next_visits(lanes), strict=True)
            places = [
                Place(one.account, one, at if isinstance(at, float) else None) for one, at in firsts
            ]
            deliveries.index.looked_at(places, now)

    def _visit(self, lane: Lane, endpoints: Sequence[str], at_most: int, now: float) -> None:
        """Claim deliveries of the endpoints of one lane, the trusted endpoints first."""
        cache, rooms, elsewhere = self._endpoint_cache, dict[str, int](), Counter[str]()
        for (other, endpoint), count in self._claimed.items():
            elsewhere[endpoint] += count if other != lane else 0
        for endpoint in endpoints:
            count = self._claimed[lane, endpoint]
            if not count or now - self._active_at.get(endpoint, now) <= STALLED:
                rooms[endpoint] = cache.room(endpoint, count, now)
        full = [endpoint for endpoint, room in rooms.items() if not room]
        closed = {endpoint: cache.closed_until(endpoint, now) for endpoint in full}
        self._store.deliveries.postpone(lane, closed)
        rooms = {name: room - elsewhere[name] for name, room in rooms.items() if room > 0}
        trusted = {name: room for name, room in rooms.items() if cache.trusted(name)}
        # A claim is a write, so no claim is made for an endpoint that has all it may have, such as
        # one that hangs.
        doubtful = {
            name: room
            for name, room in rooms.items()
            if name not in trusted and room > self._claimed[lane, name]
        }
        left = at_most - self._claim(lane, trusted, at_most, now, trusted=True)
        share = max(int(self._config.calls * DOUBTFUL), 1) - self._doubtful
        self._claim(lane, doubtful, min(left, share), now, trusted=False)
        for name, room in rooms.items():
            cache.unused(name, room + elsewhere[name] - self._claimed[lane, name])

    def _claim(
        self, lane: Lane, rooms: dict[str, int], at_most: int, now: float, *, trusted: bool
    ) -> int:
        """Claim, and hand over to the concurrent calls; returns the number of deliveries.

        For trusted endpoints, a little more is claimed than may be in flight.
        """
        began, endpoints, until = self._claimed_count, list(rooms), now + self._config.lease
        for start in range(0, len(endpoints), VISITS):
            some = {name: rooms[name] for name in endpoints[start : start + VISITS]}
            if trusted:
                some = {
                    name: room if self._endpoint_cache.limited(name) else room + int(room * AHEAD)
                    for name, room in some.items()
                }
                some = {
                    name: room for name, room in some.items() if room > self._claimed[lane, name]
                }
            left = at_most - (self._claimed_count - began)
            names = self._store.deliveries.claim_delivery(lane, now, until, self._token, left, some)
            if names:
                self._send(lane, names, rooms, now, trusted=trusted)
        return self._claimed_count - began

    def _send(
        self, lane: Lane, names: Sequence[str], rooms: dict[str, int], now: float, *, trusted: bool
    ) -> None:
        jobs = []
        for delivery, task in self._store.deliveries.load_with_tasks(lane, names):
            endpoint = delivery.endpoint
            if not self._claimed[lane, endpoint]:
                self._active_at[endpoint] = now
            self._claimed[lane, endpoint] += 1
            self._doubtful += not trusted
            work = partial(self._sender.send, delivery, task, now, trusted=trusted)
            jobs.append(Job(endpoint, rooms[endpoint], work))
        self._calls.add(jobs)

    def _write_ended(self, wait: float) -> None:
        """Wait for calls to end, or for a poke, and write back the results."""
        with suppress(queue.Empty):
            first = self._ended.get(timeout=CHECK_AGAIN if self._unwritten else max(wait, 0.0))
            if first is not None and self._claimed_count > 1:
                time.sleep(GATHER)
            ended = [first]
            while not self._ended.empty():
                ended.append(self._ended.get())
            self._unwritten += [attempt for attempt in ended if attempt is not None]
        if not self._unwritten:
            return
        now = self._clock.now()
        try:
            self._write_back.write(self._unwritten, now)
        except StoreUnavailable:
            first_sent = min(attempt.result.sent_at for attempt in self._unwritten)
            if now < first_sent + self._config.lease:
                return  # the store may come back before the leases run out: nothing is sent twice
            outcome = "the store is away; they are sent again"
            logger().error("webhook.unwritten", ids=len(self._unwritten), outcome=outcome)
        written, self._unwritten = self._unwritten, []
        for attempt in written:
            self._active_at[attempt.delivery.endpoint] = now
            self._claimed[attempt.delivery.lane, attempt.delivery.endpoint] -= 1
            self._doubtful -= not attempt.trusted
        self._claimed = +self._claimed
        with suppress(StoreUnavailable):  # only what was learned of the endpoints would be lost
            self._endpoint_cache.learn([(each.delivery, each.result) for each in written], now)
        self._counter.add(written, now)
