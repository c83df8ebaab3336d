"""Erases all that the store keeps of ids: records, results, deliveries, events, common parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cavendish.endpoints.webhook_endpoint import endpoint_in, subscription_of_group
from cavendish.model import Lane, TrackedTask
from cavendish.store.connection import Connection
from cavendish.store.deadlines import first_look_at
from cavendish.store.journal import Journal
from cavendish.store.keys import LaneKeys, delivery_of

#: Events, ids of a minute, and records that are read at once.
PAGE = 1000


class Erasure:
    """Every method raises StoreUnavailable. What was erased in part is erased by another run."""

    def __init__(self, connection: Connection, journal: Journal) -> None:
        self._redis, self._journal = connection, journal

    def erase(
        self, lane: Lane, tasks: Sequence[TrackedTask], unreadable: Sequence[str], now: float
    ) -> set[str]:
        """Erase ended tasks, and quarantined ids (`unreadable`); the ids that were erased.

        An id that gains a webhook meanwhile stays, and one that is tracked anew. The records go
        last: by them another run finds all that one leaves which is killed.
        """
        ids = [*(task.id for task in tasks), *unreadable]
        if not ids:
            return set()
        self._erase_events(lane, set(ids))
        self._erase_deadlines(lane, tasks)
        return set(self._erase_records(lane, tasks, unreadable, now))

    def _erase_records(
        self, lane: Lane, tasks: Sequence[TrackedTask], unreadable: Sequence[str], now: float
    ) -> list[str]:
        keys, places = LaneKeys(lane), self._journal.places(lane, tasks)
        names = [keys.delivery_leases, keys.inbox, keys.dead, keys.ended, keys.quarantined]
        names += [keys.leases, keys.common, keys.common_open, keys.common_until]
        names += [keys.own_keys, keys.minutes]
        args: list[Any] = [now]
        known = {task.id: task for task in tasks}
        for task_id in [*known, *unreadable]:
            task = known.get(task_id)
            told, stands = _told(task), places.get(task_id, [])
            names += [keys.task(task_id), keys.result(task_id)]
            names += [keys.minute(place.minute) for place in stands]
            for subscription in told:
                endpoint = endpoint_in(subscription)
                names.append(keys.delivery(delivery_of(subscription, task_id)))
                names += [keys.queue(endpoint), keys.retries(endpoint)]
            args += [task_id, int(task is None), task.key if task else "", len(stands), len(told)]
            args += [number for place in stands for number in (place.minute, place.number)]
            args += told
        erased: list[str] = self._redis.script("erase", names, args, durable=True)
        return erased

    def _erase_events(self, lane: Lane, ids: set[str]) -> None:
        key, start = LaneKeys(lane).events, "-"
        while True:
            with self._redis.errors():
                page: Any = self._redis.redis.xrange(key, start, "+", PAGE)
                if found := [place for place, fields in page if fields.get("id") in ids]:
                    self._redis.redis.xdel(key, *found)
            if len(page) < PAGE:
                return
            start = f"({page[-1][0]}"

    def erase_common_parts(self, lane: Lane) -> None:
        """Delete now the common parts that no record names any more, which else wait until the
        last record that named them would have expired. It reads all records of the lane.
        """
        keys, names = LaneKeys(lane), dict[str, float | None]()
        with self._redis.errors():
            redis: Any = self._redis.redis
            open_parts = set(redis.hkeys(keys.common_open))
            for name in redis.hkeys(keys.common):
                if name not in open_parts:
                    names[name] = redis.zscore(keys.common_until, name)
        for sections in self._journal.walk([lane]) if names else ():
            for part in self._named(lane, [each for one in sections for each in one.ids]):
                names.pop(part, None)
        # What a record names from now on is open, or known for longer.
        args = [word for name, until in names.items() for word in (name, repr(until or 0))]
        self._redis.script("erase_common", [keys.common, keys.common_open, keys.common_until], args)

    def _named(self, lane: Lane, ids: Sequence[str]) -> set[str]:
        """The common parts that the records of ids name."""
        pipe = self._redis.pipeline()
        for task_id in ids:
            pipe.hget(LaneKeys(lane).task(task_id), "in")
        rows = self._redis.answers(pipe)
        return {part for row in rows if isinstance(row, str) for part in row.split()}

    def _erase_deadlines(self, lane: Lane, tasks: Iterable[TrackedTask]) -> None:
        """Take ended ids out of the lists of their deadlines; one that is missed leaves it by
        itself. The oldest entry goes: an id that is tracked anew meanwhile needs the newer one.
        """
        pipe = self._redis.pipeline()
        for task in tasks:
            look_at = first_look_at(task.deadline_at, task.deadline_at - task.submitted_at)
            pipe.lrem(LaneKeys(lane).deadline(look_at), 1, task.id)
        self._redis.answers(pipe)


def _told(task: TrackedTask | None) -> list[str]:
    """All subscriptions of a task."""
    return [*task.webhooks, *map(subscription_of_group, task.groups)] if task else []
