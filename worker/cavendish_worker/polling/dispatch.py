"""One tick of the dispatch: ask the rate limit first, then claim what is most worth a poll, and
send it as batches.

A batch is sent when its ids together are worth the price of a call: the price is low while calls
are plentiful and rises with the share of the rate limit that is used, so near the limit calls wait
until they find more.

A tick drains until the next one comes: it waits for the rate limit and claims at the last moment,
so a claim is never older than the call it is for. Any number of beats may fire: a tick is taken
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
from cavendish.policy.durations import call_price
from cavendish.policy.fair_share import fair_share
from cavendish.policy.rate_limit import acquire
from cavendish.policy.service_health import probing
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.metrics import recorded

#: Sends one claimed batch on its way: lane, ids, lease token, and when the leases run out.
Send = Callable[[Lane, list[str], str, float], None]

#: Shortest sleep between two rounds of a drain, and the sleep while batches gain worth, in seconds.
_SHORT, _AGAIN = 0.005, 0.04
#: Seconds that a drain outlives its tick, so that a late next one leaves no gap: claims and rate
#: limit are shared anyway.
_OVERLAP = 0.02
#: Seconds between two complaints that there is no token for an account.
_TOLD_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class Config:
    """What a dispatch needs of the settings; seconds and ids."""

    tick: float
    batch_size: int
    lease: float
    rate: float


@dataclass(slots=True)
class Drained:
    """What one tick sent."""

    batches: int = 0
    ids: int = 0

    def __str__(self) -> str:
        return f"{self.batches} batches · {self.ids} ids" if self.batches else "nothing due"


@dataclass(frozen=True, slots=True)
class Desk:
    """What a dispatch works with."""

    store: Store
    forecasts: Forecasts
    config: Config
    served: dict[Lane, float] = field(default_factory=dict)  # when each lane had its last turn
    told: dict[str, float] = field(
        default_factory=dict
    )  # when it was last said that there is no token for an account
    stopping: threading.Event = field(
        default_factory=threading.Event
    )  # set once this process is to end


def drain(desk: Desk, accounts: Iterable[str], clock: Clock, send: Send) -> Drained | None:
    """Run one tick.

    None if another dispatch has this tick, or should have it. Raises BookUnavailable.
    """
    started, tick = clock.now(), desk.config.tick
    if desk.stopping.is_set() or not desk.store.fleet.take_tick(tick):
        return None
    drained, usable = Drained(), frozenset(accounts)
    until = (
        started + tick + _OVERLAP
    )  # as long as the next tick takes to come, wherever in its slot it falls
    while (now := clock.now()) < until:
        wait = run_round(desk, usable, now, send, drained)
        if wait >= until - now or desk.stopping.wait(max(wait, _SHORT)):
            break
    return drained


def run_round(
    desk: Desk, accounts: frozenset[str], now: float, send: Send, drained: Drained
) -> float:
    """Send at most one batch for each lane that is worth a call.

    Returns the seconds until another could be.
    """
    wait = math.inf
    worthy: list[tuple[Lane, list[Candidate]]] = []
    for lane in desk.store.tasks.lanes():
        if lane.account not in accounts:
            _tell_of_no_token(desk, lane, now)
            continue
        try:
            blocked, batch = _weigh(desk, lane, now)
        except StoreUnavailable:
            raise
        except Exception as error:  # one lane that cannot be read must not stop the others
            logger().error(
                "lane.unreadable", lane=str(lane), outcome=f"{type(error).__name__}: {error}"[:200]
            )
            continue
        wait = min(wait, blocked)
        if batch:
            worthy.append((lane, batch))
    for lane, batch in sorted(
        worthy, key=lambda each: desk.served.get(each[0], 0.0)
    ):  # in turns: none starves another
        if (
            desk.store.shared_state.change_rate_limit(
                lane.account, lambda rate_limit: acquire(rate_limit, now, desk.config.rate)
            )
            == 0
        ):
            taken = _send(desk, lane, batch, now, send)
            desk.served[lane] = now
            drained.batches += bool(taken)
            drained.ids += taken
            wait = 0.0 if taken else wait
    return wait


def _tell_of_no_token(desk: Desk, lane: Lane, now: float) -> None:
    """Say now and then that ids wait for a token, which another worker may have.

    A typo in `account` would wait in silence.
    """
    if now - desk.told.get(lane.account, -math.inf) >= _TOLD_EVERY and desk.store.tasks.candidates(
        lane, now, 1
    ):
        desk.told[lane.account] = now
        setting = (
            "CAVENDISH_API_TOKEN" if lane.account == "default" else "CAVENDISH_API_TOKENS_FILE"
        )
        logger().warning(
            "account.no_token",
            account=lane.account,
            advice=f"{setting} has none for this worker; its ids wait",
        )


def _weigh(desk: Desk, lane: Lane, now: float) -> tuple[float, list[Candidate]]:
    """Seconds until this lane may be looked at again, and the batch to send now if it is worth a
    call.
    """
    rate_limit, service_health = (
        desk.store.shared_state.rate_limit(lane.account),
        desk.store.shared_state.service_health(lane),
    )
    blocked = max(acquire(rate_limit, now, desk.config.rate)[1], service_health.down_until - now)
    if blocked > 0:
        return blocked, []
    size = service_health.batch_size(desk.config.batch_size)
    batch = fair_share(desk.store.tasks.candidates(lane, now, size), size, now)
    if not batch:
        return math.inf, []
    last_poll = any(one.due <= now and one.deadline_at <= now for one in batch)
    worth = math.inf if last_poll else desk.forecasts.worth(lane, batch, now)
    return _AGAIN, batch if worth >= call_price(rate_limit.used_share(now)) else []


def _send(desk: Desk, lane: Lane, batch: list[Candidate], now: float, send: Send) -> int:
    """Claim a batch and send it on its way; returns how many ids were still to be had."""
    token, until = secrets.token_hex(8), now + desk.config.lease
    ids = desk.store.tasks.claim(lane, until, token, batch)
    if not ids:
        return 0
    try:
        send(lane, ids, token, until)
    except Exception:  # the broker is away: nobody will ask, so let nobody wait for the lease
        desk.store.tasks.release(lane, token, [one for one in batch if one.id in ids])
        raise
    taken = frozenset(ids)
    recorded.claimed(lane.service, [one.due for one in batch if one.id in taken], now)
    desk.store.shared_state.change_service_health(lane, lambda known: (probing(known, now), None))
    return len(ids)
