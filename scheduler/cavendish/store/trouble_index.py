"""Which lanes are in one kind of trouble, so that alerts need not read the state of every lane.

A lane and this index may lie in different slots of a cluster. The state of the lane is written
first, and decides; the index is written again with each later report of the trouble. So a crash in
between, or a lane that was removed while it got into trouble again, is mended by the next report.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from cavendish.model import Lane
from cavendish.store.connection import Connection


class TroubleIndex:
    """The lanes of one key, by time. Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection, key: str) -> None:
        self._redis, self._key = connection, key

    def add(self, lane: Lane, at: float) -> None:
        """List a lane, with the time of its trouble."""
        self._redis.write_when_full(self._key, "ZADD", repr(at), str(lane))

    def remove(self, lanes: Iterable[Lane]) -> None:
        """List these lanes no more."""
        if names := [str(lane) for lane in lanes]:
            with self._redis.errors():
                self._redis.redis.zrem(self._key, *names)

    def lanes(self, since: float = 0.0) -> list[Lane]:
        """The lanes whose time is `since` or later, the earliest first, in one round trip."""
        with self._redis.errors():
            names: list[str] = self._redis.redis.zrangebyscore(self._key, since, "+inf")  # type: ignore[assignment]
        lanes = []
        for name in names:
            with suppress(ValueError):
                lanes.append(Lane.parse(name))
        return lanes
