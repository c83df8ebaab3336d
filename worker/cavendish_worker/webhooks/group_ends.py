"""Counts the ends of ids in their groups: deliveries like others, but without a call.

Its endpoint is `webhook_endpoint.GROUP`, which is no receiver: it has no circuit and no dead
letters, and appears in no statistics. Should a process die between the two writes, the ends are
told again, and the group counts each once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cavendish.endpoints.webhook_endpoint import GROUP
from cavendish.model import Lane
from cavendish.store import Store
from cavendish.store.delivery_reader import Delivery
from cavendish.store.groups import IdEnd
from cavendish_worker.telemetry.logs import logger

#: Ends of a lane that are told at once, and that may be under way in the whole fleet: what a
#: process that died had claimed must not keep the others waiting.
AT_ONCE, UNDER_WAY = 500, 10_000


@dataclass(frozen=True, slots=True)
class GroupEnds:
    """Tells for one delivery loop, under the token of its leases.

    `retention`: seconds for which what ended is kept; `lease`: for which the ends are claimed.
    """

    store: Store
    token: str
    retention: float
    lease: float

    def tell(self, lane: Lane, now: float) -> int:
        """Tell the next ends of a lane, at most AT_ONCE; how many. Raises StoreUnavailable."""
        deliveries, rooms = self.store.deliveries, {GROUP: UNDER_WAY}
        until = now + self.lease
        names = deliveries.claim_delivery(lane, now, until, self.token, AT_ONCE, rooms)
        if names:
            self._tell(lane, deliveries.load(lane, names), now)
        return len(names)

    def _tell(self, lane: Lane, claimed: Sequence[Delivery], now: float) -> None:
        ids = list(dict.fromkeys(one.task_id for one in claimed))
        tasks = self.store.tasks.load(lane, ids).tasks
        ends = [
            # Of a group, the URL is its name.
            IdEnd(one.url, lane.service, task.id, task.state)
            for one in claimed
            if one.url and (task := tasks.get(one.task_id)) and task.state.terminal
        ]
        complete, failed = self.store.groups.end(lane.account, ends, now, self.retention)
        for name, error in failed.items():  # these keep their leases, and are told again
            logger().error("group.unreadable", id=name, outcome=str(error))
        told = [one.name for one in claimed if one.url not in failed]
        self.store.deliveries.told(lane, self.token, now, told, self.retention)
        for name in sorted(complete):
            logger().info("group.complete", id=name)
