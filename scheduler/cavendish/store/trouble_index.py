"""The lanes, or endpoints, in one kind of trouble, so that nobody reads the state of all.

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
    """The lanes or endpoints of one key, by time. Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection, key: str) -> None:
        self._redis, self._key = connection, key

    def add(self, name: Lane | str, at: float) -> None:
        """List a lane or an endpoint, with the time of its trouble."""
        self._redis.write_when_full(self._key, "ZADD", repr(at), str(name))

    def remove(self, those: Iterable[Lane | str]) -> None:
        """List these no more."""
        if names := [str(one) for one in those]:
            with self._redis.errors():
                self._redis.redis.zrem(self._key, *names)

    def forget(self, before: float) -> None:
        """List those no more whose time is earlier: their state has expired."""
        self._redis.write_when_full(self._key, "ZREMRANGEBYSCORE", "-inf", f"({before!r}")

    def lanes(self, since: float = 0.0) -> list[Lane]:
        """The lanes whose time is `since` or later, the earliest first, in one round trip."""
        with self._redis.errors():
            names: list[str] = self._redis.redis.zrangebyscore(self._key, since, "+inf")  # type: ignore[assignment]
        lanes = []
        for name in names:
            with suppress(ValueError):
                lanes.append(Lane.parse(name))
        return lanes
