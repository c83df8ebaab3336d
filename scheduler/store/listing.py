"""The ids of a lane in order, page by page, so that a million of them holds nobody up.

Pending ids lie in the due sets of their producers. Those that ended lie in the stream of what ended, as far back as it is
kept; further back only those with webhooks are known by their time, in `ended`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scheduler.store.connection import Connection
from scheduler.store.keys import LaneKeys
from scheduler.tracking import Lane

#: Ids that are read at once.
PAGE = 500


@dataclass(frozen=True, slots=True, order=True)
class Listed:
    """An id, and its place in the order: when it is due, or when it ended."""

    at: float
    id: str


class Listing:
    """Each method reads on only while somebody takes what it yields; both raise BookUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def pending(self, lane: Lane, producer: str | None = None) -> Iterator[Listed]:
        """Ids that have not ended, those first that are due first. What becomes due anew meanwhile may be told twice, or not."""
        keys = LaneKeys(lane)
        with self._redis.errors():
            producers = [producer] if producer is not None else sorted(map(str, self._redis.redis.smembers(keys.producers)))
        return heapq.merge(*(self._due(keys.due(one)) for one in producers))

    def _due(self, key: str) -> Iterator[Listed]:
        at, there = "-inf", 0
        while True:
            with self._redis.errors():
                page: Any = self._redis.redis.zrangebyscore(key, at, "+inf", there, PAGE, withscores=True)
            for task_id, due in page:
                at, there = repr(due), (there if repr(due) == at else 0) + 1
                yield Listed(due, task_id)
            if len(page) < PAGE:
                return

    def ended(self, lane: Lane, until: float = float("inf")) -> Iterator[Listed]:
        """Ids that ended at `until` at the latest, the newest end first. One that was tracked anew may be told more than once."""
        oldest, there = until, set[str]()
        for listed in self._streamed(lane, until):
            there = {listed.id} | (there if listed.at == oldest else set())
            oldest = listed.at
            yield listed
        # The stream may have been trimmed in the midst of what ended in one moment.
        yield from (listed for listed in self._kept(lane, oldest) if listed.at < oldest or listed.id not in there)

    def _streamed(self, lane: Lane, until: float) -> Iterator[Listed]:
        end = "+"
        while True:
            with self._redis.errors():
                page: Any = self._redis.redis.xrevrange(LaneKeys(lane).events, end, "-", PAGE)
            for place, said in page:
                end = f"({place}"
                try:
                    listed = Listed(float(said["at"]), said["id"])
                except (KeyError, ValueError, TypeError):
                    continue
                if listed.at <= until:
                    yield listed
            if len(page) < PAGE:
                return

    def _kept(self, lane: Lane, until: float) -> Iterator[Listed]:
        at, there = "+inf" if until == float("inf") else repr(until), 0
        while True:
            with self._redis.errors():
                page: Any = self._redis.redis.zrevrangebyscore(LaneKeys(lane).ended, at, "-inf", there, PAGE, withscores=True)
            for task_id, ended in page:
                at, there = repr(ended), (there if repr(ended) == at else 0) + 1
                yield Listed(ended, task_id)
            if len(page) < PAGE:
                return
