"""The net under every deadline.

Ids that no look could settle, because the API could not be asked, expire.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from cavendish.clock import Clock
from cavendish.errors import StoreUnavailable
from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.metrics import recorded
from cavendish_worker.telemetry.tracing import traces

AT_ONCE = 500
#: Times `last_poll` that an id may be late where the API can be asked.
PATIENCE = 10


@dataclass(frozen=True, slots=True)
class Config:
    """What an expiry needs of the settings; seconds and numbers."""

    last_poll: float
    retention: float
    events_kept: int


def expire_lane(store: Store, lane: Lane, clock: Clock, config: Config) -> tuple[int, list[str]]:
    """`expire_overdue`, so that one lane that cannot be read does not stop the others."""
    try:
        return expire_overdue(store, lane, clock, config)
    except StoreUnavailable:
        raise
    except Exception as error:
        logger().error(
            "lane.unreadable", lane=str(lane), outcome=f"{type(error).__name__}: {error}"[:200]
        )
        return 0, []


def expire_overdue(store: Store, lane: Lane, clock: Clock, config: Config) -> tuple[int, list[str]]:
    """Expire ids whose deadline passed more than `last_poll` seconds ago. Returns how many, and the
    deliveries now pending.

    Where the API can be asked, a last poll is on its way: the dispatch takes ids past their
    deadline before all others. Only ten times as late nothing is waited for any more.
    """
    now, token = clock.now(), secrets.token_hex(8)
    because = _obstacle(store, lane, now)
    before = now - config.last_poll * (1 if because else PATIENCE)
    why = "the deadline passed and the API could not be asked" + (
        f": {because}" if because else " in time"
    )
    ended, deliveries = 0, list[str]()
    while ids := store.tasks.overdue(lane, before, token, AT_ONCE):
        loaded = store.tasks.load(lane, ids, token=token)
        if loaded.unreadable:
            store.tasks.quarantine(lane, loaded.unreadable)
            recorded.quarantine(lane.service, len(loaded.unreadable))
        outcomes = [
            (Outcome(task, State.EXPIRED, why), now)
            for task in loaded.tasks.values()
            if not task.state.terminal
        ]
        settled = store.tasks.settle(
            lane, token, now, outcomes, config.retention, config.events_kept
        )
        recorded.settled(lane.service, settled, [outcome for outcome, _ in outcomes], now)
        traces().polls(lane).settled(settled, [outcome for outcome, _ in outcomes])
        ended += sum(one.ended for one in settled)
        deliveries += [delivery for one in settled for delivery in one.deliveries]
        if not any(one.ended for one in settled):
            break
    if ended:
        logger().warning("task.expired", lane=str(lane), ids=ended, outcome=why)
    return ended, deliveries


def _obstacle(store: Store, lane: Lane, now: float) -> str:
    """Why this lane cannot be asked right now; empty if it can."""
    rate_limit, service_health = (
        store.shared_state.rate_limit(lane.account),
        store.shared_state.service_health(lane),
    )
    workers = [
        member
        for member in store.fleet.members(now)
        if member.role == "worker" and member.alive(now)
    ]
    if workers and not any(lane.account in member.accounts for member in workers):
        return f"no worker has a token for the account {lane.account}"
    if rate_limit.held(now):
        return rate_limit.pause_reason
    return service_health.reason if service_health.failures else ""
