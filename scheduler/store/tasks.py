"""Tracked tasks in the book: submitted, claimed, settled, released."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from scheduler.store.connection import Connection
from scheduler.store.keys import LANES, LaneKeys, debt_of
from scheduler.submission import Wishes, endpoint_of
from scheduler.tracking import Lane, Record, State, Submitted, TrackedTask, compact
from scheduler.verdicts import Outcome

#: Ids in one run of a script: long enough to be cheap, short enough (about 10 ms) to let others in between.
CHUNK = 500


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one outcome: the state that was written, or `stale` if the lease was no longer ours."""

    id: str
    verdict: str
    debts: tuple[str, ...]

    @property
    def ended(self) -> bool:
        return self.verdict not in ("stale", State.PENDING)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The readable records of some ids, and why the others cannot be read."""

    tasks: dict[str, TrackedTask]
    unreadable: dict[str, str]


class Tasks:
    """One method per script, same verb. Times in float seconds; every method raises BookUnavailable."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._redis = connection
        self._shards = shards

    def lanes(self) -> list[Lane]:
        """All lanes that exist, in order."""
        with self._redis.errors():
            names: Iterable[str] = self._redis.redis.smembers(LANES)  # type: ignore[assignment]
        return sorted(Lane.parse(name) for name in names)

    def add(self, ids: Sequence[str], wishes: Wishes, now: float, first_look: float) -> dict[str, Submitted]:
        """Begin to track checked ids, in one round trip. Returns the answer per id."""
        endpoints = [(endpoint_of(url), url) for url in wishes.webhooks]
        common = [now, first_look, now + wishes.deadline, int(wishes.again), wishes.metadata, wishes.model, wishes.producer]
        common += [len(endpoints), *(text for pair in endpoints for text in pair)]
        chunks = list(self._chunks(ids, wishes))
        pipe = self._redis.pipeline()
        for lane in dict.fromkeys(lane for lane, _ in chunks):
            pipe.sadd(LANES, str(lane))  # before the ids: a lane without ids is harmless, ids without a lane are lost
        for lane, chunk in chunks:
            keys = LaneKeys(lane)
            names = [keys.due, keys.deadlines, keys.owed, keys.counts]
            for task_id in chunk:
                deliveries = [keys.delivery(debt_of(endpoint, task_id)) for endpoint, _ in endpoints]
                names += [keys.task(task_id), keys.result(task_id), *deliveries]
            self._redis.queue(pipe, "add", names, [*common, *chunk])
        with self._redis.errors():
            answers = pipe.execute()[-len(chunks) :] if chunks else []
        found: dict[str, Submitted] = {}
        for (_, chunk), flat in zip(chunks, answers, strict=True):
            for task_id, outcome, state in zip(chunk, flat[::2], flat[1::2], strict=True):
                found[task_id] = Submitted(task_id, outcome, State(state))
        return found

    def _chunks(self, ids: Sequence[str], wishes: Wishes) -> Iterator[tuple[Lane, list[str]]]:
        by_lane: dict[Lane, list[str]] = {}
        for task_id in ids:
            by_lane.setdefault(Lane.of(wishes.account, wishes.service, task_id, self._shards), []).append(task_id)
        for lane, members in by_lane.items():
            for start in range(0, len(members), CHUNK):
                yield lane, members[start : start + CHUNK]

    def due(self, lanes: Sequence[Lane], now: float) -> dict[Lane, int]:
        """How many ids of each lane are due."""
        pipe = self._redis.pipeline()
        for lane in lanes:
            pipe.zcount(LaneKeys(lane).due, "-inf", now)
        with self._redis.errors():
            return dict(zip(lanes, pipe.execute(), strict=True)) if lanes else {}

    def claim(self, lane: Lane, now: float, until: float, token: str, at_most: int) -> list[str]:
        """Take the ids most worth a look; they are ours until `until`."""
        keys = LaneKeys(lane)
        taken: list[str] = self._redis.script("claim", [keys.due, keys.leases], [now, until, token, at_most])
        return taken

    def overdue(self, lane: Lane, before: float, until: float, token: str, at_most: int) -> list[str]:
        """Take ids whose deadline lies before `before`, whatever else they wait for."""
        keys = LaneKeys(lane)
        names = [keys.deadlines, keys.due, keys.leases]
        taken: list[str] = self._redis.script("overdue", names, [before, until, token, at_most])
        return taken

    def release(self, lane: Lane, token: str, ids: Sequence[str], not_before: float | None = None) -> int:
        """Give ids back without charging a look, at their old due time or not before `not_before`."""
        keys = LaneKeys(lane)
        at = "" if not_before is None else not_before
        return int(self._redis.script("release", [keys.due, keys.leases], [token, at, *ids])) if ids else 0

    def set_aside(self, lane: Lane, unreadable: dict[str, str]) -> None:
        """Take records that cannot be read out of the round; they are kept and reported."""
        keys = LaneKeys(lane)
        pairs = [text for pair in unreadable.items() for text in pair]
        self._redis.script("set_aside", [keys.due, keys.deadlines, keys.leases, keys.aside], pairs)

    def tally(self, lane: Lane, **counts: int) -> None:
        """Add to the totals of a lane that `status` shows."""
        pipe = self._redis.pipeline()
        for name, number in counts.items():
            if number:
                pipe.hincrby(LaneKeys(lane).counts, name, number)
        with self._redis.errors():
            pipe.execute()

    def settle(
        self, lane: Lane, token: str, now: float, outcomes: Sequence[tuple[Outcome, float]], retention: float, events_kept: int
    ) -> list[Settled]:
        """Write the outcomes of one batch back, each with the time of its next look, in one atomic step."""
        if not outcomes:
            return []
        keys = LaneKeys(lane)
        names = [keys.due, keys.deadlines, keys.leases, keys.owed, keys.counts, keys.events]
        args: list[Any] = [now, token, int(retention), events_kept]
        for outcome, due in outcomes:
            task = outcome.task
            names += [keys.task(task.id), keys.result(task.id)]
            args += [task.id, outcome.state.value, due, task.looks + 1, outcome.absences, _text(outcome.absent_since)]
            args += [_text(outcome.finished_at), outcome.reason, "" if outcome.record is None else compact(outcome.record)]
        flat = self._redis.script("settle", names, args)
        return [
            Settled(outcome.task.id, verdict, tuple(debt_of(endpoint, outcome.task.id) for endpoint in debts.split()))
            for (outcome, _), verdict, debts in zip(outcomes, flat[::2], flat[1::2], strict=True)
        ]

    def load(self, lane: Lane, ids: Sequence[str], *, token: str | None = None, with_record: bool = False) -> Loaded:
        """Read tracked tasks in one round trip. With `token`: only those whose lease is still that one.

        A missing id is in neither part of the answer, unless it is leased: then a due id has lost its record.
        """
        keys = LaneKeys(lane)
        pipe = self._redis.pipeline()
        for task_id in ids:
            pipe.hgetall(keys.task(task_id))
            pipe.hget(keys.leases, task_id)
            if with_record:
                pipe.get(keys.result(task_id))
        with self._redis.errors():
            rows = iter(pipe.execute(raise_on_error=False))
            loaded = Loaded({}, {})
            for task_id in ids:
                fields, lease, record = next(rows), next(rows), next(rows) if with_record else None
                if isinstance(fields, redis.ConnectionError):
                    raise fields
                if token is not None and (not isinstance(lease, str) or not lease.startswith(f"{token} ")):
                    continue
                try:
                    task = _read(task_id, lane, fields, record)
                except (TypeError, ValueError, KeyError, AttributeError, redis.RedisError) as error:
                    loaded.unreadable[task_id] = f"{type(error).__name__}: {error}"[:200]
                    continue
                if task is not None:
                    loaded.tasks[task_id] = task
                elif token is not None:
                    loaded.unreadable[task_id] = "the id is due, and has no record"
        return loaded

    def get(self, account: str, service: str, ids: Sequence[str], *, with_record: bool = True) -> dict[str, TrackedTask]:
        """Look up ids of one service, wherever they lie. Unknown and unreadable ones are left out."""
        by_lane: dict[Lane, list[str]] = {}
        for task_id in ids:
            by_lane.setdefault(Lane.of(account, service, task_id, self._shards), []).append(task_id)
        found: dict[str, TrackedTask] = {}
        for lane, members in by_lane.items():
            for start in range(0, len(members), CHUNK):
                found |= self.load(lane, members[start : start + CHUNK], with_record=with_record).tasks
        return found


