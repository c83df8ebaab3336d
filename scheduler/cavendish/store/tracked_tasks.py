"""Tracked tasks in the store: submitted, claimed, settled, released, read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cavendish.model import Candidate, Lane, State, Submitted, TrackedTask
from cavendish.policy.verdicts import Outcome
from cavendish.store.candidates import CandidateReader, Waiting
from cavendish.store.common_parts import CommonParts, Part, completed
from cavendish.store.connection import Batch, Connection
from cavendish.store.due_index import DueIndex, Place, first_look, next_looks
from cavendish.store.keys import DEADLINES, DELIVERIES, LANES, LaneKeys, delivery_of
from cavendish.store.producer_usage import ProducerUsage
from cavendish.store.task_record import settle_args, tracked_task
from cavendish.stored_json import compact
from cavendish.submission import SubmitOptions
from cavendish.webhook_endpoint import is_url, subscription_of

#: Ids in one run of a script: enough to be cheap, few enough (about 10 ms) not to block others; and
#: runs in one round trip.
CHUNK, CHUNKS_AT_ONCE = 500, 20
#: Seconds for which events are kept at least after the last end in their lane.
EVENTS_KEPT_FOR = 7 * 86400
Chunk = tuple[Lane, list[str]]
Waits = dict[Lane, Waiting]


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one outcome: `verdict` is the state that was written, or `stale`
    if the lease was lost.

    `deliveries` are those that became pending.
    """

    id: str
    verdict: str
    deliveries: tuple[str, ...]

    @property
    def ended(self) -> bool:
        """True if a terminal state was written."""
        return self.verdict not in ("stale", State.PENDING)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The readable tasks by id, and by id why the others are unreadable."""

    tasks: dict[str, TrackedTask]
    unreadable: dict[str, str]


class Tasks:
    """One method per script, of the same name.

    Times are float seconds since the epoch; every method raises StoreUnavailable.
    """

    def __init__(self, connection: Connection, shards: int) -> None:
        self._redis = connection
        self._shards = shards
        self._common = CommonParts(connection)
        #: By account the lanes with pending ids, and when the first deadline of each passes.
        self.deadlines = DueIndex(connection, DEADLINES)
        self._usage = ProducerUsage(connection)
        self._deliveries = DueIndex(connection, DELIVERIES)

    def lanes(self) -> list[Lane]:
        """All lanes that exist, in order; a damaged name is skipped."""
        lanes = []
        for name in self._members(LANES):
            with suppress(ValueError):
                lanes.append(Lane.parse(name))
        return sorted(lanes)

    def anything_pending(self) -> bool:
        """True if any lane has ids that have not ended: each of those has a deadline."""
        return self.deadlines.anything()

    def due(self, account: str) -> DueIndex:
        """The lanes of an account that are worth a look, by producer."""
        return DueIndex(self._redis, account)

    def add(
        self, ids: Sequence[str], options: SubmitOptions, now: float, first_poll: float
    ) -> dict[str, Submitted]:
        """Begin to track checked ids, ten thousand in each round trip; the answer by id."""
        urls = [(subscription_of(one), one if is_url(one) else "") for one in options.webhooks]
        metadata = Part.of({"metadata": options.metadata} if options.metadata else {})
        apart = Part.of({f"to:{name}": url for name, url in urls if url})
        fields = {"model": options.model, "producer": options.producer, "trace": options.trace}
        fields |= {} if metadata.name else {"metadata": options.metadata}
        common = [
            now,
            first_poll,
            now + options.deadline,
            int(options.restart),
            options.producer,
            compact([text for pair in fields.items() if pair[1] for text in pair]),
            *(metadata.name, metadata.text, apart.name, apart.text),
            len(urls),
            *(text for name, url in urls for text in (name, "" if apart.name else url)),
        ]
        chunks = list(self._by_lane(options.account, options.service, ids))
        look_at = first_look(now, first_poll)
        submitted: dict[str, Submitted] = {}
        for start in range(0, len(chunks), CHUNKS_AT_ONCE):
            some = chunks[start : start + CHUNKS_AT_ONCE]
            batch = self._redis.batch()
            self._note(batch, options, {lane for lane, _ in some}, now, look_at)
            if self._redis.clustered:  # a batch keeps its order at each primary only
                batch.execute()
                batch = self._redis.batch()
            submitted |= self._add(
                batch, some, options.producer, [name for name, _ in urls], common
            )
        return submitted

    def _note(
        self,
        batch: Batch,
        options: SubmitOptions,
        lanes: Iterable[Lane],
        now: float,
        look_at: float,
    ) -> None:
        """The indices first, then the lanes, then the ids: a lane without ids is harmless, and one
        that is in no index is forgotten. `LaneRegistry` relies on this order.
        """
        lanes = sorted(lanes)
        places = [Place(options.producer, lane, look_at) for lane in lanes]
        self.due(options.account).note_in(batch, places, now)
        ends_at = now + options.deadline
        places = [Place(options.account, lane, ends_at) for lane in lanes]
        self.deadlines.note_in(batch, places, now)
        if options.webhooks:  # an id may have ended
            places = [Place(options.account, lane, now) for lane in lanes]
            self._deliveries.note_in(batch, places, now)
        for lane in lanes:
            batch.command(LANES, "SADD", LANES, str(lane))

    def _add(
        self,
        batch: Batch,
        chunks: Sequence[Chunk],
        producer: str,
        subscriptions: Sequence[str],
        common: list[Any],
    ) -> dict[str, Submitted]:
        for lane, chunk in chunks:
            keys = LaneKeys(lane)
            names = [keys.due(producer), keys.deadlines, keys.inbox, keys.counts, keys.producers]
            names += [keys.dead, keys.quarantined, keys.ended]
            names += [keys.common, keys.common_open, keys.common_until]
            for task_id in chunk:
                names += [keys.task(task_id), keys.result(task_id)]
                names += [keys.delivery(delivery_of(each, task_id)) for each in subscriptions]
            batch.queue("add", names, [*common, *chunk])
        answers = batch.execute()[-len(chunks) :]
        return {
            task_id: Submitted(task_id, outcome, State(state))
            for (_, chunk), flat in zip(chunks, answers, strict=True)
            for task_id, outcome, state in zip(chunk, flat[::2], flat[1::2], strict=True)
        }

    def _by_lane(self, account: str, service: str, ids: Sequence[str]) -> Iterator[Chunk]:
        by_lane: dict[Lane, list[str]] = {}
        for task_id in ids:
            lane = Lane.of(account, service, task_id, self._shards)
            by_lane.setdefault(lane, []).append(task_id)
        for lane, members in by_lane.items():
            for start in range(0, len(members), CHUNK):
                yield lane, members[start : start + CHUNK]

    def waiting(self, lanes: list[Lane], now: float, size: int, batches: int = 1) -> Waits:
        """What the next batches of these lanes may contain: so many batches of each."""
        return CandidateReader(self._redis, now, size, batches=batches).read(lanes)

    def candidates(self, lane: Lane, now: float, at_most: int) -> list[Candidate]:
        """The first `at_most` ids of each producer by due time, without those that are leased."""
        reader = CandidateReader(self._redis, now, at_most, healthy=True)
        return reader.read([lane])[lane].candidates

    def claim(self, lane: Lane, until: float, token: str, chosen: Sequence[Candidate]) -> list[str]:
        """Lease chosen ids until `until`, without those that another process leased meanwhile."""
        (claimed,) = self.claim_all(until, [(lane, token, chosen)])
        if isinstance(claimed, Exception):
            raise claimed
        return claimed

    def claim_all(
        self, until: float, batches: Sequence[tuple[Lane, str, Sequence[Candidate]]]
    ) -> list[list[str] | Exception]:
        """The same for several batches, each with its token; an error where Redis refuses one."""
        runs = []
        for lane, token, chosen in batches:
            keys = LaneKeys(lane)
            seen = (value for one in chosen for value in (one.id, repr(one.due)))
            names = [keys.leases, *(keys.due(one.producer) for one in chosen)]
            runs.append((names, [until, token, *seen]))
        return self._redis.scripts("claim", runs)

    def first_deadlines(self, lanes: Iterable[Lane]) -> list[float | None]:
        """The earliest deadline of each lane, None where nothing is pending.

        A lane that cannot be read has one that passed long ago.
        """
        pipe = self._redis.pipeline()
        for lane in lanes:
            pipe.zrange(LaneKeys(lane).deadlines, 0, 0, withscores=True)
        return [
            0.0 if isinstance(rows, Exception) else rows[0][1] if rows else None
            for rows in self._redis.answers(pipe)
        ]

    def overdue(self, lane: Lane, before: float, token: str, at_most: int) -> list[str]:
        """Lease ids whose deadline lies before `before`, whatever else they wait for."""
        keys = LaneKeys(lane)
        args = [before, token, at_most]
        claimed: list[str] = self._redis.script("overdue", [keys.deadlines, keys.leases], args)
        return claimed

    def release(
        self,
        lane: Lane,
        token: str,
        tasks: Sequence[TrackedTask | Candidate],
        now: float,
        not_before: float | None = None,
    ) -> int:
        """End leases without a poll: ids are due when they were, or not before `not_before`."""
        look_at = now if not_before is None else not_before
        places = [Place(each, lane, look_at) for each in {task.producer for task in tasks}]
        self.due(lane.account).note(places, now)
        keys = LaneKeys(lane)
        names = [keys.leases, *(keys.due(task.producer) for task in tasks)]
        args = [token, "" if not_before is None else not_before, *(task.id for task in tasks)]
        return int(self._redis.script("release", names, args)) if tasks else 0

    def quarantine(self, lane: Lane, unreadable: dict[str, str]) -> None:
        """Poll unreadable records no more; they are kept and reported, each with its reason."""
        keys = LaneKeys(lane)
        dues = [keys.due(producer) for producer in self._members(keys.producers)]
        names = [keys.deadlines, keys.leases, keys.quarantined, *dues]
        args = [text for pair in unreadable.items() for text in pair]
        self._redis.script("quarantine", names, args)

    def quarantined(self, lane: Lane) -> dict[str, str]:
        """The quarantined ids, each with the reason."""
        with self._redis.errors():
            found = self._redis.redis.hgetall(LaneKeys(lane).quarantined)
        return dict(found)  # type: ignore[arg-type]

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
        """Write the outcomes of one batch in one atomic step, each with the time of its next poll.

        `retention`: seconds for which a result without webhooks is kept, and the events of the lane
        if that is longer than EVENTS_KEPT_FOR.
        """
        if not outcomes:
            return []
        self.due(lane.account).note(next_looks(lane, outcomes, now), now)
        if any(outcome.state.terminal for outcome, _ in outcomes):  # it may have webhooks by now
            self._deliveries.note([Place(lane.account, lane, now)], now)
        keys = LaneKeys(lane)
        names = [keys.deadlines, keys.leases, keys.inbox, keys.counts, keys.events]
        names += [keys.producers, keys.ended, keys.common_open, keys.common_until]
        events_kept_for = max(int(retention), EVENTS_KEPT_FOR)
        args: list[Any] = [now, token, int(retention), events_kept, events_kept_for]
        for outcome, next_poll_at in outcomes:
            task = outcome.task
            names += [keys.due(task.producer), keys.task(task.id), keys.result(task.id)]
            args += settle_args(outcome, next_poll_at, now)
        flat = self._redis.script("settle", names, args, durable=True)
        ids = [outcome.task.id for outcome, _ in outcomes]
        settled = [
            Settled(task_id, verdict, tuple(delivery_of(one, task_id) for one in pending.split()))
            for task_id, verdict, pending in zip(ids, flat[::2], flat[1::2], strict=True)
        ]
        rows = zip(outcomes, settled, args[15::12], strict=True)
        ended = [(each.task, record) for (each, _), one, record in rows if one.ended]
        self._usage.ended(ended, now + retention, now)
        return settled

    def load(
        self, lane: Lane, ids: Sequence[str], *, token: str | None = None, with_record: bool = False
    ) -> Loaded:
        """Read tracked tasks; with `token` only those that it leased.

        One round trip, and a second one if they have common parts.

        An unknown id is in neither part of the answer. A leased id without a record is unreadable:
        it was due, and lost its record.
        """
        keys = LaneKeys(lane)
        pipe = self._redis.pipeline()
        for task_id in ids:
            pipe.hgetall(keys.task(task_id))
            pipe.hget(keys.leases, task_id)
            if with_record:
                pipe.get(keys.result(task_id))
        answers = self._redis.answers(pipe)
        hashes = answers[:: 3 if with_record else 2]
        texts = self._common.texts(
            (lane, fields.get("common")) for fields in hashes if isinstance(fields, dict)
        )
        rows, loaded = iter(answers), Loaded({}, {})
        for task_id in ids:
            fields, lease, record = next(rows), next(rows), next(rows) if with_record else None
            if token is not None and not str(lease).startswith(f"{token} "):
                continue
            found = tracked_task(task_id, lane, completed(lane, fields, texts), record)
            if isinstance(found, TrackedTask):
                loaded.tasks[task_id] = found
            elif found or token is not None:
                loaded.unreadable[task_id] = found or "the id is due, and has no record"
        return loaded

    def get(
        self, account: str, service: str, ids: Sequence[str], *, with_record: bool = True
    ) -> dict[str, TrackedTask]:
        """Ids of one service in all shards, without unknown and unreadable ones."""
        found: dict[str, TrackedTask] = {}
        for lane, chunk in self._by_lane(account, service, ids):
            found |= self.load(lane, chunk, with_record=with_record).tasks
        return found

    def _members(self, key: str) -> Iterable[str]:
        with self._redis.errors():
            names: Iterable[str] = self._redis.redis.smembers(key)  # type: ignore[assignment]
        return names
