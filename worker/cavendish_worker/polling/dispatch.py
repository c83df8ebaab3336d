"""One tick of the dispatch: ask the rate limit, claim the ids that are most worth a poll, and send
them as batches.

Each account has an index of its lanes by the time at which they are worth a look, for each
producer. A round reads the first lanes of the producers that were charged the fewest calls, so its
cost does not grow with the number of lanes, and a producer with many lanes has no more than one
share of the calls.

A batch is sent when a poll of its ids is worth the price of a call. The price is low while calls
are plentiful, and rises with the used share of the rate limit: near the limit, a batch waits until
it holds more ids.

A dispatch goes on until the next tick comes: it waits for the rate limit and claims at the last
moment, so a claim is never older than its call. Any number of beats may fire: each tick is taken
once. A tick that comes while a dispatch of this process still runs makes it go on.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cavendish.clock import Clock
from cavendish.errors import StoreUnavailable
from cavendish.model import Lane
from cavendish.policy.fair_share import CallShares, next_call
from cavendish.policy.rate_limit import RateLimit, acquire
from cavendish.policy.service_health import probing
from cavendish.store import Store
from cavendish.store.due_index import Place
from cavendish.store.forecasts import Forecasts
from cavendish_worker.polling.weigh import Scales, Weighed
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.metrics import recorded

#: Sends one claimed batch to a worker: lane, ids, lease token, and when the leases run out.
Send = Callable[[Lane, list[str], str, float], None]

#: Shortest sleep between two rounds, in seconds.
_SHORT = 0.005
#: Producers, and lanes of all of them, that one round looks at: those that were charged the least.
_PRODUCERS, _LANES = 8, 16
#: Seconds by which a dispatch outlasts its tick, so that a late next one leaves no gap. They may
#: overlap: claims and the rate limit are shared.
_OVERLAP = 0.02
#: Seconds between two warnings that an account has no token, and between two checks.
_WARN_EVERY, _CHECK_EVERY = 60.0, 5.0


@dataclass(frozen=True, slots=True)
class DispatchConfig:
    """The settings of a dispatch: seconds, ids, and calls per second (0: no ceiling)."""

    tick: float
    batch_size: int
    lease: float
    rate: float


@dataclass(slots=True)
class Dispatched:
    """What one tick sent."""

    batches: int = 0
    ids: int = 0

    def __str__(self) -> str:
        """What Flower shows."""
        return f"{self.batches} batches · {self.ids} ids" if self.batches else "nothing due"


@dataclass(slots=True)
class Dispatcher:
    """Dispatches for one worker process, in one thread at a time.

    `shares`: by account, what each producer used of its calls; `warned`: when the log last said
    that there is no token for an account; `stopping`: set once this process shuts down.
    """

    store: Store
    forecasts: Forecasts
    config: DispatchConfig
    shares: dict[str, CallShares] = field(default_factory=dict)
    warned: dict[str, float] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)
    _charges: deque[tuple[str, str]] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: bool = False
    _until: tuple[Clock, float] = (Clock(0.0, 0.0), 0.0)
    _checked_at: float = -math.inf

    def dispatch(self, accounts: Iterable[str], clock: Clock, send: Send) -> Dispatched | None:
        """Run one tick for the accounts that this process has a token for.

        None if another process has taken this tick, or should; or if a dispatch of this process
        still runs, which then goes on for this tick. Raises StoreUnavailable.
        """
        started, tick = clock.now(), self.config.tick
        if self.stopping.is_set() or not self.store.fleet.take_tick(tick):
            return None
        with self._lock:
            self._until = clock, started + tick + _OVERLAP  # the next tick comes within this time
            if self._running:
                return None
            self._running = True
        did = Dispatched()
        try:
            self._run(frozenset(accounts), send, did)
        finally:
            self._running = False
        return did

    def charge(self, account: str, producer: str) -> None:
        """Charge a producer for a call that a retrieve made. Other threads may call this."""
        self._charges.append((account, producer))

    def _run(self, accounts: frozenset[str], send: Send, did: Dispatched) -> None:
        while not self.stopping.is_set():
            clock, until = ends = self._until
            if (now := clock.now()) < until:
                wait = self.run_round(accounts, now, send, did)
                if wait < until - now:
                    self.stopping.wait(max(wait, _SHORT))
                    continue
            with self._lock:
                if self._until == ends:
                    self._running = False
                    return

    def run_round(self, accounts: frozenset[str], now: float, send: Send, did: Dispatched) -> float:
        """Send at most one batch for each account, and count it in `did`.

        Returns the seconds until another batch may be worth a call.
        """
        if now - self._checked_at >= _CHECK_EVERY:
            self._checked_at = now
            self._warn_of_no_token(accounts, now)
        return min((self._serve(each, now, send, did) for each in accounts), default=math.inf)

    def _serve(self, account: str, now: float, send: Send, did: Dispatched) -> float:
        """Send the batch of an account that the next call belongs to.

        Only the lanes are read that are worth a look. Returns the seconds until the next round.
        """
        index = self.store.tasks.due(account)
        groups = index.groups()
        if not groups or groups[0][1] > now:
            return groups[0][1] - now if groups else math.inf
        limit = self.store.shared_state.rate_limit(account)
        if (wait := acquire(limit, now, self.config.rate)[1]) > 0:
            return wait
        shares = self._shares_of(account, limit, now)
        due = [name for name, at in groups if at <= now]
        some = sorted(due, key=lambda name: shares.used.get(name, 0.0))[:_PRODUCERS]
        places = index.due(some, now, _LANES // len(some))
        weighed = self._weigh(places, Scales(self.forecasts, limit, shares, now))
        bids = [(one, one.bid) for one in weighed if one.bid]
        looks = {place[:2]: place for place in _looks(places, weighed)}
        sent = 0
        try:
            if bids and self._take_call(account, now):
                one, bid = bids[next_call([bid for _, bid in bids], shares, now)]
                self.shares[account] = shares.charged(bid.worths, now, limit.recent)
                sent = self._send(one, now, send)
                after = one.after_claim(sent, now, now + self.config.lease)
                looks |= {place[:2]: place for place in one.places(after)}
        finally:
            next_at = index.looked_at(list(looks.values()), now)
        did.batches += bool(sent)
        did.ids += sent
        return 0.0 if sent else math.inf if next_at is None else max(next_at - now, 0.0)

    def _shares_of(self, account: str, limit: RateLimit, now: float) -> CallShares:
        for _ in range(len(self._charges)):
            charged, producer = self._charges.popleft()
            shares = self.shares.get(charged, CallShares())
            self.shares[charged] = shares.charged({producer: 1.0}, now, limit.recent)
        return self.shares.get(account, CallShares()).faded(now, limit.recent)

    def _weigh(self, places: Sequence[Place], scales: Scales) -> list[Weighed]:
        """Weigh the lanes of these places; a lane that cannot be read is logged."""
        since: dict[Lane, float] = {}
        for place in places:
            since.setdefault(place.lane, scales.now if place.at is None else place.at)
        size = self.config.batch_size
        found = self.store.tasks.waiting(list(since), scales.now, size)
        weighed = []
        for lane, waiting in found.items():
            try:
                weighed.append(scales.weigh(waiting, since[lane]))
            except StoreUnavailable:
                raise
            except Exception as error:  # a lane that cannot be read must not stop the others
                waiting.error = error
                weighed.append(scales.weigh(waiting, since[lane]))
            if waiting.error is not None:
                report_unreadable(lane, waiting.error)
        ended = [
            one.lane for one in weighed if not one.waiting.error and one.waiting.ends_at is None
        ]
        if ended:  # nothing is pending there any more
            gone = [Place(lane.account, lane, None) for lane in ended]
            self.store.tasks.deadlines.looked_at(gone, scales.now)
        return weighed

    def _take_call(self, account: str, now: float) -> bool:
        return not self.store.shared_state.change_rate_limit(
            account, lambda known: acquire(known, now, self.config.rate)
        )

    def _warn_of_no_token(self, accounts: frozenset[str], now: float) -> None:
        """Log now and then that ids wait for a token, which another worker may have.

        Otherwise nobody would notice a typo in `account`.
        """
        for account, _ in self.store.tasks.deadlines.groups():
            if account in accounts or now - self.warned.get(account, -math.inf) < _WARN_EVERY:
                continue
            self.warned[account] = now
            name = "CAVENDISH_API_TOKEN" if account == "default" else "CAVENDISH_API_TOKENS_FILE"
            advice = f"set a token for this account in {name}; its ids wait until a worker has one"
            logger().warning("account.no_token", account=account, advice=advice)

    def _send(self, one: Weighed, now: float, send: Send) -> int:
        """Claim a batch and send it; returns how many of its ids could still be claimed."""
        lane, token, until = one.lane, secrets.token_hex(8), now + self.config.lease
        ids = self.store.tasks.claim(lane, until, token, one.batch)
        if not ids:
            return 0
        claimed = [each for each in one.batch if each.id in frozenset(ids)]
        try:
            send(lane, ids, token, until)
        except Exception:  # the broker is away: do not let the ids wait until the leases run out
            self.store.tasks.release(lane, token, claimed, now)
            raise
        recorded.claimed(lane.service, [each.due for each in claimed], now)
        self.store.shared_state.change_service_health(
            lane, lambda known: (probing(known, now), None)
        )
        return len(ids)


def _looks(places: Iterable[Place], weighed: Iterable[Weighed]) -> Iterator[Place]:
    """When the next look is for the places that were looked at.

    A lane that is worth a call keeps its turn; a place that its lane does not know is empty.
    """
    by_lane = {one.lane: one for one in weighed}
    for place in places:
        one = by_lane[place.lane]
        if one.waiting.error is not None:
            yield place._replace(at=one.look_at)
        elif one.waiting.first_at.get(place.group) is None:
            yield place._replace(at=None)
    for one in by_lane.values():
        if one.bid is None:
            yield from one.places(one.look_at)


def report_unreadable(lane: Lane, error: Exception) -> None:
    """Log that the data of a lane cannot be read."""
    outcome = f"{type(error).__name__}: {error}"[:200]
    logger().error("lane.unreadable", lane=str(lane), outcome=outcome)
