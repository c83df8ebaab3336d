"""The net under all webhooks: a delivery that is in no queue becomes pending again.

Whatever was the cause, a task that ended has each of its deliveries pending, delivered or dead.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from cavendish.errors import StoreUnavailable
from cavendish.model import OPERATIONS, Lane
from cavendish.store import Store
from cavendish_worker.telemetry.logs import logger, report_unreadable
from cavendish_worker.webhooks import operator_alerts

#: Ended ids that are checked in one step, and the seconds that a run gives each lane. The next run
#: goes on from there, and starts over at the end. Forgotten tasks leave the list of ended ids only
#: here, so the runs must be as fast as tasks end.
PAGE, LASTS = 2000, 2.0
#: Lanes that one run goes through; the next run goes on behind them.
LANES = 100


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What one run found: `restored` deliveries are pending again."""

    restored: int = 0

    def __str__(self) -> str:
        """What Flower shows."""
        return f"{self.restored} pending again" if self.restored else "nothing missing"


def reconcile(store: Store, operations: str, dead_retention: float, retention: float) -> Reconciled:
    """Check the deliveries of all tasks that ended; forget dead letters, common parts, minutes of
    the journal, and lanes.

    `dead_retention`: seconds for which a dead letter or a refused submit is kept; `retention`: for
    which an ended task is kept at least. Raises StoreUnavailable.
    """
    now, restored, lanes = store.fleet.now(), 0, store.tasks.listed_lanes()
    lanes += store.lane_registry.restore(lanes)
    some = store.reconciliation.next_lanes(lanes, LANES)
    for lane in [*some, OPERATIONS]:
        try:
            store.journal.forget(lane, now - retention)
            restored += _reconcile_lane(store, lane, now, now - dead_retention)
        except StoreUnavailable:
            raise
        except Exception as error:  # a lane that cannot be read must not stop the others
            report_unreadable(lane, error)
    store.lane_registry.forget(some, lanes)
    for endpoint, why in store.endpoints.disabled().items():
        operator_alerts.disabled(store, operations, endpoint, why, now)
    operator_alerts.emptied(store, operations, now)
    store.refused.forget(now - dead_retention)
    accounts = sorted({lane.account for lane in lanes})
    operator_alerts.update(store, operations, accounts, now)
    return Reconciled(restored)


def _reconcile_lane(store: Store, lane: Lane, now: float, forget_before: float) -> int:
    """Check one lane; how many deliveries are pending again."""
    store.reconciliation.mend_indices(store.tasks, store.deadlines, store.deliveries, lane, now)
    if not store.reconciliation.keeps_more(lane):
        return 0
    missing, until = list[str](), time.monotonic() + LASTS
    for page in range(store.reconciliation.to_reconcile(lane) // PAGE + 1):
        if page == 0 or time.monotonic() < until:
            missing += store.reconciliation.reconcile(lane, now, PAGE)
    if missing:
        logger().warning("webhook.restored", lane=str(lane), ids=len(missing), first=missing[0])
    while store.key_index.reconcile(lane) and time.monotonic() < until:
        pass
    store.closed.forget_dead(lane, forget_before)
    store.common_parts.forget(lane, now)
    return len(missing)
