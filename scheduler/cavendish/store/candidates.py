"""Reads what the next batches of several lanes may contain, in three round trips for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cavendish.model import Candidate, Lane
from cavendish.policy.service_health import ServiceHealth
from cavendish.store.connection import Connection
from cavendish.store.keys import LaneKeys
from cavendish.store.task_record import CANDIDATE_FIELDS, candidate


@dataclass(slots=True)
class Waiting:
    """What waits in one lane: its `candidates`, without the ids that are leased.

    `first_at` has each producer with pending ids, and when the first of those is due or its lease
    ends; None if it has no id any more. `ends_at` is the earliest deadline, None if nothing is
    pending. `size` is the number of ids that a call may carry; `error` says why the lane cannot be
    read. A lane whose service is `down_until` a later time is not read any further: all its ids
    wait until then.
    """

    lane: Lane
    size: int
    down_until: float
    first_at: dict[str, float | None]
    ends_at: float | None
    candidates: list[Candidate]
    error: Exception | None = None


class CandidateReader:
    """Reads lanes once. Raises StoreUnavailable.

    `healthy`: take each service for healthy, whatever is known of it.
    """

    def __init__(
        self, connection: Connection, now: float, batch_size: int, *, healthy: bool = False
    ) -> None:
        self._redis, self._now, self._batch_size = connection, now, batch_size
        self._healthy = healthy

    def read(self, lanes: list[Lane]) -> dict[Lane, Waiting]:
        """What waits in these lanes: of each producer the first ids by due time, a batch of them.

        A lane that cannot be read does not stop the others.
        """
        found = {one.lane: one for one in map(self._first, lanes, self._overviews(lanes))}
        up = [one for one in found.values() if one.error is None and one.down_until <= self._now]
        heads = self._heads(up)
        ranked = {
            one.lane: [
                (producer, task_id, due)
                for producer in one.first_at
                for task_id, due in heads[one.lane][producer]
            ]
            for one in up
            if one.error is None
        }
        self._read_ids(found, ranked)
        return found

    def _overviews(self, lanes: list[Lane]) -> list[list[Any]]:
        pipe = self._redis.pipeline()
        for lane in lanes:
            keys = LaneKeys(lane)
            pipe.smembers(keys.producers)
            pipe.hget(keys.service_health, "value")
            pipe.zrange(keys.deadlines, 0, 0, withscores=True)
        answers = self._redis.answers(pipe)
        return [answers[start : start + 3] for start in range(0, len(answers), 3)]

    def _first(self, lane: Lane, overview: list[Any]) -> Waiting:
        error = next((answer for answer in overview if isinstance(answer, Exception)), None)
        if error:
            return Waiting(lane, 0, 0.0, {}, None, [], error)
        producers, text, deadlines = overview
        health = ServiceHealth() if self._healthy else ServiceHealth.from_json(text)
        ends_at = deadlines[0][1] if deadlines else None
        size, until = health.batch_size(self._batch_size), health.down_until
        unread = until if until > self._now else None
        first_at: dict[str, float | None] = dict.fromkeys(sorted(producers), unread)
        return Waiting(lane, size, health.down_until, first_at, ends_at, [])

    def _heads(self, lanes: list[Waiting]) -> dict[Lane, dict[str, Any]]:
        places = [(one, producer) for one in lanes for producer in one.first_at]
        pipe = self._redis.pipeline()
        for one, producer in places:
            due = LaneKeys(one.lane).due(producer)
            pipe.zrange(due, 0, one.size - 1, withscores=True)
        heads: dict[Lane, dict[str, Any]] = {one.lane: {} for one in lanes}
        for (one, producer), rows in zip(places, self._redis.answers(pipe), strict=True):
            if isinstance(rows, Exception):
                one.error = rows
                continue
            heads[one.lane][producer] = rows
            one.first_at[producer] = rows[0][1] if rows else None
        return heads

    def _read_ids(
        self, found: Mapping[Lane, Waiting], ranked: dict[Lane, list[tuple[str, str, float]]]
    ) -> None:
        pipe = self._redis.pipeline()
        for lane, rows in ranked.items():
            keys = LaneKeys(lane)
            for _, task_id, _ in rows:
                pipe.hmget(keys.task(task_id), *CANDIDATE_FIELDS)
            if rows:
                pipe.hmget(keys.leases, [task_id for _, task_id, _ in rows])
        answers = iter(self._redis.answers(pipe))
        for lane, rows in ranked.items():
            if not rows:
                continue
            records, leases = [next(answers) for _ in rows], next(answers)
            if isinstance(leases, Exception):
                found[lane].error = leases
                continue
            found[lane].candidates = [
                candidate(producer, task_id, due, record)
                for (producer, task_id, due), record, lease in zip(
                    rows, records, leases, strict=True
                )
                if due <= self._now or lease is None
            ]
