"""Compares what ended with what is pending, and puts missing deliveries back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cavendish.endpoints.webhook_endpoint import endpoint_in
from cavendish.model import Lane
from cavendish.store.connection import Connection
from cavendish.store.deadlines import Deadlines
from cavendish.store.deliveries import Deliveries
from cavendish.store.due_index import DueIndex, Place
from cavendish.store.keys import DELIVERIES, RECONCILED, LaneKeys, delivery_of, task_of
from cavendish.store.tracked_tasks import Tasks

#: Ids whose deadlines a run drops at most in a lane in which nothing is pending any more.
DROPPED = 50_000


class Reconciliation:
    """Goes through the ended ids of a lane, page by page. Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def keeps_more(self, lane: Lane) -> bool:
        """True unless a lane has only pending ids, and ended ones that expire by themselves: no
        webhooks of ended ids, dead letters, keys of ids, common parts to forget. One command.
        """
        keys = LaneKeys(lane)
        names = [keys.ended, keys.dead, keys.own_keys, keys.common_until]
        with self._redis.errors():
            return bool(self._redis.redis.exists(*names))

    def to_reconcile(self, lane: Lane) -> int:
        """How many ended ids `reconcile` has not come to before it begins anew."""
        keys = LaneKeys(lane)
        with self._redis.errors():
            done = int(self._redis.redis.get(keys.reconciled) or 0)
            return self._redis.redis.zcard(keys.ended) - done

    def reconcile(self, lane: Lane, now: float, at_most: int) -> list[str]:
        """Check the next `at_most` ended ids; the deliveries that were missing, now pending.

        Ids whose tasks expired leave the ended ids.
        """
        keys = LaneKeys(lane)
        with self._redis.errors():
            start = int(self._redis.redis.get(keys.reconciled) or 0)
            ids: list[str] = self._redis.redis.zrange(keys.ended, start, start + at_most - 1)  # type: ignore[assignment]
        if not ids:
            rows = []
        else:
            rows = self._redis.script("unreconciled", [keys.task(each) for each in ids], [])
        pairs = list(zip(ids, rows, strict=True))
        still_open = [delivery_of(one, each) for each, row in pairs for one in (row or "").split()]
        missing = self._restore(keys, still_open, now) if still_open else []
        expired = [each for each, row in pairs if row is None]
        if expired:
            with self._redis.errors():
                self._redis.redis.zrem(keys.ended, *expired)
        next_start = start + len(ids) - len(expired) if len(ids) == at_most else 0
        if next_start != start:
            self._redis.write_when_full(keys.reconciled, "SET", next_start)
        return missing

    def next_lanes(self, lanes: Sequence[Lane], at_most: int) -> list[Lane]:
        """The lanes that the next run goes through: those behind the last one of the run before.

        So many lanes take several runs, and cost no more in each.
        """
        with self._redis.errors():
            last = str(self._redis.redis.get(RECONCILED) or "")
        behind = [lane for lane in lanes if str(lane) > last] or list(lanes)
        some = sorted(behind, key=str)[:at_most]
        if some:
            self._redis.write_when_full(RECONCILED, "SET", str(some[-1]))
        return some

    def mend_indices(
        self, tasks: Tasks, deadlines: Deadlines, deliveries: Deliveries, lane: Lane, now: float
    ) -> None:
        """Note in the due indices what waits in a lane, where they do not have it."""
        (look_at,) = deadlines.first([lane])
        (visit_at,) = deliveries.next_visits([lane])
        if isinstance(visit_at, Exception):
            raise visit_at
        deadlines.index.mend([Place(lane.account, lane, look_at)], now)
        deliveries.index.mend([Place(lane.account, lane, visit_at)], now)
        if look_at is not None:
            waiting = tasks.waiting([lane], now, 1)[lane]
            if waiting.ended and deadlines.drop_ended(lane, DROPPED):
                deadlines.index.looked_at([Place(lane.account, lane, None)], now)
            places = [Place(name, lane, at) for name, at in waiting.first_at.items()]
            tasks.due(lane.account).mend(places, now)

    def _restore(self, keys: LaneKeys, deliveries: list[str], now: float) -> list[str]:
        DueIndex(self._redis, DELIVERIES).note([Place(keys.lane.account, keys.lane, now)], now)
        names = [keys.inbox, keys.endpoint_index, keys.delivery_leases]
        args: list[Any] = [now]
        for name in deliveries:
            endpoint = endpoint_in(name)
            names += [keys.task(task_of(name)), keys.queue(endpoint), keys.retries(endpoint)]
            args += [name, endpoint]
        missing: list[str] = self._redis.script("reconcile", names, args)
        return missing
