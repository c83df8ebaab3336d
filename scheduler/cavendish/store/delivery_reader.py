"""Reads deliveries, alone or with the tasks that they announce."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cavendish.endpoints.webhook_endpoint import endpoint_in
from cavendish.model import Lane, TrackedTask
from cavendish.store.common_parts import CommonParts, completed
from cavendish.store.connection import Connection
from cavendish.store.keys import LaneKeys, task_of
from cavendish.store.task_record import fields_of, tracked_task

#: The outcome of a delivery that is damaged.
_UNREADABLE = "the attempts are unreadable"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook for one endpoint.

    `url` is empty for a registered endpoint, and where the task's record expired. `outcome` says
    what the last attempt met, and `log` has one JSON text for each attempt, a line each. `at` is
    when it became a dead letter or is due, where that was asked for.
    """

    name: str
    lane: Lane
    url: str
    attempts: int
    state: str
    outcome: str = ""
    at: float | None = None
    log: str = ""

    @property
    def task_id(self) -> str:
        """The id whose end it announces."""
        return task_of(self.name)

    @property
    def endpoint(self) -> str:
        """The endpoint that it goes to."""
        return endpoint_in(self.name)


class DeliveryReader:
    """Reads deliveries of one lane. Every method raises StoreUnavailable.

    It takes one round trip, and a second one for common parts that are not remembered. What has
    expired or is unreadable reads as never attempted.
    """

    def __init__(self, connection: Connection, common: CommonParts) -> None:
        self._redis, self._common = connection, common

    def load(
        self, lane: Lane, names: Sequence[str], times: Iterable[float | None] = ()
    ) -> list[Delivery]:
        """Read deliveries, each with its `at` from `times`."""
        ats = [*times] or [None] * len(names)
        return [
            _delivery(name, lane, row, fields, at)
            for (name, row, fields, _), at in zip(self._rows(lane, names), ats, strict=True)
        ]

    def outcomes(self, places: Sequence[tuple[Lane, str]]) -> list[str]:
        """What the last attempt of each delivery met, as `load` says it, and nothing else."""
        pipe = self._redis.pipeline()
        for lane, name in places:
            pipe.hmget(LaneKeys(lane).delivery(name), "attempts", "outcome")
        return [_outcome(row) for row in self._redis.answers(pipe)]

    def load_with_tasks(
        self, lane: Lane, names: Sequence[str]
    ) -> list[tuple[Delivery, TrackedTask | None]]:
        """Read deliveries, each with the task that it announces; None if that cannot be read."""
        found = []
        for name, row, fields, record in self._rows(lane, names, with_record=True):
            task = tracked_task(task_of(name), lane, fields, record)
            readable = task if isinstance(task, TrackedTask) else None
            found.append((_delivery(name, lane, row, fields, None), readable))
        return found

    def _rows(
        self, lane: Lane, names: Sequence[str], *, with_record: bool = False
    ) -> list[tuple[str, Any, Any, Any]]:
        """Each name with the fields of the delivery, those of its task, and the upstream record."""
        if not names:
            return []
        keys, ids = LaneKeys(lane), list(map(task_of, names))
        places = [*map(keys.delivery, names), *map(keys.task, ids)]
        places += map(keys.result, ids) if with_record else ()
        answers = self._redis.script("load_deliveries", places, [2 * len(names)])
        hashes = list(map(fields_of, answers[: 2 * len(names)]))
        rows, tasks = hashes[: len(names)], hashes[len(names) :]
        parts = self._common.read(
            (lane, fields.get("in")) for fields in tasks if isinstance(fields, dict)
        )
        whole = [completed(lane, fields, parts) for fields in tasks]
        records = answers[2 * len(names) :] or [None] * len(names)
        return list(zip(names, rows, whole, records, strict=True))


def _delivery(name: str, lane: Lane, row: Any, fields: Any, at: float | None) -> Delivery:
    subscription = name.partition(":")[0]
    task: Mapping[str, str] = fields if isinstance(fields, dict) else {}
    url = task.get(f"to:{subscription}", "")
    # The row of a delivered delivery may expire before its task, which still lists it as closed.
    if subscription in task.get("closed", "").split():
        skipped = subscription in task.get("skipped", "").split()
        state = "skipped" if skipped else "delivered"
    else:
        state = "waiting" if task and "state" not in task else "pending"
    if isinstance(row, dict):
        attempts, outcome = row.get("attempts") or "0", row.get("outcome", "")
        state = row.get("state") or state
        if attempts.isdigit():
            log = row.get("log", "")
            return Delivery(name, lane, url, int(attempts), state, outcome, at, log)
    return Delivery(name, lane, url, 0, state, _UNREADABLE, at)


def _outcome(row: Any) -> str:
    """The outcome among the attempts and the outcome of a delivery, as `_delivery` reads it."""
    attempts, outcome = row if isinstance(row, list) else ("?", "")
    return outcome or "" if (attempts or "0").isdigit() else _UNREADABLE