def _text(value: float | None) -> str:
    return "" if value is None else repr(value)


def _read(task_id: str, lane: Lane, fields: Any, record: str | None) -> TrackedTask | None:
    if isinstance(fields, redis.RedisError):
        raise fields
    if not fields:
        return None
    metadata = fields.get("metadata")
    return TrackedTask(
        id=task_id,
        service=lane.service,
        account=lane.account,
        state=State(fields["state"]),
        submitted_at=float(fields["submitted_at"]),
        deadline_at=float(fields["deadline_at"]),
        round=int(fields.get("round") or 0),
        looks=int(fields.get("looks") or 0),
        looked_at=_time(fields.get("looked_at")),
        absences=int(fields.get("absences") or 0),
        absent_since=_time(fields.get("absent_since")),
        finished_at=_time(fields.get("finished_at")),
        settled_at=_time(fields.get("settled_at")),
        reason=fields.get("reason", ""),
        model=fields.get("model", ""),
        producer=fields.get("producer", ""),
        metadata=json.loads(metadata) if metadata else None,
        webhooks=tuple(fields.get("webhooks", "").split()),
        record=_record(record),
    )


def _time(text: str | None) -> float | None:
    return float(text) if text else None


def _record(text: str | None) -> Record | None:
    read = json.loads(text) if text else None
    if read is not None and not isinstance(read, dict):
        raise ValueError("the stored record is no JSON object")
    return read
