"""One round of deliveries: claim debts of each endpoint in turn, sign, POST, and write down paid, later or dead.

A round holds up to so many calls in flight and takes new debts as soon as calls end, so that one slow receiver costs the
others nothing: what it may hold is its allowance, and all endpoints that are not trusted share a part of the calls.
"""

from __future__ import annotations

import queue
import random
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import httpx

from scheduler import backoff
from scheduler.errors import BookUnavailable
from scheduler.store import Book
from scheduler.store.debts import Debt, Later, Try
from scheduler.tracking import OPERATIONS, Lane, TrackedTask, compact
from worker import announcement
from worker.directory import Directory
from worker.logs import logger
from worker.loop import LoopThread
from worker.post import post
from worker.receipts import Fate, Receipt, log_with

#: Seconds until the next try when the fault is our own; no try is charged for it.
OWN_FAULT_WAIT = 30.0
#: Seconds after its end at which even such a try is charged: what looks like a fault of ours may lie with a single endpoint.
OWN_FAULT_LASTS = 2 * backoff.WEBHOOK_WINDOW
#: Seconds that a round takes new debts, and that it waits for debts which are due soon.
LASTS, PATIENCE = 30.0, 10.0
#: Share of the calls that must be free before new debts are taken, and share that doubtful endpoints may hold.
REFILL, DOUBTFUL = 0.05, 0.5
#: Seconds after which an endpoint with calls in flight gets no more of them until one ends: it may be hanging.
STALLED = 1.0
#: Endpoints that one claim visits, seconds in which ends of calls are gathered, and between two looks at full endpoints.
VISITS, GATHER, LOOK_AGAIN = 200, 0.004, 0.25
#: Seconds for which the list of lanes is believed.
LANES_FOR = 1.0


@dataclass(frozen=True, slots=True)
class Knobs:
    """What a round needs of the settings: calls at once, seconds."""

    calls: int
    timeout: float
    retention: float
    dead_retention: float
    result_lifetime: Callable[[str], float | None]

    @property
    def lease(self) -> float:
        """A call begins as soon as it is claimed; what lies beyond its end is time in which the book may be away."""
        return self.timeout + 10


@dataclass(slots=True)
class Delivered:
    """What came of one round, in numbers."""

    paid: int = 0
    later: int = 0
    buried: int = 0
    more: bool = False  # it ended although more is owed

    def __str__(self) -> str:
        total = self.paid + self.later + self.buried
        return f"{self.paid} paid · {self.later} later · {self.buried} buried" if total else "nothing owed"


@dataclass(frozen=True, slots=True)
class Tried:
    """A debt, since when it is owed, what its try met, and whether its endpoint was trusted when the call began."""

    debt: Debt
    since: float
    receipt: Receipt
    trusted: bool = True


