"""The deadlines of pending ids: looked at when they may have passed, in lists of ids.

A submit puts its ids into the list of a time shortly before their deadline, which many submits
share; nothing is changed there when an id ends. When the time has come most ids have ended and are
dropped, and the others wait for the second of their own deadline. So an id costs no more than its
name, and every pending id stands in a list at least once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from cavendish.model import Lane
from cavendish.store.connection import Connection
from cavendish.store.due_index import DueIndex
from cavendish.store.keys import DEADLINES, LaneKeys

#: The first look comes earlier than the deadline by at most this part of the time until then.
_EARLY = 1 / 32
#: Seconds until overdue ids are looked at again, in case the process that took them dies.
_AGAIN = 30
#: Ids that are looked at in one step.
_PAGE = 500


def first_look_at(deadline_at: float, seconds: float) -> float:
    """When a deadline is first looked at, of an id that is submitted so many seconds before it.

    Many deadlines share this time.
    """
    step = 2.0 ** max(math.floor(math.log2(seconds * _EARLY)), 0)
    return deadline_at // step * step


class Deadlines:
    """The deadlines of all lanes. Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        #: By account the lanes with pending ids, and when a deadline of each may have passed.
        self.index = DueIndex(connection, DEADLINES)

    def anything_pending(self) -> bool:
        """True if any lane has ids that have not ended: each of those has a deadline."""
        return self.index.anything()

    def first(self, lanes: Iterable[Lane]) -> list[float | None]:
        """When the first deadline of each lane may have passed, None where nothing is pending.

        For a lane that cannot be read it is long ago.
        """
        pipe = self._redis.pipeline()
        for lane in lanes:
            pipe.zrange(LaneKeys(lane).deadlines, 0, 0, withscores=True)
        return [
            0.0 if isinstance(rows, Exception) else rows[0][1] if rows else None
            for rows in self._redis.answers(pipe)
        ]

    def overdue(self, lane: Lane, before: float, token: str, at_most: int) -> list[str]:
        """Lease ids whose deadline lies before `before`, whatever else they wait for.

        Returns at most so many; none is left when there are none.
        """
        keys = LaneKeys(lane)
        while True:
            with self._redis.errors():
                due: Any = self._redis.redis.zrangebyscore(keys.deadlines, "-inf", before, 0, 1)
                if not due:
                    return []
                time = float(due[0])
                ids: Any = self._redis.redis.lrange(keys.deadline(time), 0, at_most - 1)
            again = math.ceil(before / _AGAIN + 1) * _AGAIN
            if leased := self._go_on(lane, (time, again), ids, before, token):
                return leased

    def drop_ended(self, lane: Lane, at_most: int) -> bool:
        """Drop ids that have ended before their time comes, of so many; true if none is left.

        For a lane in which nothing seems to be pending any more. What is pending all the same keeps
        its deadline: the lane was damaged.
        """
        keys, redis = LaneKeys(lane), self._redis.redis
        with self._redis.errors():
            times: Any = redis.zrange(keys.deadlines, 0, -1)
            for time in map(float, times):
                left = int(redis.llen(keys.deadline(time)))
                while left > 0 and at_most > 0:
                    some = min(left, at_most, _PAGE)
                    ids: Any = redis.lrange(keys.deadline(time), 0, some - 1)
                    self._go_on(lane, (time, time), ids, -math.inf, "")
                    left, at_most = left - some, at_most - some
            return not redis.exists(keys.deadlines)

    def _go_on(
        self, lane: Lane, times: tuple[float, float], ids: list[str], before: float, token: str
    ) -> list[str]:
        """Lease or drop ids of a list, or let them wait for their own deadline.

        `times`: of that list, and of the one in which leased ids are looked at again.
        """
        keys = LaneKeys(lane)
        tasks = [keys.task(each) for each in ids]
        found = self._redis.script("deadlines_of", [keys.common, *tasks], []) if ids else []
        names = [keys.deadlines, keys.leases, keys.quarantined, *map(keys.deadline, times)]
        args = [*map(int, times), token, before]
        for task_id, task, text in zip(ids, tasks, found, strict=True):
            deadline = "" if text is None else _later(text, before)
            names += [task, keys.deadline(float(deadline or 0))]
            args += [task_id, deadline]
        leased: list[str] = self._redis.script("overdue", names, args)
        return leased


def _later(text: str, before: float) -> str:
    """The second in which a deadline has passed, if that is not before; "" for one that cannot be
    read, too.
    """
    try:
        deadline_at = float(text)
    except ValueError:
        return ""
    return "" if deadline_at <= before else str(math.floor(deadline_at) + 1)
