"""Tracked tasks in the store: submitted, claimed, settled, released, read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from cavendish.model import Candidate, Lane, State, TrackedTask
from cavendish.operator_act import OperatorAct
from cavendish.policy.verdicts import Outcome
from cavendish.store.candidates import CandidateReader, Seen, Waiting
from cavendish.store.common_parts import CommonParts, completed_all
from cavendish.store.connection import Batch, Connection
from cavendish.store.deadlines import first_look_at
from cavendish.store.due_index import DueIndex, Place, next_looks
from cavendish.store.keys import DEADLINES, DELIVERIES, LANES, LaneKeys, delivery_of, nothing
from cavendish.store.new_tasks import NewTasks, by_lane
from cavendish.store.producer_usage import ProducerUsage
from cavendish.store.task_record import fields_of, settle_args, stored, tracked_task
from cavendish.stored_json import line_of

#: Seconds for which events are kept at least after the last end in their lane.
EVENTS_KEPT_FOR = 7 * 86400
#: Lanes whose candidates a process remembers for its next look.
LANES_SEEN = 100
#: Claimed batches whose records a process remembers until it settles them.
BATCHES_CLAIMED = 64
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

    def __init__(self, connection: Connection, common: CommonParts, shards: int) -> None:
        self._redis = connection
        self._shards = shards
        self._common = common
        #: Begins to track ids: see `NewTasks.add`.
        self.add = NewTasks(connection, shards).add
        self._usage = ProducerUsage(connection)
        self._deliveries = DueIndex(connection, DELIVERIES)
        self._seen: dict[Lane, Seen] = {}
        self._claimed: OrderedDict[str, dict[str, Mapping[str, str]]] = OrderedDict()

    def lanes(self) -> list[Lane]:
        """All lanes that have ids, in order."""
        return [lane for lane in self.listed_lanes() if lane.has_ids]

    def listed_lanes(self) -> list[Lane]:
        """The lanes that have ids, and those of groups, in order; a damaged name is skipped."""
        lanes = []
        for name in self._members(LANES):
            with suppress(ValueError):
                lanes.append(Lane.parse(name))
        return sorted(lanes)

    def producers(self, lane: Lane) -> list[str]:
        """The producers with pending ids in a lane."""
        return sorted(self._members(LaneKeys(lane).producers))

    def due(self, account: str) -> DueIndex:
        """The lanes of an account that are worth a look, by producer."""
        return DueIndex(self._redis, account)

    def waiting(self, lanes: list[Lane], now: float, size: int, batches: int = 1) -> Waits:
        """What the next batches of these lanes may contain: so many batches of each."""
        if len(self._seen) > LANES_SEEN:
            self._seen.clear()
        reader = CandidateReader(
            self._redis, self._common, now, size, batches=batches, seen=self._seen
        )
        return reader.read(lanes)

    def candidates(self, lane: Lane, now: float, at_most: int) -> list[Candidate]:
        """The first `at_most` ids of each producer by due time, without those that are leased."""
        reader = CandidateReader(self._redis, self._common, now, at_most, healthy=True)
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
            keys, by_producer = LaneKeys(lane), dict[str, list[str]]()
            for one in chosen:
                by_producer.setdefault(one.producer, []).extend((one.id, repr(one.due)))
            names = [keys.leases, *map(keys.due, by_producer)]
            seen = [word for some in by_producer.values() for word in (len(some), *some)]
            runs.append((names, [until, token, *seen]))
        claims = self._redis.scripts("claim", runs)
        for (lane, token, _), ids in zip(batches, claims, strict=True):
            if not isinstance(ids, Exception):
                self._remember(lane, token, ids)
        return claims

    def _remember(self, lane: Lane, token: str, ids: Sequence[str]) -> None:
        """Remember the records of a claimed batch, if all were seen: see `claimed`."""
        seen = self._seen.get(lane, Seen()).records
        if ids and all(task_id in seen for task_id in ids):
            self._claimed[token] = {task_id: seen[task_id] for task_id in ids}
            while len(self._claimed) > BATCHES_CLAIMED:
                self._claimed.popitem(last=False)

    def claimed(self, lane: Lane, ids: Sequence[str], token: str) -> Loaded:
        """The tasks of a batch that was claimed under `token`.

        The process that claimed it knows them from the look before: what changes meanwhile is
        checked when they are settled. Any other process, and whoever asks twice, loads them.
        """
        known = self._claimed.pop(token, {})
        found = {each: tracked_task(each, lane, known.get(each), None) for each in ids}
        tasks = {each: task for each, task in found.items() if isinstance(task, TrackedTask)}
        return Loaded(tasks, {}) if len(tasks) == len(ids) else self.load(lane, ids, token=token)

    def seize(self, lane: Lane, ids: Sequence[str], now: float, token: str) -> list[str]:
        """Lease ids whatever they wait for, those that are pending; which these are."""
        keys = LaneKeys(lane)
        names = [keys.leases, keys.quarantined, *map(keys.task, ids)]
        seized: list[str] = self._redis.script("seize", names, [now, token, *ids])
        return seized

    def set_deadline(
        self,
        lane: Lane,
        tasks: Sequence[TrackedTask],
        deadline_at: float,
        now: float,
        act: OperatorAct | None = None,
    ) -> list[str]:
        """Give pending tasks another deadline; the ids of those that had not ended.

        `act`: what is noted of it in their records.
        """
        if not tasks:
            return []
        look_at, keys = first_look_at(deadline_at, deadline_at - now), LaneKeys(lane)
        places = [Place(one, lane, deadline_at) for one in {task.producer for task in tasks}]
        self.due(lane.account).note(places, now)
        DueIndex(self._redis, DEADLINES).note([Place(lane.account, lane, look_at)], now)
        names = [keys.deadlines, keys.deadline(look_at), keys.leases, keys.common]
        for task in tasks:
            names += [keys.task(task.id), keys.due(task.producer)]
        args = [repr(deadline_at), int(look_at), line_of(act), *(task.id for task in tasks)]
        changed = self._redis.script("set_deadline", names, args, durable=True)
        return [task.id for task, done in zip(tasks, changed, strict=True) if done]

    def release(
        self,
        lane: Lane,
        token: str,
        tasks: Sequence[TrackedTask | Candidate],
        now: float,
        not_before: float | None = None,
    ) -> int:
        """End leases without a poll: ids are due when they were, or not before `not_before`."""
        self._claimed.pop(token, None)  # a message about it that left all the same finds no lease
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
        names = [keys.leases, keys.quarantined, *dues]
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
        calls: int = 0,
    ) -> list[Settled]:
        """Write the outcomes of one batch in one atomic step, each with the time of its next poll.

        `retention`: seconds for which a result without webhooks is kept, and the events of the lane
        if that is longer than EVENTS_KEPT_FOR. `calls`: those that were made for it, which are
        counted in the same round trip.
        """
        if not outcomes:
            self.tally(lane, calls=calls)
            return []
        batch, keys = self._noted(lane, outcomes, now), LaneKeys(lane)
        if calls:
            counts = [keys.counts, nothing(keys.counts)]
            batch.queue("write_when_full", counts, ["HINCRBY", "calls", calls])
        records = [stored(outcome.record) for outcome, _ in outcomes]
        rows = list(zip(outcomes, records, strict=True))
        ending = [(each.task, record) for (each, _), record in rows if each.state.terminal]
        self._usage.end_in(batch, ending, now + retention, now)
        names = [keys.leases, keys.inbox, keys.counts, keys.events, keys.producers, keys.ended]
        names += [keys.common, keys.common_open, keys.common_until]
        events_kept_for = max(int(retention), EVENTS_KEPT_FOR)
        args: list[Any] = [now, token, int(retention), events_kept, events_kept_for]
        for (outcome, next_poll_at), record in rows:
            task = outcome.task
            names += [keys.due(task.producer), keys.task(task.id), keys.result(task.id)]
            args += settle_args(outcome, next_poll_at, now, record)
        batch.queue("settle", names, args)
        settled = _settled([each.task.id for each, _ in outcomes], batch.execute()[-1])
        stale = {one.id for one in settled if not one.ended}
        self._usage.ended(ending, stale, now + retention, now)
        return settled

    def _noted(self, lane: Lane, outcomes: Sequence[tuple[Outcome, float]], now: float) -> Batch:
        """A batch that begins with the notes of when the lane is worth its next looks."""
        batch = self._redis.batch()
        self.due(lane.account).note_in(batch, next_looks(lane, outcomes, now), now)
        if any(outcome.state.terminal for outcome, _ in outcomes):  # it may have webhooks by now
            self._deliveries.note_in(batch, [Place(lane.account, lane, now)], now)
        batch.before_all_else()
        return batch

    def load(
        self, lane: Lane, ids: Sequence[str], *, token: str | None = None, with_record: bool = False
    ) -> Loaded:
        """Read tracked tasks; with `token` only those that it leased.

        One round trip, and a second one if they have common parts.

        An unknown id is in neither part of the answer. A leased id without a record is unreadable:
        it was due, and lost its record.
        """
        loaded, keys = Loaded({}, {}), LaneKeys(lane)
        if not ids:
            return loaded
        names = [keys.leases, *map(keys.task, ids)]
        names += map(keys.result, ids) if with_record else ()
        leases, *rows = self._redis.script("load", names, ids)
        if isinstance(leases, Exception):  # damaged
            if token is not None:
                raise leases
            leases = []
        hashes, records = list(map(fields_of, rows[: len(ids)])), rows[len(ids) :]
        parts = self._common.read(
            (lane, fields.get("in")) for fields in hashes if isinstance(fields, dict)
        )
        several = zip_longest(ids, completed_all(lane, hashes, parts), records, leases)
        for task_id, fields, record, lease in several:
            if token is not None and not str(lease).startswith(f"{token} "):
                continue
            found = tracked_task(task_id, lane, fields, record)
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
        for lane, chunk in by_lane(account, service, ids, self._shards):
            found |= self.load(lane, chunk, with_record=with_record).tasks
        return found

    def _members(self, key: str) -> Iterable[str]:
        with self._redis.errors():
            names: Iterable[str] = self._redis.redis.smembers(key)  # type: ignore[assignment]
        return names


def _settled(ids: Sequence[str], answer: Sequence[str]) -> list[Settled]:
    """What `settle.lua` returned of these ids."""
    return [
        Settled(task_id, verdict, tuple(delivery_of(one, task_id) for one in pending.split()))
        for task_id, verdict, pending in zip(ids, answer[::2], answer[1::2], strict=True)
    ]
