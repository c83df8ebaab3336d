"""What the operator is told through a webhook of their own.

CAVENDISH_OPERATIONS_WEBHOOK. A notice is a delivery like any other.
"""

from __future__ import annotations

from cavendish.store import Store
from cavendish.webhook_endpoint import Disabled, endpoint_of
from cavendish_worker.webhooks import payload


def disabled(store: Store, operations: str, endpoint: str, why: Disabled, now: float) -> bool:
    """Owe the notice that an endpoint was disabled, once, whoever asks for it and how often.

    Raises BookUnavailable.
    """
    if not operations or endpoint == endpoint_of(operations):
        return False
    about = {"endpoint": endpoint, "url": why.url, "reason": why.why, "disabled_at": why.at}
    said = payload.endpoint_event("endpoint.disabled", about, why.at).decode()
    return store.deliveries.notify(
        payload.event_id("endpoint.disabled", endpoint, repr(why.at)), operations, said, now
    )
