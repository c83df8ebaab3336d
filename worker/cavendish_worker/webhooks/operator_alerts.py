"""Alerts the operator through a webhook of their own: CAVENDISH_OPERATIONS_WEBHOOK.

An alert is a delivery like any other.
"""

from __future__ import annotations

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
    body = payload.endpoint_event("endpoint.disabled", about, why.at).decode()
    name = payload.event_id("endpoint.disabled", endpoint, repr(why.at))
    return store.deliveries.notify(name, operations, body, now)
