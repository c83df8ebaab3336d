"""The only door to Redis. `keys.py` has the table of keys; each Lua script is one method with the same verb."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from scheduler.clock import Clock
from scheduler.store.census import Census, Counting
from scheduler.store.connection import Connection
from scheduler.store.debts import Debts
from scheduler.store.endpoints import Endpoints
from scheduler.store.events import Events
from scheduler.store.fleet import Fleet
from scheduler.store.learned import Learned
from scheduler.store.listing import Listing
from scheduler.store.overview import LaneView, aside, views
from scheduler.store.server import Server, server
from scheduler.store.tasks import Tasks
from scheduler.tracking import Lane


class Book:
    """The book: its chapters share one connection. Safe to share between threads."""

    def __init__(self, url: str, shards: int = 1) -> None:
        self.connection = Connection(url)
        self.tasks = Tasks(self.connection, shards)
        self.debts = Debts(self.connection)
        self.endpoints = Endpoints(self.connection)
        self.events = Events(self.connection)
        self.learned = Learned(self.connection)
        self.fleet = Fleet(self.connection)
        self.listing = Listing(self.connection)

    def clock(self) -> Clock:
        """A clock set by Redis TIME. Raises BookUnavailable."""
        asked_at = time.monotonic()
        return Clock(self.fleet.now(), asked_at)

    def view(self, lane: Lane, now: float) -> LaneView:
        """The numbers of one lane. Raises BookUnavailable."""
        return views(self.connection, [lane], now)[0]

    def views(self, lanes: Iterable[Lane], now: float, after: Mapping[Lane, str] | None = None, ends: int = 0) -> list[LaneView]:
        """The numbers of lanes, with the newest `ends` of each behind its place in `after`. Raises BookUnavailable."""
        return views(self.connection, lanes, now, after, ends)

    def server(self) -> Server:
        """What the Redis server says of itself. Raises BookUnavailable."""
        return server(self.connection)

    def census(self) -> Census:
        """Everything that is counted, over all lanes. Raises BookUnavailable."""
        now = self.fleet.now()
        return Counting(self.connection).count(self.tasks.lanes(), self.fleet.members(now), now)

    def aside(self, lane: Lane) -> dict[str, str]:
        """The ids of a lane whose records could not be read. Raises BookUnavailable."""
        return aside(self.connection, lane)

    def close(self) -> None:
        self.connection.close()


__all__ = ["Book"]
