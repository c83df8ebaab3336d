"""The net under all webhooks.

What should be pending and lies in no queue is pending again, whatever the cause.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from cavendish.model import OPERATIONS
from cavendish.store import Store
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.webhooks import operator_alerts

#: Ended ids that are looked at at once, and seconds that a reconcile run gives each lane; the next
#: goes on behind them, and begins anew at the end. What is forgotten leaves the list of ended ids
#: only here, so a reconcile run must keep rate limit with what ends.
PAGE, LASTS = 2000, 2.0


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a reconcile run found."""

    restored: int = 0

    def __str__(self) -> str:
        return f"{self.restored} pending again" if self.restored else "nothing missing"


def reconcile(store: Store, operations: str, dead_retention: float) -> Reconciled:
    """Compare what has ended with what is pending, delivered or dead, and forget old dead letters.

    Raises BookUnavailable.
    """
    now, restored = store.fleet.now(), 0
    for lane in [*store.tasks.lanes(), OPERATIONS]:
        missing, until = list[str](), time.monotonic() + LASTS
        for page in range(store.deliveries.to_reconcile(lane) // PAGE + 1):
            if page == 0 or time.monotonic() < until:
                missing += store.deliveries.reconcile(lane, now, PAGE)
        if missing:
            logger().warning("webhook.restored", lane=str(lane), ids=len(missing), first=missing[0])
            restored += len(missing)
        store.deliveries.forget_dead(lane, now - dead_retention)
    for endpoint, why in store.endpoints.disabled().items():
        operator_alerts.disabled(store, operations, endpoint, why, now)
    return Reconciled(restored)