class Round:
    """Belongs to the thread that goes on it; only `poke` and `stop` may be called by others."""

    def __init__(
        self, book: Book, transport: httpx.AsyncBaseTransport, loop: LoopThread, directory: Directory, knobs: Knobs
    ) -> None:
        self._book, self._transport, self._loop = book, transport, loop
        self._directory, self._knobs = directory, knobs
        self._clock = book.clock()
        self._token = secrets.token_hex(8)
        self._ended: queue.SimpleQueue[Tried | None] = queue.SimpleQueue()
        self._unwritten: list[Tried] = []
        self._in_flight: Counter[tuple[Lane, str]] = Counter()
        self._heard: dict[str, float] = {}  # when a call to an endpoint last ended, or the first of those in flight began
        self._doubtful = 0
        self._turn = 0
        self._lanes, self._lanes_at = list[Lane](), float("-inf")
        self._did = Delivered()
        self._stopped = False
        self.poked = False

    def poke(self) -> None:
        """Look again: something fresh is owed."""
        self.poked = True
        self._ended.put(None)

    def stop(self) -> None:
        """Take nothing new."""
        self._stopped = True
        self._ended.put(None)

    def go(self, leave: Callable[[], bool]) -> None:
        """Take and pay until nothing is owed for a while, or the time is up. Ends when `leave` says that it may.

        Raises BookUnavailable if the book is away; what is under way then is written down by `come_home`.
        """
        until = self._clock.now() + LASTS
        while not self._stopped and (now := self._clock.now()) < until:
            self.poked = False
            wait = self._take(now)
            if self._calls:
                self._settle_up(min(wait, PATIENCE))
            elif wait <= PATIENCE:
                self._settle_up(wait)
            elif leave():
                return
        self._did.more = not self._stopped

    def come_home(self) -> Delivered:
        """Wait for the calls that are still under way, and write them down."""
        while self._calls:
            self._settle_up(self._knobs.timeout)
        return self._did

    @property
    def _calls(self) -> int:
        return self._in_flight.total()

    # --- taking

    def _take(self, now: float) -> float:
        """Claim what there is room for, and send it. Returns seconds until there may be more to take."""
        if self._knobs.calls - self._calls < max(self._knobs.calls * REFILL, 1):
            return self._knobs.timeout
        if now - self._lanes_at >= LANES_FOR:
            self._lanes, self._lanes_at = [*self._book.tasks.lanes(), OPERATIONS], now
        lanes, began = self._lanes, self._calls
        worth = self._book.debts.sort(lanes, now)
        self._directory.refresh({endpoint for endpoints in worth.values() for endpoint in endpoints}, now)
        self._turn += 1
        order = sorted(worth, key=lambda lane: (lanes.index(lane) + self._turn) % len(lanes))
        for place, lane in enumerate(order):
            free = self._knobs.calls - self._calls
            self._visit(lane, worth[lane], -(-free // (len(order) - place)), now)
        if self._calls > began:
            return 0.0  # there may be more at once
        next_visit = self._book.debts.next_visit(lanes)
        if next_visit is None:
            return float("inf")
        return next_visit - now if next_visit > now else LOOK_AGAIN

    def _visit(self, lane: Lane, endpoints: Sequence[str], at_most: int, now: float) -> None:
        """Claim of the endpoints of one lane, the trusted ones first."""
        before = {endpoint: self._in_flight[lane, endpoint] for endpoint in endpoints}
        rooms = {endpoint: self._directory.room(endpoint, before[endpoint], now) for endpoint in endpoints}
        closed = {endpoint: self._directory.closed_until(endpoint, now) for endpoint, room in rooms.items() if not room}
        self._book.debts.postpone(lane, closed)
        elsewhere = Counter[str]()
        for (other, endpoint), calls in self._in_flight.items():
            elsewhere[endpoint] += calls if other != lane else 0
        for endpoint, calls in before.items():
            if calls and now - self._heard.get(endpoint, now) > STALLED:
                rooms[endpoint] = min(rooms[endpoint], calls)
        rooms = {endpoint: room - elsewhere[endpoint] for endpoint, room in rooms.items() if room > 0}
        trusted = [endpoint for endpoint in rooms if self._directory.trusted(endpoint)]
        doubtful = [endpoint for endpoint in rooms if endpoint not in trusted]
        left = at_most - self._claim(lane, {endpoint: rooms[endpoint] for endpoint in trusted}, at_most, now, trusted=True)
        share = max(int(self._knobs.calls * DOUBTFUL), 1) - self._doubtful
        self._claim(lane, {endpoint: rooms[endpoint] for endpoint in doubtful}, min(left, share), now, trusted=False)
        for endpoint, room in rooms.items():
            self._directory.unused(endpoint, room + elsewhere[endpoint] - self._in_flight[lane, endpoint])

    def _claim(self, lane: Lane, rooms: dict[str, int], at_most: int, now: float, *, trusted: bool) -> int:
        began = self._calls
        for start in range(0, len(rooms), VISITS):
            some = dict(list(rooms.items())[start : start + VISITS])
            left = at_most - (self._calls - began)
            names = self._book.debts.claim_delivery(lane, now, now + self._knobs.lease, self._token, left, some)
            if names:
                self._send(lane, names, now, trusted=trusted)
        return self._calls - began

    def _send(self, lane: Lane, names: Sequence[str], now: float, *, trusted: bool) -> None:
        debts = self._book.debts.load(lane, names)
        ids = list(dict.fromkeys(debt.task_id for debt in debts))
        tasks = self._book.tasks.load(lane, ids, with_record=True).tasks
        works: list[Coroutine[Any, Any, Tried]] = []
        for debt in debts:
            if not self._in_flight[lane, debt.endpoint]:
                self._heard[debt.endpoint] = now
            self._in_flight[lane, debt.endpoint] += 1
            self._doubtful += not trusted
            works.append(self._try(debt, tasks.get(debt.task_id), now, trusted=trusted))
        self._loop.start(works, self._ended)

    async def _try(self, debt: Debt, task: TrackedTask | None, now: float, *, trusted: bool) -> Tried:
        since = now if task is None else task.settled_at or now
        try:
            return Tried(debt, since, await self._post(debt, task, now), trusted)
        except Exception as error:  # a mistake of ours must cost neither the debt nor its endpoint anything
            logger().exception("webhook.broken", id=debt.task_id, outcome=type(error).__name__)
            return Tried(debt, since, Receipt(Fate.OURS, f"{type(error).__name__} of our own", sent_at=now), trusted)

    async def _post(self, debt: Debt, task: TrackedTask | None, now: float) -> Receipt:
        if task is None or not task.state.terminal:
            why = "has not ended: its id is tracked anew" if task else "can no longer be read in the book"
            return Receipt(Fate.REFUSED, f"what it announces {why}", sent_at=now)
        target = self._directory.target(debt, now)
        if target.complaint:
            return Receipt(Fate.REFUSED if target.gone else Fate.OURS, target.complaint, sent_at=now)
        name, body = self._said(debt.lane, task)
        return await post(self._transport, target, name, body, self._clock.now(), self._knobs.timeout)

    def _said(self, lane: Lane, task: TrackedTask) -> tuple[str, bytes]:
        """The webhook-id and the body: a notice of our own is stored as it is sent."""
        if lane == OPERATIONS:
            return task.id, compact(task.record).encode()
        lifetime = self._knobs.result_lifetime(task.service)
        return announcement.webhook_id(task), announcement.body(task, now=self._clock.now(), result_lifetime=lifetime)

    # --- writing down

    def _settle_up(self, wait: float) -> None:
        """Wait for calls to end, or for a poke, and write down what has ended."""
        with suppress(queue.Empty):
            first = self._ended.get(timeout=max(wait, 0.0) if not self._unwritten else LOOK_AGAIN)
            if first is not None and self._calls > 1:
                time.sleep(GATHER)
            heard = [first]
            while not self._ended.empty():
                heard.append(self._ended.get())
            self._unwritten += [tried for tried in heard if tried is not None]
        if not self._unwritten:
            return
        now = self._clock.now()
        try:
            by_lane: dict[Lane, list[Tried]] = defaultdict(list)
            for tried in self._unwritten:
                by_lane[tried.debt.lane].append(tried)
            for lane, some in by_lane.items():
                self._write_down(lane, some, now)
        except BookUnavailable:
            # The book may be back before the leases run out; then nobody is told twice.
            oldest = min(tried.receipt.sent_at for tried in self._unwritten)
            if now < oldest + self._knobs.lease:
                return
            logger().error("webhook.unwritten", ids=len(self._unwritten), outcome="the book is away; they are sent again")
        ended, self._unwritten = self._unwritten, []
        for tried in ended:
            self._heard[tried.debt.endpoint] = now
            self._in_flight[tried.debt.lane, tried.debt.endpoint] -= 1
            self._doubtful -= not tried.trusted
        self._in_flight = +self._in_flight
        with suppress(BookUnavailable):  # only what is learned of the endpoints would be lost
            self._directory.heard([(tried.debt, tried.receipt) for tried in ended], now)

    def _write_down(self, lane: Lane, some: Sequence[Tried], now: float) -> None:
        paid, later, dead, log = list[Try](), list[Later](), list[Try](), logger().bind(lane=str(lane))
        for tried in some:
            debt, receipt = tried.debt, tried.receipt
            if receipt.fate is Fate.OURS and not receipt.disable and now - tried.since > OWN_FAULT_LASTS:
                receipt = replace(receipt, fate=Fate.LATER)
            written = log_with(debt.log, receipt)
            if receipt.fate is Fate.PAID:
                paid.append(Try(debt.name, receipt.outcome, written))
                continue
            wait = None if receipt.fate is Fate.REFUSED else self._wait(debt, receipt)
            about = {"id": debt.task_id, "endpoint": debt.endpoint, "tries": debt.tries + (receipt.fate is not Fate.OURS)}
            if wait is None:
                outcome = receipt.outcome + ("; all tries are used up" if receipt.fate is Fate.LATER else "")
                dead.append(Try(debt.name, outcome, written))
                log.error("webhook.buried", **about, outcome=outcome)
            else:
                later.append(Later(debt.name, receipt.outcome, written, now + wait, receipt.fate is Fate.LATER))
                log.warning("webhook.later", **about, seconds=round(wait), outcome=receipt.outcome)
        if paid:
            ours = self._book.debts.paid(lane, self._token, now, paid, self._knobs.retention)
            self._did.paid += ours
            log.info("webhook.paid", ids=ours)
        if later:
            self._did.later += self._book.debts.later(lane, self._token, later)
        if dead:
            self._did.buried += self._book.debts.bury(lane, self._token, now, dead, self._knobs.dead_retention)

    @staticmethod
    def _wait(debt: Debt, receipt: Receipt) -> float | None:
        if receipt.disable:  # it waits until the endpoint is enabled again, and goes first then
            return 0.0
        if receipt.fate is Fate.OURS:
            return OWN_FAULT_WAIT
        return backoff.webhook(debt.tries + 1, receipt.retry_after, random.random())
