"""The ids of a lane in order, page by page, so that a million of them holds nobody up.

Pending ids lie in the due sets of their producers. Those that ended lie in the stream of what
ended, as far back as it is kept; further back only those with webhooks are known by their time, in
`ended`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cavendish.model import Lane
from cavendish.store.connection import Connection
from cavendish.store.keys import LaneKeys

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
        """Ids that have not ended, those first that are due first.

        What stays where it is meanwhile is told once; what becomes due anew may be told twice, or
        not.
        """
        keys = LaneKeys(lane)
        with self._redis.errors():
            producers = (
                [producer]
                if producer is not None
                else sorted(map(str, self._redis.redis.smembers(keys.producers)))
            )
        return heapq.merge(*(self._ranged(keys.due(one), "-inf") for one in producers))

    def ended(self, lane: Lane, until: float = float("inf")) -> Iterator[Listed]:
        """Ids that ended at `until` at the latest, the newest end first.

        One that was tracked anew may be told more than once.
        """
        oldest, there = until, set[str]()
        for listed in self._streamed(lane, until):
            there = {listed.id} | (there if listed.at == oldest else set())
            oldest = listed.at
            yield listed
        # The stream may have been trimmed in the midst of what ended in one moment.
        yield from (
            listed
            for listed in self._kept(lane, oldest)
            if listed.at < oldest or listed.id not in there
        )

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
        return self._ranged(
            LaneKeys(lane).ended,
            "+inf" if until == float("inf") else repr(until),
            newest_first=True,
        )

    def _ranged(self, key: str, begin: str, *, newest_first: bool = False) -> Iterator[Listed]:
        """The members of a sorted set from a score on. Thousands may share a score, so a page
        begins with the last that was told; where some before it have gone meanwhile, the page
        begins earlier, and nothing is passed over.
        """
        last: Listed | None = None
        at, there = begin, 0
        while True:
            page = self._page(key, at, there, newest_first=newest_first)
            new = [
                listed
                for listed in page
                if last is None or (listed < last if newest_first else listed > last)
            ]
            if there and len(new) == len(page):
                there = max(there - PAGE, 0)
                continue
            yield from new
            if len(page) < PAGE:
                return
            there = (
                (there if repr(page[-1].at) == at else 0)
                + sum(listed.at == page[-1].at for listed in page)
                - 1
            )
            last, at = new[-1] if new else last, repr(page[-1].at)

    def _page(self, key: str, at: str, there: int, *, newest_first: bool) -> list[Listed]:
        with self._redis.errors():
            if newest_first:
                page: Any = self._redis.redis.zrevrangebyscore(
                    key, at, "-inf", there, PAGE, withscores=True
                )
            else:
                page = self._redis.redis.zrangebyscore(
                    key, at, "+inf", there, PAGE, withscores=True
                )
        return [Listed(score, task_id) for task_id, score in page]
