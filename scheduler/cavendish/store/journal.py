"""The journal of each lane: all ids that are tracked or kept, in the order of their submits.

An id stands in the list of the minute in which it was submitted, at a place that never changes, and
a forgotten one leaves its place empty. So whoever reads on from a place misses none and sees none
twice, while others come and go. An id that was tracked anew stands in an earlier minute as well:
its record says which of the two counts. A minute of which nothing is kept any more leaves the
journal in the reconcile run.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cavendish.model import Lane, TrackedTask
from cavendish.store.connection import Connection
from cavendish.store.keys import LaneKeys, minute_of

#: Ids that are read at once, and minutes of a lane.
PAGE, MINUTES = 500, 50
#: Ids that are read at once where only names are wanted.
AT_ONCE = 1000
#: Old minutes of a lane that one reconcile run looks at.
LOOKED_AT = 20


class Place(NamedTuple):
    """Where an id stands: the beginning of its minute, its lane, and its number in that list."""

    minute: int
    lane: Lane
    number: int


@dataclass(frozen=True, slots=True)
class Section:
    """Ids of one lane and minute, the newest first; the number of the first one is `end - 1`."""

    lane: Lane
    minute: int
    end: int
    ids: Sequence[str]

    def place(self, nth: int) -> Place:
        """Where the id `ids[nth]` stands."""
        return Place(self.minute, self.lane, self.end - 1 - nth)


class Journal:
    """Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def walk(
        self,
        lanes: Iterable[Lane],
        before: Place | None = None,
        minutes: Mapping[Lane, Collection[int]] | None = None,
    ) -> Iterator[list[Section]]:
        """All ids of some lanes, or those before a place: the newest minute first, in each minute
        lane by lane. About PAGE ids at a time; what is submitted meanwhile is left out.

        `minutes`: only these, of each lane.
        """
        only = minutes or {}
        tails = [_Tail(self._redis, lane, before, only.get(lane)) for lane in sorted(lanes)]
        _Tail.fill(self._redis, tails)
        heap = [(-tail.minutes[0][0], tail) for tail in tails if tail.minutes]
        heapq.heapify(heap)
        while heap:
            places, room = list[tuple[Lane, int, int, int]](), PAGE
            while heap and room:
                _, tail = heap[0]
                minute, end = tail.minutes[0]
                start = max(end - room, 0)
                places.append((tail.lane, minute, start, end))
                room -= end - start
                tail.taken(start)
                if tail.minutes:
                    heapq.heapreplace(heap, (-tail.minutes[0][0], tail))
                else:
                    heapq.heappop(heap)
            yield self._read(places)

    def _read(self, places: Sequence[tuple[Lane, int, int, int]]) -> list[Section]:
        pipe = self._redis.pipeline()
        for lane, minute, start, end in places:
            pipe.lrange(LaneKeys(lane).minute(minute), start, end - 1)
        return [
            Section(lane, minute, start + len(ids), ids[::-1])
            for (lane, minute, start, _), ids in zip(places, self._redis.answers(pipe), strict=True)
            if isinstance(ids, list)
        ]

    def places(self, lane: Lane, tasks: Iterable[TrackedTask]) -> dict[str, list[Place]]:
        """By id where each task stands: one place, or several if it was tracked anew."""
        wanted, again, found = dict[int, set[str]](), set[str](), dict[str, list[Place]]()
        for task in tasks:
            wanted.setdefault(minute_of(task.submitted_at), set()).add(task.id)
            again |= {task.id} if task.restarts else set()
        for minute in self._minutes(lane) if again else ():
            wanted.setdefault(minute, set()).update(again)
        for minute, ids in wanted.items():
            for number, task_id in self._numbered(LaneKeys(lane).minute(minute)):
                if task_id in ids:
                    found.setdefault(task_id, []).append(Place(minute, lane, number))
        return found

    def _minutes(self, lane: Lane) -> list[int]:
        with self._redis.errors():
            found: Any = self._redis.redis.zrange(LaneKeys(lane).minutes, 0, -1)
        return list(map(int, found))

    def _numbered(self, key: str) -> Iterator[tuple[int, str]]:
        """The ids in the list of a minute, each with its number."""
        with self._redis.errors():
            for start in range(0, int(self._redis.redis.llen(key)), AT_ONCE):
                ids: Any = self._redis.redis.lrange(key, start, start + AT_ONCE - 1)
                yield from enumerate(ids, start)

    def forget(self, lane: Lane, before: float) -> None:
        """Drop minutes from before this time of which no record is kept any more.

        A run looks at some of them, by chance, so that none is looked at in vain for ever.
        """
        keys = LaneKeys(lane)
        with self._redis.errors():
            redis = self._redis.redis
            many = int(redis.zcount(keys.minutes, "-inf", before))
            if not many:
                return
            first = random.randrange(max(many - LOOKED_AT, 0) + 1)
            found: Any = redis.zrangebyscore(keys.minutes, "-inf", before, first, LOOKED_AT)
        for minute in map(int, found):
            if not self._holds(keys, minute):
                names = [keys.minutes, keys.minute(minute)]
                self._redis.script("forget_minute", names, [minute])

    def _holds(self, keys: LaneKeys, minute: int) -> bool:
        """True if any id of a minute has a record."""
        with self._redis.errors():
            left = int(self._redis.redis.llen(keys.minute(minute)))
            while left:
                start = max(left - PAGE, 0)
                ids: Any = self._redis.redis.lrange(keys.minute(minute), start, left - 1)
                if self._redis.redis.exists(*(keys.task(each) for each in ids)):
                    return True
                left = start
        return False


