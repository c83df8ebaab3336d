"""Keeps the list of lanes true: those in which nothing is kept leave it, lost ones come back.

A lane, its indices and the list may lie in three slots of a cluster, so nothing here is one step.
`add` writes the indices of a lane, then the list, then the lane. Here a lane leaves the list, and
comes back if an index has it by then: whoever listed it before it left wrote the index before that.
Should this process die in between, or a cluster mix up the order, the next run finds the lane in
the index and lists it again; meanwhile it is polled and delivered, since that goes by the indices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from cavendish.model import OPERATIONS, Lane
from cavendish.store.connection import Connection
from cavendish.store.due_index import DueIndex
from cavendish.store.keys import BLIND, DEADLINES, DELIVERIES, LANES, PAUSED, LaneKeys
from cavendish.store.trouble_index import TroubleIndex


class LaneRegistry:
    """Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._indices = (DueIndex(connection, DEADLINES), DueIndex(connection, DELIVERIES))
        self._troubles = (TroubleIndex(connection, PAUSED), TroubleIndex(connection, BLIND))

    def forget(self, some: Iterable[Lane], known: Iterable[Lane]) -> list[Lane]:
        """Take lanes in which nothing is kept off the list, with their totals; which these were.

        Only the services of `some` of the `known` lanes are looked at. The lanes of a service leave
        together, as the totals of a service must not fall. Kept are pending and quarantined ids,
        events, open deliveries, dead letters, and records of ended ids: those with webhooks are in
        `ended`, the others expire no later than the events.
        """
        services = {_service(lane) for lane in some}
        lanes = [lane for lane in known if _service(lane) in services]
        kept = self._indexed(lanes)
        kept |= self._holding([lane for lane in lanes if lane not in kept])
        in_use = {_service(lane) for lane in kept}
        gone = [lane for lane in lanes if _service(lane) not in in_use]
        if not gone:
            return []
        with self._redis.errors():
            self._redis.redis.srem(LANES, *map(str, gone))
        indexed = self._indexed(gone)
        back = {lane for lane in gone if lane in indexed or not self._forget(lane)}
        self._list(back)
        gone = [lane for lane in gone if lane not in back]
        for trouble in self._troubles:
            trouble.remove(gone)
        return gone

    def restore(self, known: Iterable[Lane]) -> list[Lane]:
        """List the lanes that an index has and that are not known; which these are."""
        found = set[Lane]()
        for index in self._indices:
            groups = [group for group, _ in index.groups()]
            found |= {place.lane for place in index.due(groups, math.inf, -1)}
        lost = sorted(found - {OPERATIONS, *known})
        self._list(lost)
        return lost

    def _list(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            self._redis.write_when_full(LANES, "SADD", str(lane))

    def _indexed(self, lanes: Sequence[Lane]) -> set[Lane]:
        return {lane for index in self._indices for lane in index.having(lanes)}

    def _holding(self, lanes: Sequence[Lane]) -> set[Lane]:
        pipe = self._redis.pipeline()
        for lane in lanes:
            pipe.exists(*_holding_keys(lane))
        with self._redis.errors():
            return {lane for lane, keys in zip(lanes, pipe.execute(), strict=True) if keys}

    def _forget(self, lane: Lane) -> bool:
        holding, keys = _holding_keys(lane), LaneKeys(lane)
        names = [*holding, keys.counts, keys.reconciled, keys.common, keys.common_until]
        names += [keys.own_keys, keys.own_keys_checked]
        return bool(self._redis.script("forget_lane", names, [len(holding)]))


def _service(lane: Lane) -> tuple[str, str]:
    return lane.account, lane.service


def _holding_keys(lane: Lane) -> list[str]:
    """The keys of which one exists as long as anything of a lane is kept."""
    keys = LaneKeys(lane)
    names = [keys.deadlines, keys.producers, keys.leases, keys.quarantined, keys.events]
    names += [keys.inbox, keys.endpoint_index, keys.delivery_leases, keys.dead, keys.ended]
    names += [keys.minutes]
    return [*names, keys.common_open]
