"""Reads what the next batches of several lanes may contain, in a few round trips for all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from cavendish.model import Candidate, Lane
from cavendish.policy.service_health import ServiceHealth
from cavendish.store.common_parts import CommonParts, completed_all
from cavendish.store.connection import Connection
from cavendish.store.keys import LaneKeys
from cavendish.store.redis_clients import Pipeline
from cavendish.store.task_record import candidate, fields_of

#: Seconds after which candidates are read anew.
SEEN_FOR = 1.0
#: Characters of a record that is kept for the settling of its id; a longer one is read again.
KEPT_LENGTH = 2000


@dataclass(slots=True)
class Waiting:
    """What waits in one lane: its `candidates`, without the ids that are leased.

    `first_at` has each producer with pending ids, and when the first of those is due or its lease
    ends; None if it has no id any more. `size` is the number of ids that a call may carry;
    `failing` says that its last call failed; `error` says why the lane cannot be read. A lane whose
    service is `down_until` a later time is not read any further: all its ids wait until then.
    """

    lane: Lane
    size: int
    down_until: float
    first_at: dict[str, float | None]
    candidates: list[Candidate]
    failing: bool = False
    error: Exception | None = None

    @property
    def ended(self) -> bool:
        """True if nothing is pending in it any more."""
        return self.error is None and all(at is None for at in self.first_at.values())


@dataclass(slots=True)
class Seen:
    """The candidates that one process saw at its last looks at a lane, by id, and the `records`
    that they were read from, unless those are long; and of whom that was: the `producers` then, and
    the `size` of a batch.

    Whoever changes a pending record changes its due time too: see `due_sooner.lua`. They are read
    anew every second all the same, since an older version may run beside this one.
    """

    since: float = -math.inf
    found: dict[str, Candidate] = field(default_factory=dict)
    records: dict[str, Mapping[str, str]] = field(default_factory=dict)
    producers: tuple[str, ...] = ()
    size: int = 0

    def keep(self, candidates: Iterable[Candidate]) -> None:
        """Keep what was seen of these, and nothing of others."""
        self.found = {one.id: one for one in candidates}
        records = ((task_id, self.records.get(task_id)) for task_id in self.found)
        self.records = {task_id: record for task_id, record in records if record is not None}

    def still(self, producer: str, task_id: str, due: float) -> Candidate | None:
        """The candidate, if it is due when it was."""
        one = self.found.get(task_id)
        return one if one and one.due == due and one.producer == producer else None


class _Heads(NamedTuple):
    """Of each of these producers the first `size` ids by due time, and how many are due: two
    answers each.
    """

    producers: tuple[str, ...]
    size: int
    answers: list[Any]


class CandidateReader:
    """Reads lanes once. Raises StoreUnavailable.

    `batches`: how many batches may be made of a lane; a service that fails gets one. `healthy`:
    take each service for healthy, whatever is known of it, and for one that takes so many ids.
    `seen`: what earlier looks saw; this one is added.
    """

    def __init__(
        self,
        connection: Connection,
        common: CommonParts,
        now: float,
        batch_size: int,
        *,
        batches: int = 1,
        healthy: bool = False,
        seen: dict[Lane, Seen] | None = None,
    ) -> None:
        self._redis, self._common = connection, common
        self._now, self._batch_size = now, batch_size
        self._batches, self._healthy = batches, healthy
        self._seen = {} if seen is None else seen

    def read(self, lanes: list[Lane]) -> dict[Lane, Waiting]:
        """What waits in these lanes: of each producer the first ids by due time, a batch of them,
        and more of those that are due if several batches may be made.

        A lane that cannot be read does not stop the others.
        """
        overviews = self._overviews(lanes)
        found = {lane: self._first(lane, seen) for lane, (seen, _) in overviews.items()}
        up = [one for one in found.values() if one.error is None and one.down_until <= self._now]
        heads = self._heads(up, {lane: read for lane, (_, read) in overviews.items()})
        ranked = {
            one.lane: [
                (producer, task_id, due)
                for producer in one.first_at
                for task_id, due in heads[one.lane][producer]
            ]
            for one in up
            if one.error is None and any(heads[one.lane].values())
        }
        self._read_ids(found, ranked)
        return found

    def _overviews(self, lanes: list[Lane]) -> dict[Lane, tuple[list[Any], _Heads]]:
        """Of each lane the producers and the service health, and with them the heads that the last
        look needed: most likely these are needed again.
        """
        pipe, needed = self._redis.pipeline(), dict[Lane, Seen]()
        for lane in lanes:
            keys, needed[lane] = LaneKeys(lane), self._seen.get(lane, Seen())
            pipe.smembers(keys.producers)
            pipe.hget(keys.service_health, "value")
            self._ask_heads(pipe, lane, needed[lane].producers, needed[lane].size)
        answers, found = iter(self._redis.answers(pipe)), dict[Lane, tuple[list[Any], _Heads]]()
        for lane, before in needed.items():
            overview = list(islice(answers, 2))
            rows = list(islice(answers, 2 * len(before.producers)))
            found[lane] = overview, _Heads(before.producers, before.size, rows)
        return found

    def _first(self, lane: Lane, overview: list[Any]) -> Waiting:
        error = next((answer for answer in overview if isinstance(answer, Exception)), None)
        if error:
            return Waiting(lane, 0, 0.0, {}, [], error=error)
        producers, text = overview
        health = ServiceHealth() if self._healthy else ServiceHealth.from_json(text)
        size = self._batch_size if self._healthy else health.batch_size(self._batch_size)
        until = health.down_until
        unread = until if until > self._now else None
        first_at: dict[str, float | None] = dict.fromkeys(sorted(producers), unread)
        failing = health.failures > 0
        return Waiting(lane, size, health.down_until, first_at, [], failing)

    def _heads(self, lanes: list[Waiting], read: dict[Lane, _Heads]) -> dict[Lane, dict[str, Any]]:
        """The heads of these lanes by producer, also of those that nobody has `read` yet."""
        unread = [one for one in lanes if read[one.lane][:2] != (tuple(one.first_at), one.size)]
        pipe = self._redis.pipeline()
        for one in unread:
            self._ask_heads(pipe, one.lane, one.first_at, one.size)
        answers = iter(self._redis.answers(pipe) if unread else ())
        for one in unread:
            rows = list(islice(answers, 2 * len(one.first_at)))
            read[one.lane] = _Heads(tuple(one.first_at), one.size, rows)
        heads: dict[Lane, dict[str, Any]] = {one.lane: {} for one in lanes}
        more = list[tuple[Waiting, str]]()
        for one in lanes:
            producers, _, found = read[one.lane]
            for producer, rows, due_now in zip(producers, found[::2], found[1::2], strict=True):
                if isinstance(rows, Exception):
                    one.error = rows
                    continue
                heads[one.lane][producer] = rows
                one.first_at[producer] = rows[0][1] if rows else None
                if self._batches > 1 and not one.failing and due_now > one.size:
                    more.append((one, producer))
        self._read_more(heads, more)
        return heads

    def _ask_heads(self, pipe: Pipeline, lane: Lane, producers: Iterable[str], size: int) -> None:
        for producer in producers:
            due = LaneKeys(lane).due(producer)
            pipe.zrange(due, 0, size - 1, withscores=True)
            pipe.zcount(due, "-inf", self._now)

    def _read_more(
        self, heads: dict[Lane, dict[str, Any]], places: list[tuple[Waiting, str]]
    ) -> None:
        """Of lanes in which more than a batch is due, the due ids of the batches behind it."""
        if not places:
            return
        pipe = self._redis.pipeline()
        for one, producer in places:
            due, many = LaneKeys(one.lane).due(producer), one.size * (self._batches - 1)
            pipe.zrangebyscore(due, "-inf", self._now, one.size, many, withscores=True)
        for (one, producer), rows in zip(places, self._redis.answers(pipe), strict=True):
            if not isinstance(rows, Exception):
                heads[one.lane][producer] += rows

    def _read_ids(
        self, found: Mapping[Lane, Waiting], ranked: dict[Lane, list[tuple[str, str, float]]]
    ) -> None:
        new: dict[Lane, dict[str, Candidate]] = {}
        seen = {lane: self._seen_of(lane) for lane in ranked}
        unseen = {
            lane: [row for row in rows if not before.still(*row)]
            for (lane, rows), before in zip(ranked.items(), seen.values(), strict=True)
        }
        for lane, answer in self._loaded({lane: rows for lane, rows in unseen.items() if rows}):
            error = answer if isinstance(answer, Exception) else answer[0]
            if isinstance(error, Exception):
                found[lane].error = error
            else:
                new[lane] = self._read_records(lane, unseen[lane], answer, seen[lane].records)
        for lane, rows in ranked.items():
            if found[lane].error is None:
                read, before = new.get(lane, {}), seen[lane]
                some = [read.get(row[1]) or before.still(*row) for row in rows]
                found[lane].candidates = [one for one in some if one is not None]
                before.keep(found[lane].candidates)
                before.producers, before.size = tuple(found[lane].first_at), found[lane].size

    def _seen_of(self, lane: Lane) -> Seen:
        seen = self._seen.get(lane)
        if seen is None or not 0 <= self._now - seen.since < SEEN_FOR:
            seen = self._seen[lane] = Seen(self._now)
        return seen

    def _loaded(
        self, unseen: Mapping[Lane, Sequence[tuple[str, str, float]]]
    ) -> Iterable[tuple[Lane, Any]]:
        """The answer of `load.lua` for each lane."""
        calls = []
        for lane, rows in unseen.items():
            ids, keys = [task_id for _, task_id, _ in rows], LaneKeys(lane)
            calls.append(([keys.leases, *map(keys.task, ids)], ids))
        return zip(unseen, self._redis.scripts("load", calls), strict=True)

    def _read_records(
        self,
        lane: Lane,
        rows: Sequence[tuple[str, str, float]],
        answer: Sequence[Any],
        kept: dict[str, Mapping[str, str]],
    ) -> dict[str, Candidate]:
        """The candidates of these rows, by id, without those that are leased; `kept` gets the
        records of all that are not long.
        """
        leases, records = answer[0], list(map(fields_of, answer[1:]))
        parts = self._common.read(
            (lane, fields.get("in")) for fields in records if isinstance(fields, dict)
        )
        candidates, wholes = {}, completed_all(lane, records, parts)
        several = zip(rows, records, wholes, leases, strict=True)
        for (producer, task_id, due), fields, whole, lease in several:
            if due <= self._now or lease is None:
                candidates[task_id] = candidate(producer, task_id, due, whole)
                if isinstance(whole, dict) and sum(map(len, fields.values())) <= KEPT_LENGTH:
                    kept[task_id] = whole
        return candidates
