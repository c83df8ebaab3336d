"""Debts in the book: claimed, then paid, tried later, or buried; and revived from the dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.store.connection import Connection
from scheduler.store.keys import LaneKeys, task_of
from scheduler.tracking import Lane


@dataclass(frozen=True, slots=True)
class Debt:
    """An announcement owed to one endpoint. `outcome` is what the last try met."""

    name: str
    lane: Lane
    url: str
    tries: int
    state: str
    outcome: str = ""
    at: float | None = None

    @property
    def task_id(self) -> str:
        return task_of(self.name)


class Debts:
    """One method per script, same verb. Every method raises BookUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def claim(self, lane: Lane, now: float, until: float, token: str, at_most: int, wished: Sequence[str] = ()) -> list[str]:
        """Take debts that are due (of the `wished` ones, if any are named); they are ours until `until`."""
        keys = LaneKeys(lane)
        args = [now, until, token, at_most, *wished]
        taken: list[str] = self._redis.script("claim_delivery", [keys.owed, keys.owed_leases], args)
        return taken

    def due(self, lane: Lane, now: float, at_most: int) -> list[str]:
        """The names of debts that are due, the longest waiting first."""
        with self._redis.errors():
            names: list[str] = self._redis.redis.zrangebyscore(LaneKeys(lane).owed, "-inf", now, 0, at_most)  # type: ignore[assignment]
        return names

    def load(self, lane: Lane, names: Sequence[str], scores: Iterable[float | None] = ()) -> list[Debt]:
        """Read debts in one round trip. One whose delivery is gone or unreadable has an empty `url`."""
        keys, pipe = LaneKeys(lane), self._redis.pipeline()
        for name in names:
            pipe.hgetall(keys.delivery(name))
        with self._redis.errors():
            rows = pipe.execute(raise_on_error=False)
        times = [*scores] or [None] * len(names)
        return [_debt(name, lane, row, at) for name, row, at in zip(names, rows, times, strict=True)]

    def paid(self, lane: Lane, token: str, now: float, answers: Sequence[tuple[str, str]], retention: float) -> int:
        """Strike debts off, each with what its receiver answered. Returns how many were still ours."""
        keys = LaneKeys(lane)
        names = [keys.owed, keys.owed_leases, keys.counts, *self._of_each(keys, [name for name, _ in answers])]
        return int(self._redis.script("paid", names, [now, token, int(retention), *(text for pair in answers for text in pair)]))

    def later(self, lane: Lane, token: str, tries: Sequence[tuple[str, float, bool, str]]) -> int:
        """Put debts back: name, next try at, whether the try is charged, what happened."""
        keys = LaneKeys(lane)
        names = [keys.owed, keys.owed_leases, *(keys.delivery(name) for name, *_ in tries)]
        flat = [value for name, at, charged, what in tries for value in (name, at, int(charged), what)]
        return int(self._redis.script("later", names, [token, *flat]))

    def bury(self, lane: Lane, token: str, now: float, reasons: Sequence[tuple[str, str]], kept_for: float) -> int:
        """Lay debts into the dead letters, each with its reason."""
        keys = LaneKeys(lane)
        names = [keys.owed, keys.owed_leases, keys.dead, keys.counts, *self._of_each(keys, [name for name, _ in reasons])]
        return int(self._redis.script("bury", names, [now, token, int(kept_for), *(text for pair in reasons for text in pair)]))

    def revive(self, lane: Lane, now: float, names: Sequence[str]) -> list[str]:
        """Bring dead letters back among the owed. Returns those that were revived."""
        keys = LaneKeys(lane)
        done = self._redis.script("revive", [keys.owed, keys.dead, *self._of_each(keys, names)], [now, *names])
        return [name for name, revived in zip(names, done, strict=True) if revived]

    def dead(self, lane: Lane, at_most: int = 1000) -> list[Debt]:
        """The dead letters of a lane, the newest first."""
        with self._redis.errors():
            ranked = self._redis.redis.zrevrange(LaneKeys(lane).dead, 0, at_most - 1, withscores=True)
        pairs: list[tuple[str, float]] = list(ranked)  # type: ignore[arg-type]
        return self.load(lane, [name for name, _ in pairs], [at for _, at in pairs]) if pairs else []

    @staticmethod
    def _of_each(keys: LaneKeys, names: Sequence[str]) -> list[str]:
        return [key for name in names for key in (keys.delivery(name), keys.task(task_of(name)), keys.result(task_of(name)))]


def _debt(name: str, lane: Lane, row: Any, at: float | None) -> Debt:
    try:
        return Debt(name, lane, row.get("url", ""), int(row.get("tries") or 0), row.get("state", ""), row.get("outcome", ""), at)
    except (AttributeError, ValueError):  # an error of Redis in place of the row, or a number that is none
        return Debt(name, lane, "", 0, "", "unreadable", at)
