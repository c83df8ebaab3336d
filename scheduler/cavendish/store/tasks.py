"""Tracked tasks in the store: submitted, claimed, settled, released."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis

from cavendish.model import (
    DEEPEST,
    Candidate,
    Lane,
    Record,
    State,
    Submitted,
    TrackedTask,
    compact,
    too_deep,
)
from cavendish.policy.verdicts import Outcome
from cavendish.store.connection import Connection
from cavendish.store.keys import LANES, LaneKeys, delivery_of
from cavendish.submission import SubmitOptions
from cavendish.webhook_endpoint import is_url, subscription_of

#: Ids in one run of a script: long enough to be cheap, short enough (about 10 ms) to let others in
#: between.
CHUNK, CHUNKS_AT_ONCE = 500, 20
Chunk = tuple[Lane, list[str]]


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one outcome.

    The state that was written, or `stale` if the lease was no longer ours.
    """

    id: str
    verdict: str
    deliveries: tuple[str, ...]

    @property
    def ended(self) -> bool:
        return self.verdict not in ("stale", State.PENDING)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The readable records of some ids, and why the others cannot be read."""

    tasks: dict[str, TrackedTask]
    unreadable: dict[str, str]


class Tasks:
    """One method per script, same verb.

    Times in float seconds; every method raises BookUnavailable.
    """

    def __init__(self, connection: Connection, shards: int) -> None:
        self._redis = connection
        self._shards = shards

    def lanes(self) -> list[Lane]:
        """All lanes that exist, in order; a name that is none is passed over."""
        with self._redis.errors():
            names: Iterable[str] = self._redis.redis.smembers(LANES)  # type: ignore[assignment]
        lanes = []
        for name in names:
            with suppress(ValueError):
                lanes.append(Lane.parse(name))
        return sorted(lanes)

    def anything_pending(self) -> bool:
        """True if any lane has ids that have not ended: each of those has a deadline."""
        pipe = self._redis.pipeline()
        for lane in self.lanes():
            pipe.exists(LaneKeys(lane).deadlines)
        with self._redis.errors():
            return any(pipe.execute())

    def add(
        self, ids: Sequence[str], options: SubmitOptions, now: float, first_poll: float
    ) -> dict[str, Submitted]:
        """Begin to track checked ids, in one round trip for each ten thousand.

        Returns the answer per id.
        """
        hooks = [
            (subscription_of(webhook), webhook if is_url(webhook) else "")
            for webhook in options.webhooks
        ]
        common = [
            now,
            first_poll,
            now + options.deadline,
            int(options.restart),
            options.metadata,
            options.model,
            options.producer,
        ]
        common += [options.trace]
        common += [len(hooks), *(text for pair in hooks for text in pair)]
        found: dict[str, Submitted] = {}
        chunks = list(self._chunks(ids, options))
        for start in range(0, len(chunks), CHUNKS_AT_ONCE):
            some = chunks[start : start + CHUNKS_AT_ONCE]
            found |= self._add(
                some, options.producer, [subscription for subscription, _ in hooks], common
            )
        return found

    def _add(
        self, chunks: Sequence[Chunk], producer: str, hooks: Sequence[str], common: list[Any]
    ) -> dict[str, Submitted]:
        batch = self._redis.batch()
        # The lanes first: a lane without ids is harmless, ids without a lane are lost.
        for lane in dict.fromkeys(lane for lane, _ in chunks):
            batch.command(LANES, "SADD", LANES, str(lane))
        for lane, chunk in chunks:
            keys = LaneKeys(lane)
            names = [
                keys.due(producer),
                keys.deadlines,
                keys.pending_deliveries,
                keys.counts,
                keys.producers,
            ]
            names += [keys.dead, keys.quarantined, keys.ended]
            for task_id in chunk:
                deliveries = [
                    keys.delivery(delivery_of(subscription, task_id)) for subscription in hooks
                ]
                names += [keys.task(task_id), keys.result(task_id), *deliveries]
            batch.queue("add", names, [*common, *chunk])
        answers = batch.execute()[-len(chunks) :]
        return {
            task_id: Submitted(task_id, outcome, State(state))
            for (_, chunk), flat in zip(chunks, answers, strict=True)
            for task_id, outcome, state in zip(chunk, flat[::2], flat[1::2], strict=True)
        }

    def _chunks(self, ids: Sequence[str], options: SubmitOptions) -> Iterator[Chunk]:
        by_lane: dict[Lane, list[str]] = {}
        for task_id in ids:
            by_lane.setdefault(
                Lane.of(options.account, options.service, task_id, self._shards), []
            ).append(task_id)
        for lane, members in by_lane.items():
            for start in range(0, len(members), CHUNK):
                yield lane, members[start : start + CHUNK]

    def candidates(self, lane: Lane, now: float, at_most: int) -> list[Candidate]:
        """The ids next in turn of each producer (at most so many of each), without those that are
        being asked about.
        """
        keys = LaneKeys(lane)
        with self._redis.errors():
            producers = sorted(
                str(producer) for producer in self._redis.redis.smembers(keys.producers)
            )
            pipe = self._redis.pipeline()
            for producer in producers:
                pipe.zrange(keys.due(producer), 0, at_most - 1, withscores=True)
            ranked = [
                (producer, *row)
                for producer, rows in zip(producers, pipe.execute(), strict=True)
                for row in rows
            ]
            if not ranked:
                return []
            pipe = self._redis.pipeline()
            for _, task_id, _ in ranked:
                pipe.hmget(keys.task(task_id), *_WEIGHED)
            pipe.hmget(keys.leases, [task_id for _, task_id, _ in ranked])
        *rows, leases = self._redis.answers(pipe)
        return [
            _candidate(producer, task_id, due, row)
            for (producer, task_id, due), row, lease in zip(ranked, rows, leases, strict=True)
            if due <= now or lease is None
        ]

    def claim(self, lane: Lane, until: float, token: str, chosen: Sequence[Candidate]) -> list[str]:
        """Take chosen ids, unless somebody was faster; they are ours until `until`."""
        keys = LaneKeys(lane)
        names = [keys.leases, *(keys.due(one.producer) for one in chosen)]
        args = [until, token, *(value for one in chosen for value in (one.id, repr(one.due)))]
        taken: list[str] = self._redis.script("claim", names, args) if chosen else []
        return taken

    def overdue(self, lane: Lane, before: float, token: str, at_most: int) -> list[str]:
        """Take ids whose deadline lies before `before`, whatever else they wait for."""
        keys = LaneKeys(lane)
        taken: list[str] = self._redis.script(
            "overdue", [keys.deadlines, keys.leases], [before, token, at_most]
        )
        return taken

    def release(
        self,
        lane: Lane,
        token: str,
        tasks: Sequence[TrackedTask | Candidate],
        not_before: float | None = None,
    ) -> int:
        """Give ids back without charging a poll, at their old due time or not before `not_before`."""
        keys = LaneKeys(lane)
        names = [keys.leases, *(keys.due(task.producer) for task in tasks)]
        args = [token, "" if not_before is None else not_before, *(task.id for task in tasks)]
        return int(self._redis.script("release", names, args)) if tasks else 0

    def quarantine(self, lane: Lane, unreadable: dict[str, str]) -> None:
        """Take records that cannot be read out of the round; they are kept and reported."""
        keys = LaneKeys(lane)
        with self._redis.errors():
            producers: Iterable[str] = self._redis.redis.smembers(keys.producers)  # type: ignore[assignment]
        names = [
            keys.deadlines,
            keys.leases,
            keys.quarantined,
            *(keys.due(producer) for producer in producers),
        ]
        self._redis.script(
            "quarantine", names, [text for pair in unreadable.items() for text in pair]
        )

    def tally(self, lane: Lane, **counts: int) -> None:
        """Add to the totals of a lane that `status` shows."""
        for name, number in counts.items():
            if number:
                self._redis.write_when_full(LaneKeys(lane).counts, "HINCRBY", name, number)

    def settle(
        self,
        lane: Lane,
        token: str,
        now: float,
        outcomes: Sequence[tuple[Outcome, float]],
        retention: float,
        events_kept: int,
    ) -> list[Settled]:
        """Write the outcomes of one batch back, each with the time of its next poll, in one atomic
        step.
        """
        if not outcomes:
            return []
        keys = LaneKeys(lane)
        names = [
            keys.deadlines,
            keys.leases,
            keys.pending_deliveries,
            keys.counts,
            keys.events,
            keys.producers,
            keys.ended,
        ]
        args: list[Any] = [now, token, int(retention), events_kept]
        for outcome, due in outcomes:
            task = outcome.task
            names += [keys.due(task.producer), keys.task(task.id), keys.result(task.id)]
            args += [task.id, task.producer, outcome.state.value, due, task.polls + 1]
            args += [
                outcome.absences,
                _text(outcome.absent_since),
                _text(outcome.finished_at),
                outcome.reason,
            ]
            args += [outcome.model or task.model, _kept(outcome.record), _delay(outcome, now)]
        flat = self._redis.script("settle", names, args, durable=True)
        return [
            Settled(
                outcome.task.id,
                verdict,
                tuple(
                    delivery_of(subscription, outcome.task.id)
                    for subscription in deliveries.split()
                ),
            )
            for (outcome, _), verdict, deliveries in zip(
                outcomes, flat[::2], flat[1::2], strict=True
            )
        ]

    def load(
        self, lane: Lane, ids: Sequence[str], *, token: str | None = None, with_record: bool = False
    ) -> Loaded:
        """Read tracked tasks in one round trip. With `token`: only those whose lease is still that
        one.

        A missing id is in neither part of the answer, unless it is leased: then a due id has lost
        its record.
        """
        keys = LaneKeys(lane)
        pipe = self._redis.pipeline()
        for task_id in ids:
            pipe.hgetall(keys.task(task_id))
            pipe.hget(keys.leases, task_id)
            if with_record:
                pipe.get(keys.result(task_id))
        rows = iter(self._redis.answers(pipe))
        loaded = Loaded({}, {})
        for task_id in ids:
            fields, lease, record = next(rows), next(rows), next(rows) if with_record else None
            if token is not None and (
                not isinstance(lease, str) or not lease.startswith(f"{token} ")
            ):
                continue
            try:
                task = _read(task_id, lane, fields, record)
            except (
                TypeError,
                ValueError,
                KeyError,
                AttributeError,
                RecursionError,
                redis.RedisError,
            ) as error:
                loaded.unreadable[task_id] = f"{type(error).__name__}: {error}"[:200]
                continue
            if task is not None:
                loaded.tasks[task_id] = task
            elif token is not None:
                loaded.unreadable[task_id] = "the id is due, and has no record"
        return loaded

    def get(
        self, account: str, service: str, ids: Sequence[str], *, with_record: bool = True
    ) -> dict[str, TrackedTask]:
        """Look up ids of one service, wherever they lie.

        Unknown and unreadable ones are left out.
        """
        by_lane: dict[Lane, list[str]] = {}
        for task_id in ids:
            by_lane.setdefault(Lane.of(account, service, task_id, self._shards), []).append(task_id)
        found: dict[str, TrackedTask] = {}
        for lane, members in by_lane.items():
            for start in range(0, len(members), CHUNK):
                found |= self.load(
                    lane, members[start : start + CHUNK], with_record=with_record
                ).tasks
        return found


_WEIGHED = ("submitted_at", "deadline_at", "polled_at", "model")


def _candidate(producer: str, task_id: str, due: float, row: Any) -> Candidate:
    """An unreadable record is a candidate all the same: whoever claims it sets it aside."""
    try:
        submitted_at, deadline_at, polled_at, model = row
        return Candidate(
            task_id,
            producer,
            due,
            float(submitted_at),
            float(deadline_at),
            _time(polled_at),
            model or "",
        )
    except (TypeError, ValueError):
        return Candidate(task_id, producer, due, due, due, None, "")


def _text(value: float | None) -> str:
    return "" if value is None else repr(value)


def _delay(outcome: Outcome, now: float) -> str:
    """Seconds from the finish, or from a submit after it, to now.

    Empty where nobody says when it finished.
    """
    if outcome.finished_at is None:
        return ""
    return f"{max(now - max(outcome.finished_at, outcome.task.submitted_at), 0.0):.3f}"


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
        polls=int(fields.get("polls") or 0),
        polled_at=_time(fields.get("polled_at")),
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
        trace=fields.get("trace", ""),
    )


def _kept(record: Record | None) -> str:
    """A record as it is stored.

    One nested so deep that nobody could read it back is replaced by a word about it.
    """
    if record is None:
        return ""
    if not too_deep(record):
        return compact(record)
    return compact({"cavendish": f"the record is nested more than {DEEPEST} deep and was not kept"})


def _time(text: str | None) -> float | None:
    return float(text) if text else None


def _record(text: str | None) -> Record | None:
    read = json.loads(text) if text else None
    if read is not None and not isinstance(read, dict):
        raise ValueError("the stored record is no JSON object")
    return read
