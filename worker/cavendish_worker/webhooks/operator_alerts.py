"""Alerts the operator through a webhook of their own: CAVENDISH_OPERATIONS_WEBHOOK.

An alert is a delivery like any other. Each is stored once, however often its cause is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from cavendish.endpoints.webhook_endpoint import Disabled, endpoint_of
from cavendish.policy import episodes
from cavendish.policy.episodes import Announcement
from cavendish.store import Store
from cavendish_worker.webhooks import payload
from cavendish_worker.webhooks.troubles import troubles


def disabled(store: Store, operations: str, endpoint: str, why: Disabled, now: float) -> bool:
    """Store the alert that an endpoint was disabled as a pending delivery; true if it is new.

    However often this is called, there is one alert. Raises StoreUnavailable.
    """
    if not operations or endpoint == endpoint_of(operations):
        return False
    about = {"endpoint": endpoint, "url": why.url, "reason": why.why, "disabled_at": why.at}
    body = payload.operations_event("endpoint.disabled", about, why.at).decode()
    name = payload.event_id("endpoint.disabled", endpoint, repr(why.at))
    return store.deliveries.notify(name, operations, body, now)


def emptied(store: Store, operations: str, now: float) -> bool:
    """Store the alert that the store was emptied; true if it is new. Raises StoreUnavailable."""
    found = store.fleet.emptied() if operations else None
    if found is None or found.acknowledged:
        return False
    about = {"reason": found.reason, "began": found.began, "noticed_at": found.at}
    body = payload.operations_event("store.emptied", about, found.at).decode()
    name = payload.event_id("store.emptied", repr(found.at))
    return store.deliveries.notify(name, operations, body, now)


def update(store: Store, operations: str, accounts: Sequence[str], now: float) -> int:
    """Store the alerts of troubles that began or ended since the last run; returns how many.

    Any number of processes may run it; each may die in between. `accounts`: those of which anything
    is kept. Raises StoreUnavailable.
    """
    if not operations:
        return 0
    found = troubles(store, accounts, now)
    after = store.shared_state.change_episodes(lambda known: episodes.looked(known, found, now))
    new = sum(_announce(store, operations, each, now) for each in after.untold)
    if after.untold:
        told = after.untold
        store.shared_state.change_episodes(lambda known: episodes.handed_over(known, told))
    return new


def _announce(store: Store, operations: str, told: Announcement, now: float) -> bool:
    body = payload.operations_event(told.kind, json.loads(told.data), told.at).decode()
    name = payload.event_id(told.kind, told.subject, repr(told.since))
    return store.deliveries.notify(name, operations, body, now)
