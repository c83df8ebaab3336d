"""Hints that ids have ended: pending ones are polled soon, and only that poll decides."""

from __future__ import annotations

from collections.abc import Iterable

from cavendish.model import Lane, TrackedTask
from cavendish.store.connection import Connection
from cavendish.store.due_index import Place
from cavendish.store.keys import LaneKeys
from cavendish.store.new_tasks import by_lane
from cavendish.store.tracked_tasks import Tasks

#: Seconds between two polls of an id for its announcements, however many there are.
APART = 3.0
#: An announced id goes before those that have been due for fewer seconds.
AHEAD = 10.0


class Announcements:
    """Takes hints that ids have ended. Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection, tasks: Tasks, shards: int) -> None:
        self._redis, self._tasks, self._shards = connection, tasks, shards

    def announce(self, account: str, service: str, ids: Iterable[str], now: float) -> set[str]:
        """Let ids be polled soon. Which of them to announce again: those that are not tracked yet,
        and those that are polled just now, perhaps a moment too early.
        """
        again = set[str]()
        for lane, some in by_lane(account, service, ids, self._shards):
            again |= self._announce(lane, some, now)
        return again

    def _announce(self, lane: Lane, ids: list[str], now: float) -> set[str]:
        known = self._tasks.load(lane, ids).tasks
        again = {each for each in ids if each not in known}
        pending = [task for task in known.values() if not task.state.terminal]
        if not pending:
            return again
        places = [Place(task.producer, lane, _soon(task, now)) for task in pending]
        self._tasks.due(lane.account).note(_first(places), now)
        keys = LaneKeys(lane)
        names = [keys.leases]
        for task in pending:
            names += [keys.task(task.id), keys.due(task.producer)]
        said = self._redis.script(
            "announce", names, [now, AHEAD, APART, *(task.id for task in pending)]
        )
        return again | {task.id for task, one in zip(pending, said, strict=True) if one == 2}


def _soon(task: TrackedTask, now: float) -> float:
    """When an id is polled whose end is announced: now, but not twice within a moment."""
    if task.announced_at is None or task.is_announced:
        return now
    return max(now, (task.polled_at or 0.0) + APART)


def _first(places: Iterable[Place]) -> list[Place]:
    """The earliest place of each producer."""
    found: dict[str, Place] = {}
    for place in places:
        known = found.setdefault(place.group, place)
        if (place.at or 0.0) < (known.at or 0.0):
            found[place.group] = place
    return list(found.values())
