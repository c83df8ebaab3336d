"""Alerts the operator through a webhook of their own: CAVENDISH_OPERATIONS_WEBHOOK.

An alert is a delivery like any other.
"""

from __future__ import annotations

from collections.abc import Iterable

from cavendish.model import Lane
from cavendish.store import Store
from cavendish.webhook_endpoint import Disabled, endpoint_of
from cavendish_worker.webhooks import payload


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


def blind(store: Store, operations: str, lanes: Iterable[Lane], now: float) -> int:
    """Store an alert for each service of which the API knows no id under the token of an account.

    Returns how many are new: there is one for each time that a token is blind. Raises
    StoreUnavailable.
    """
    services = list({Lane(lane.account, lane.service) for lane in lanes}) if operations else []
    new = 0
    for lane, found in zip(services, store.shared_state.visibilities(services), strict=True):
        if found.alarming and found.reported(now):
            about = {
                "account": lane.account,
                "service": lane.service,
                "reason": found.reason,
                "ids": found.absent,
                "blind_since": found.blind_since,
            }
            body = payload.operations_event("account.blind", about, found.blind_since).decode()
            names = (lane.account, lane.service, repr(found.blind_since))
            name = payload.event_id("account.blind", *names)
            new += store.deliveries.notify(name, operations, body, now)
    return new
