"""Writes the records of new ids, and the webhooks that known ids gain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cavendish.endpoints.webhook_endpoint import is_url, subscription_of, subscription_of_group
from cavendish.model import Lane, State, Submitted
from cavendish.store.common_parts import Part
from cavendish.store.connection import Batch, Connection
from cavendish.store.deadlines import first_look_at
from cavendish.store.due_index import DueIndex, Place, first_look
from cavendish.store.keys import DEADLINES, DELIVERIES, LANES, LaneKeys, minute_of
from cavendish.stored_json import compact
from cavendish.submission import SubmitOptions

#: Ids in one run of a script: enough to be cheap, few enough (about 10 ms) not to block others; and
#: runs in one round trip.
CHUNK, CHUNKS_AT_ONCE = 500, 20
#: Ids of a submit from which on all that they share is stored once; fewer are cheaper apart.
MANY = 8
Chunk = tuple[Lane, list[str]]
#: By id the fields of its record that are its own: `metadata`, a JSON text, and `key`.
Own = Mapping[str, Mapping[str, str]]


class NewTasks:
    """Begins to track ids. Raises StoreUnavailable."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._redis, self._shards = connection, shards
        self._deadlines = DueIndex(connection, DEADLINES)
        self._deliveries = DueIndex(connection, DELIVERIES)

    def add(
        self,
        ids: Sequence[str],
        options: SubmitOptions,
        now: float,
        first_poll: float,
        own: Own | None = None,
    ) -> dict[str, Submitted]:
        """Begin to track checked ids, ten thousand in each round trip; the answer by id.

        `own`: by id the fields that it has instead of those of the submit.
        """
        new = NewRecord(options, now, many=len(ids) >= MANY)
        chunks = list(by_lane(options.account, options.service, ids, self._shards))
        look_at = first_look(now, first_poll)
        submitted: dict[str, Submitted] = {}
        for start in range(0, len(chunks), CHUNKS_AT_ONCE):
            some = chunks[start : start + CHUNKS_AT_ONCE]
            batch = self._redis.batch()
            self._note(batch, new, {lane for lane, _ in some}, look_at)
            batch.before_all_else()
            for lane, chunk in some:
                batch.queue("add", new.keys(lane, chunk), new.args(chunk, first_poll, own or {}))
            for (_, chunk), known in zip(some, batch.execute()[-len(some) :], strict=True):
                submitted |= _answers(chunk, known)
        return submitted

    def _note(self, batch: Batch, new: NewRecord, lanes: Iterable[Lane], look_at: float) -> None:
        """The indices first, then the lanes, then the ids: a lane without ids is harmless, and one
        that is in no index is forgotten. `LaneRegistry` relies on this order.
        """
        options, now, lanes = new.options, new.now, sorted(lanes)
        places = [Place(options.producer, lane, look_at) for lane in lanes]
        DueIndex(self._redis, options.account).note_in(batch, places, now)
        places = [Place(options.account, lane, new.deadline) for lane in lanes]
        self._deadlines.note_in(batch, places, now)
        if new.subscriptions:  # an id may have ended
            places = [Place(options.account, lane, now) for lane in lanes]
            self._deliveries.note_in(batch, places, now)
        for lane in lanes:
            batch.command(LANES, "SADD", LANES, str(lane))


class NewRecord:
    """What the records of one submit say.

    Few ids say all of it themselves, but for long metadata and URLs. What many share is one common
    part, and their records name it.
    """

    def __init__(self, options: SubmitOptions, now: float, *, many: bool) -> None:
        self.options, self.now = options, now
        deadline_at = round(now + options.deadline, 3)
        #: When the deadline is looked at.
        self.deadline = first_look_at(deadline_at, options.deadline)
        urls = [(subscription_of(one), one if is_url(one) else "") for one in options.webhooks]
        if options.group:
            urls.append((subscription_of_group(options.group), options.group))
        self.subscriptions = [name for name, _ in urls]
        to = {f"to:{name}": url for name, url in urls if url}
        apart, metadata = Part.of(to), Part.of({"metadata": options.metadata or ""})
        fields = {"submitted_at": repr(now), "deadline_at": repr(deadline_at)}
        fields |= {"model": options.model, "producer": options.producer, "trace": options.trace}
        fields |= {"webhooks": " ".join(self.subscriptions)}
        if many:
            whole = Part.whole(_filled(fields | {"metadata": options.metadata} | to))
            fields, parts = {}, [whole]
        else:
            fields |= {} if metadata.name else {"metadata": options.metadata}
            fields |= {} if apart.name else to
            parts = [each for each in (metadata, apart) if each.name]
        fields["in"] = " ".join(each.name for each in parts)
        self._common = [
            options.producer,
            compact([text for pair in _filled(fields).items() for text in pair]),
            compact({each.name: each.text for each in parts}),
            *(apart.name, apart.text),
            minute_of(now),
            len(urls),
            *(text for name, url in urls for text in (name, "" if apart.name else url)),
        ]

    def keys(self, lane: Lane, ids: Iterable[str]) -> list[str]:
        """The keys of a run of `add.lua`."""
        keys = LaneKeys(lane)
        names = [keys.due(self.options.producer), keys.deadlines, keys.deadline(self.deadline)]
        names += [keys.inbox, keys.counts, keys.producers, keys.dead, keys.quarantined, keys.ended]
        names += [keys.common, keys.common_open, keys.common_until, keys.own_keys]
        names += [keys.minutes, keys.minute(self.now)]
        of_id = [keys.task(""), keys.result("")]
        of_id += [keys.delivery(f"{name}:") for name in self.subscriptions]
        return names + [start + task_id for task_id in ids for start in of_id]

    def args(self, ids: Iterable[str], first_poll: float, own: Own) -> list[Any]:
        """The arguments of a run of `add.lua`."""
        restart = int(self.options.restart)
        args = [repr(self.now), first_poll, int(self.deadline), restart, *self._common]
        for task_id in ids:
            fields = own.get(task_id)
            words = [text for pair in fields.items() for text in pair] if fields else []
            args += task_id, compact(words) if words else ""
        return args


def by_lane(account: str, service: str, ids: Iterable[str], shards: int) -> Iterator[Chunk]:
    """The ids of a service by lane, in runs of at most CHUNK."""
    found: dict[Lane, list[str]] = {}
    for task_id in ids:
        lane = Lane.of(account, service, task_id, shards)
        found.setdefault(lane, []).append(task_id)
    for lane, members in found.items():
        for start in range(0, len(members), CHUNK):
            yield lane, members[start : start + CHUNK]


def _filled(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in fields.items() if text}


def _answers(ids: Sequence[str], known: Sequence[Any]) -> dict[str, Submitted]:
    answers = {each: Submitted(each, "new", State.PENDING) for each in ids}
    for number, state in zip(known[::2], known[1::2], strict=True):
        task_id = ids[int(number) - 1]
        answers[task_id] = Submitted(task_id, "known", State(state))
    return answers
