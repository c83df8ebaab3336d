"""Sends the webhooks of ids again: those that were delivered, and those that are dead letters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cavendish.endpoints.webhook_endpoint import is_of_group
from cavendish.filter import Filter
from cavendish.model import Changed, Lane, LoggedAttempt
from cavendish.operator_act import OperatorAct
from cavendish.store import Store
from cavendish.store.delivery_reader import Delivery
from cavendish.store.keys import delivery_of
from cavendish.stored_json import read_lines
from cavendish.undo import changes

#: Webhooks that become due in a second.
RATE = 50.0


class Replay:
    """What was closed before `since` is sent again, each once, however often this is called.

    Every method raises StoreUnavailable.
    """

    def __init__(self, store: Store, since: float, by: str) -> None:
        """`by` whom it is done is noted in the record of each id."""
        self._store, self._since, self._due_at = store, since, store.fleet.now()
        self._act = OperatorAct(since, "replay", by)

    def matching(self, found: Filter) -> Iterator[list[Changed]]:
        """The webhooks of all ids that match, some hundred ids at a time."""
        for step in self._store.search.steps(found):
            lanes: dict[Lane, list[str]] = {}
            for place, task_id in step:
                lanes.setdefault(place.lane, []).append(task_id)
            for lane, ids in lanes.items():
                yield self.of(lane, ids)

    def of(self, lane: Lane, ids: Sequence[str]) -> list[Changed]:
        """The webhooks of these ids of a lane; an id of which none is sent again is "ended"."""
        tasks = self._store.tasks.load(lane, ids).tasks
        names = [
            delivery_of(subscription, task.id)
            for task in tasks.values()
            for subscription in task.webhooks
            if not is_of_group(subscription)
        ]
        known = self._store.deliveries.load(lane, names)
        again = [one for one in known if not self._sent_already(one)]
        sent = set[str]()
        for state in ("dead", "delivered"):
            chosen = [one for one in again if one.state == state]
            times = {one.name: self._due_at + n / RATE for n, one in enumerate(chosen)}
            self._due_at = max(times.values(), default=self._due_at)
            self._due_at = max(self._due_at, self._store.fleet.now())
            reopened = set(
                self._store.closed.reopen(lane, times, dead=state == "dead", act=self._act)
            )
            sent.update(one.task_id for one in chosen if one.name in reopened)
        return changes(lane, ids, sent, tasks.keys())

    def _sent_already(self, delivery: Delivery) -> bool:
        """True if it was attempted since this replay was asked for."""
        attempts = read_lines(LoggedAttempt, delivery.log)
        return any(attempt.at >= self._since for attempt in attempts)
