"""One tick of the dispatch: ask the rate limit, claim the ids that are most worth a poll, and send
them as batches.

A batch is sent when a poll of its ids is worth the price of a call. The price is low while calls
are plentiful, and rises with the used share of the rate limit: near the limit, a batch waits until
it holds more ids.

A dispatch goes on until the next tick comes: it waits for the rate limit and claims at the last
moment, so a claim is never older than its call. Any number of beats may fire: each tick is taken
once.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cavendish.clock import Clock
from cavendish.errors import StoreUnavailable
from cavendish.model import Candidate, Lane
from cavendish.policy.fair_share import fair_share
from cavendish.policy.next_poll import call_price
from cavendish.policy.rate_limit import acquire
from cavendish.policy.service_health import probing
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.metrics import recorded

#: Sends one claimed batch to a worker: lane, ids, lease token, and when the leases run out.
Send = Callable[[Lane, list[str], str, float], None]

#: Shortest sleep between two rounds, and the sleep while batches gain worth, in seconds.
_SHORT, _GAIN = 0.005, 0.04
#: Seconds by which a dispatch outlasts its tick, so that a late next one leaves no gap. They may
#: overlap: claims and the rate limit are shared.
_OVERLAP = 0.02
#: Seconds between two warnings that an account has no token.
_WARN_EVERY = 60.0


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
    """Dispatches for one worker process.

    `served`: when each lane was last sent a batch; `warned`: when the log last said that there is
    no token for an account; `stopping`: set once this process shuts down.
    """

    store: Store
    forecasts: Forecasts
    config: DispatchConfig
    served: dict[Lane, float] = field(default_factory=dict)
    warned: dict[str, float] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)

    def dispatch(self, accounts: Iterable[str], clock: Clock, send: Send) -> Dispatched | None:
        """Run one tick for the accounts that this process has a token for.

        None if another process has taken this tick, or should. Raises StoreUnavailable.
        """
        started, tick = clock.now(), self.config.tick
        if self.stopping.is_set() or not self.store.fleet.take_tick(tick):
            return None
        did, usable = Dispatched(), frozenset(accounts)
        until = started + tick + _OVERLAP  # the next tick comes within this time
        while (now := clock.now()) < until:
            wait = self.run_round(usable, now, send, did)
            if wait >= until - now or self.stopping.wait(max(wait, _SHORT)):
                break
        return did

    def run_round(self, accounts: frozenset[str], now: float, send: Send, did: Dispatched) -> float:
        """Send at most one batch for each lane that is worth a call, and count it in `did`.

        Returns the seconds until another batch may be worth a call.
        """
        wait, worthy = math.inf, list[tuple[Lane, list[Candidate]]]()
        for lane in self.store.tasks.lanes():
            if lane.account not in accounts:
                self._warn_of_no_token(lane, now)
                continue
            try:
                blocked, batch = self._weigh(lane, now)
            except StoreUnavailable:
                raise
            except Exception as error:  # a lane that cannot be read must not stop the others
                report_unreadable(lane, error)
                continue
            wait = min(wait, blocked)
            if batch:
                worthy.append((lane, batch))
        # The lane that has waited longest comes first, so that no lane starves another.
        for lane, batch in sorted(worthy, key=lambda each: self.served.get(each[0], 0.0)):
            if self._take_call(lane, now) and (ids := self._send(lane, batch, now, send)):
                did.batches += 1
                did.ids += ids
                wait = 0.0
        return wait

    def _take_call(self, lane: Lane, now: float) -> bool:
        taken = not self.store.shared_state.change_rate_limit(
            lane.account, lambda known: acquire(known, now, self.config.rate)
        )
        if taken:
            self.served[lane] = now
        return taken

    def _warn_of_no_token(self, lane: Lane, now: float) -> None:
        """Log now and then that ids wait for a token, which another worker may have.

        Otherwise nobody would notice a typo in `account`.
        """
        account = lane.account
        if now - self.warned.get(account, -math.inf) < _WARN_EVERY:
            return
        if self.store.tasks.candidates(lane, now, 1):
            self.warned[account] = now
            name = "CAVENDISH_API_TOKEN" if account == "default" else "CAVENDISH_API_TOKENS_FILE"
            advice = f"set a token for this account in {name}; its ids wait until a worker has one"
            logger().warning("account.no_token", account=account, advice=advice)

    def _weigh(self, lane: Lane, now: float) -> tuple[float, list[Candidate]]:
        """Seconds until this lane can be worth a call, and the batch if it is worth one now."""
        rate_limit = self.store.shared_state.rate_limit(lane.account)
        service_health = self.store.shared_state.service_health(lane)
        wait = acquire(rate_limit, now, self.config.rate)[1]
        if (blocked := max(wait, service_health.down_until - now)) > 0:
            return blocked, []
        size = service_health.batch_size(self.config.batch_size)
        batch = fair_share(self.store.tasks.candidates(lane, now, size), size, now)
        if not batch:
            return math.inf, []
        last_poll = any(one.due <= now and one.deadline_at <= now for one in batch)
        worth = math.inf if last_poll else self.forecasts.worth(lane, batch, now)
        return _GAIN, batch if worth >= call_price(rate_limit.used_share(now)) else []

    def _send(self, lane: Lane, batch: list[Candidate], now: float, send: Send) -> int:
        """Claim a batch and send it; returns how many of its ids could still be claimed."""
        token, until = secrets.token_hex(8), now + self.config.lease
        ids = self.store.tasks.claim(lane, until, token, batch)
        if not ids:
            return 0
        claimed = [one for one in batch if one.id in frozenset(ids)]
        try:
            send(lane, ids, token, until)
        except Exception:  # the broker is away: do not let the ids wait until the leases run out
            self.store.tasks.release(lane, token, claimed)
            raise
        recorded.claimed(lane.service, [one.due for one in claimed], now)
        self.store.shared_state.change_service_health(
            lane, lambda known: (probing(known, now), None)
        )
        return len(ids)


def report_unreadable(lane: Lane, error: Exception) -> None:
    """Log that the data of a lane cannot be read."""
    outcome = f"{type(error).__name__}: {error}"[:200]
    logger().error("lane.unreadable", lane=str(lane), outcome=outcome)
