"""A due index: the time of the next check of each lane, so that quiet lanes cost nothing.

It has groups of lanes: those in which a producer has pending ids, or those of an account. A lane
and its index may lie in different slots of a cluster, so they are not written in one step. The
index is written first: then a crash in between costs a check in vain, and no lane is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from cavendish.model import Lane
from cavendish.policy.verdicts import Outcome
from cavendish.store.connection import Batch, Connection
from cavendish.store.keys import IndexKeys, nothing

#: Maximum seconds between the write to the index and that to the lane; and the seconds until the
#: next check of a lane whose write may still come.
WRITTEN_WITHIN, SOON = 10.0, 0.25
#: A batch can be worth a call long before the poll of any one of its ids is due: part of that time
#: until the first check of the lane. And seconds until the check that finds a lane empty.
_FIRST_LOOK, _LAST_LOOK = 1 / 16, 1.0
#: Groups that are read at once.
GROUPS = 1000


class Place(NamedTuple):
    """A lane in a group, and the time of its next check; None: nothing is in it."""

    group: str
    lane: Lane
    at: float | None


class DueIndex:
    """One index, by the hash tag of its keys. Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection, tag: str) -> None:
        self._redis, self._keys = connection, IndexKeys(tag)

    def note(self, places: Iterable[Place], now: float) -> None:
        """Write the times of the next checks of lanes, before the lanes are written."""
        if places := list(places):
            self._redis.script("note_due", *self._noting(places, now))

    def note_in(self, batch: Batch, places: Iterable[Place], now: float) -> None:
        """The same in a batch of writes, in which it must come before those to the lanes."""
        batch.queue("note_due", *self._noting(list(places), now))

    def _noting(self, places: Sequence[Place], now: float) -> tuple[list[str], list[object]]:
        keys = self._keys
        names = [keys.groups, keys.noted, nothing(keys.groups)]
        return [*names, *(keys.lanes(each.group) for each in places)], [now, *_words(places)]

    def groups(self) -> list[tuple[str, float]]:
        """Groups, each with the time of the first check of its lanes."""
        with self._redis.errors():
            found: list[tuple[str, float]] = self._redis.redis.zrange(  # type: ignore[assignment]
                self._keys.groups, 0, GROUPS - 1, withscores=True
            )
        return found

    def first_at(self) -> float | None:
        """The time of the first check of all lanes; None if there is none."""
        with self._redis.errors():
            found: Any = self._redis.redis.zrange(self._keys.groups, 0, 0, withscores=True)
        return found[0][1] if found else None

    def mend(self, places: Iterable[Place], now: float) -> None:
        """Note what is missing in the index, or stands there at a later time."""
        places = [place for place in places if place.at is not None]
        pipe = self._redis.pipeline()
        for group, lane, _ in places:
            pipe.zscore(self._keys.lanes(group), str(lane))
            pipe.zscore(self._keys.groups, group)
        answers = self._redis.answers(pipe)
        self.note(
            [
                place
                for place, *noted in zip(places, answers[::2], answers[1::2], strict=True)
                if not all(isinstance(at, float) and at <= (place.at or 0.0) for at in noted)
            ],
            now,
        )

    def anything(self) -> bool:
        """True if the index has any lane."""
        with self._redis.errors():
            return bool(self._redis.redis.exists(self._keys.groups))

    def having(self, lanes: Iterable[Lane]) -> list[Lane]:
        """Those of some lanes that the index has in the group of their account."""
        groups: dict[str, list[Lane]] = {}
        for lane in lanes:
            groups.setdefault(lane.account, []).append(lane)
        pipe = self._redis.pipeline()
        for group, some in groups.items():
            pipe.zmscore(self._keys.lanes(group), list(map(str, some)))
        with self._redis.errors():
            rows = pipe.execute()
        pairs = zip(groups.values(), rows, strict=True)
        found = [each for some, row in pairs for each in zip(some, row, strict=True)]
        return [lane for lane, at in found if at is not None]

    def due(self, groups: Sequence[str], now: float, each: int) -> list[Place]:
        """Of each group the lanes whose check is due, at most `each`, longest waiting first; all of
        them if `each` is -1.

        A group without lanes and a name of no lane are damage: they leave the index, or they would
        be the first in it for ever.
        """
        if not groups:
            return []
        pipe = self._redis.pipeline()
        for group in groups:
            pipe.zrangebyscore(self._keys.lanes(group), "-inf", now, 0, each, withscores=True)
        with self._redis.errors():
            rows = pipe.execute()
        found, damaged = list[Place](), list[object]()
        for group, row in zip(groups, rows, strict=True):
            for name, at in row or [("", now)]:
                try:
                    found.append(Place(group, Lane.parse(name), at))
                except ValueError:
                    damaged += group, name, ""
        if damaged:
            self._looked_at(damaged, now)
        return found

    def looked_at(self, places: Sequence[Place], now: float) -> float | None:
        """Write the times of the next checks of lanes that were checked.

        Returns the time of the first check of all lanes; None if there is none.
        """
        first_at = self._looked_at(_words(places), now)
        return None if first_at is None else float(first_at)

    def _looked_at(self, words: Sequence[object], now: float) -> Any:
        names = [self._keys.groups, self._keys.noted]
        names += [self._keys.lanes(str(group)) for group in words[::3]]
        return self._redis.script("looked_at", names, [now, WRITTEN_WITHIN, SOON, *words])


def due_before(connection: Connection, tags: Iterable[str], time: float) -> list[str]:
    """Those of some indices, by their tags, in which a check is due before a time."""
    tags = list(tags)
    pipe = connection.pipeline()
    for tag in tags:
        pipe.zrange(IndexKeys(tag).groups, 0, 0, withscores=True)
    with connection.errors():
        rows = pipe.execute()
    return [tag for tag, row in zip(tags, rows, strict=True) if row and row[0][1] <= time]


def _words(places: Iterable[Place]) -> list[object]:
    return [
        word
        for group, lane, at in places
        for word in (group, str(lane), "" if at is None else repr(at))
    ]


def first_look(now: float, poll_at: float) -> float:
    """The time of the first check of a lane whose ids are due at `poll_at`."""
    return now + max(poll_at - now, 0.0) * _FIRST_LOOK


def next_looks(
    lane: Lane, outcomes: Sequence[tuple[Outcome, float]], now: float
) -> Iterator[Place]:
    """The next check of a lane for each producer of a batch that is being settled."""
    polls: dict[str, float] = {}
    for outcome, next_poll_at in outcomes:
        at = first_look(now, next_poll_at)
        producer = outcome.task.producer
        at = now + _LAST_LOOK if outcome.state.terminal else at
        polls[producer] = min(at, polls.get(producer, at))
    return (Place(producer, lane, at) for producer, at in polls.items())
