"""Expires ids whose last poll did not settle them, because the API could not be asked in time.

This is the net under every deadline: no id stays pending for ever.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from cavendish.clock import Clock
from cavendish.errors import StoreUnavailable
from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish_worker.polling.settle import Writer, load_claimed
from cavendish_worker.telemetry.logs import logger, report_unreadable
from cavendish_worker.telemetry.tracing import traces

#: Ids that are expired in one step.
PAGE = 500
#: Lanes that are read at once; seconds until lanes with ids past their deadline are read again.
LANES, AGAIN = 200, 4.0
#: Times `last_poll` that an id may be late while the API can be asked.
PATIENCE = 10


@dataclass(frozen=True, slots=True)
class ExpiryConfig:
    """The settings of an expiry: times in seconds, and the number of events that are kept."""

    last_poll: float
    retention: float
    events_kept: int


def expire_all(
    store: Store, clock: Clock, config: ExpiryConfig, announce: Callable[[], None]
) -> int:
    """Expire the overdue ids of all lanes; returns how many, and announces their deliveries.

    Only lanes are read of which a deadline may have passed. Raises StoreUnavailable.
    """
    deadlines, ended, now = store.deadlines.index, 0, clock.now()
    for account in [name for name, at in deadlines.groups() if at <= now]:
        while places := deadlines.due([account], now, LANES):
            for place in places:
                expired, deliveries = expire_lane(store, place.lane, clock, config)
                ended += expired
                if deliveries:
                    announce()
            firsts = store.deadlines.first([place.lane for place in places])
            deadlines.looked_at(
                [
                    place._replace(at=None if at is None else _next_look(at, now, config))
                    for place, at in zip(places, firsts, strict=True)
                ],
                now,
            )
    return ended


def _next_look(deadline_at: float, now: float, config: ExpiryConfig) -> float:
    """When a lane may have an overdue id; soon, if only the patience of its ids is left."""
    at = deadline_at + config.last_poll
    return at if at > now else now + AGAIN


def expire_lane(
    store: Store, lane: Lane, clock: Clock, config: ExpiryConfig
) -> tuple[int, list[str]]:
    """`expire_overdue`, but a lane that cannot be read is logged, and does not stop the others."""
    try:
        return expire_overdue(store, lane, clock, config)
    except StoreUnavailable:
        raise
    except Exception as error:
        report_unreadable(lane, error)
        return 0, []


def expire_overdue(
    store: Store, lane: Lane, clock: Clock, config: ExpiryConfig
) -> tuple[int, list[str]]:
    """Expire ids whose deadline passed more than `last_poll` seconds ago.

    Returns their number, and the deliveries that are pending now. Raises StoreUnavailable.

    While the API can be asked, a last poll is on its way, since the dispatch takes ids past their
    deadline before all others: then an id may be PATIENCE times as late.
    """
    now, token = clock.now(), secrets.token_hex(8)
    obstacle = _obstacle(store, lane, now)
    before = now - config.last_poll * (1 if obstacle else PATIENCE)
    writer = Writer(store, lane, token, traces().polls(lane), config.retention, config.events_kept)
    expired, deliveries, why = 0, list[str](), ""
    while ids := store.deadlines.overdue(lane, before, token, PAGE):
        why = why or _reason(store, lane, now, obstacle)
        tasks = load_claimed(store, lane, ids, token).values()
        outcomes = [Outcome(task, State.EXPIRED, why, polled=False) for task in tasks]
        settled = writer.write([(outcome, now) for outcome in outcomes], now)
        ended = sum(one.ended for one in settled)
        expired += ended
        deliveries += [delivery for one in settled for delivery in one.deliveries]
        if not ended:
            break
    if expired:
        logger().warning("task.expired", lane=str(lane), ids=expired, outcome=why)
    return expired, deliveries


def _reason(store: Store, lane: Lane, now: float, obstacle: str) -> str:
    (visibility,) = store.shared_state.visibilities([lane])
    if visibility.reported(now) and not obstacle:
        return f"the deadline passed; {visibility.reason}"
    rest = f": {obstacle}" if obstacle else " in time"
    return f"the deadline passed and the API could not be asked{rest}"


def _obstacle(store: Store, lane: Lane, now: float) -> str:
    """Why the API cannot be asked about this lane right now; empty if it can."""
    if pause := store.controls.known().pause_of(lane.account, lane.service, now):
        return pause.sentence
    living = [member for member in store.fleet.members(now) if member.alive(now)]
    workers = [member for member in living if member.role == "worker"]
    if workers and not any(lane.account in member.accounts for member in workers):
        return f"no worker has a token for the account {lane.account}"
    rate_limit = store.shared_state.rate_limit(lane.account)
    if rate_limit.paused(now):
        return rate_limit.pause_reason
    service_health = store.shared_state.service_health(lane)
    if service_health.paused_since:
        return f"the API does not serve {lane.service}: {service_health.reason}"
    return service_health.reason if service_health.failures else ""