class _Tail:
    """What is still to be read of one lane: its `minutes`, the newest first, each with the number
    of ids in it. `only`: no other minutes.
    """

    def __init__(
        self,
        connection: Connection,
        lane: Lane,
        before: Place | None,
        only: Collection[int] | None,
    ) -> None:
        self.lane, self.minutes, self._only = lane, list[tuple[int, int]](), only
        self._redis, self._before, self._next = connection, before, "+inf"
        if before is not None:
            self._next = str(before.minute) if lane >= before.lane else f"({before.minute}"

    def __lt__(self, other: _Tail) -> bool:
        return self.lane < other.lane

    def taken(self, end: int) -> None:
        """Go on with what lies before this number in the first minute."""
        minute = self.minutes[0][0]
        if end:
            self.minutes[0] = minute, end
            return
        del self.minutes[0]
        if not self.minutes:
            self.fill(self._redis, [self])

    @staticmethod
    def fill(connection: Connection, tails: Sequence[_Tail]) -> None:
        """Read the next minutes of lanes, in two round trips, until each has one or has ended."""
        while tails := [tail for tail in tails if not tail.minutes and tail._next]:
            pipe = connection.pipeline()
            for tail in tails:
                key = LaneKeys(tail.lane).minutes
                pipe.zrevrangebyscore(key, tail._next, "-inf", 0, MINUTES)
            answers = connection.answers(pipe)
            pipe = connection.pipeline()
            found = [tail._chosen(answer) for tail, answer in zip(tails, answers, strict=True)]
            for tail, minutes in zip(tails, found, strict=True):
                for minute in minutes:
                    pipe.llen(LaneKeys(tail.lane).minute(minute))
            sizes = iter(connection.answers(pipe))
            for tail, minutes in zip(tails, found, strict=True):
                for minute in minutes:
                    tail._add(minute, next(sizes))

    def _chosen(self, answer: Any) -> list[int]:
        """The wanted minutes of an answer of Redis; `_next` is where the next one begins."""
        rows = answer if isinstance(answer, list) else []
        minutes = [int(row) for row in rows if row.isdecimal()]  # others are damaged
        self._next = f"({minutes[-1]}" if minutes and len(rows) == MINUTES else ""
        return [minute for minute in minutes if self._only is None or minute in self._only]

    def _add(self, minute: int, size: Any) -> None:
        end = size if isinstance(size, int) else 0
        before = self._before
        if before is not None and (minute, self.lane) == (before.minute, before.lane):
            end = min(end, before.number)
        if end:
            self.minutes.append((minute, end))
