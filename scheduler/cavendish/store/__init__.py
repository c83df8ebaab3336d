"""The only door to Redis.

`keys.py` has the table of keys; each Lua script is one method with the same verb.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from cavendish.clock import Clock
from cavendish.model import Lane
from cavendish.store.connection import Connection
from cavendish.store.deliveries import Deliveries
from cavendish.store.endpoint_registry import Endpoints
from cavendish.store.events import Events
from cavendish.store.fleet import Fleet
from cavendish.store.lane_view import LaneView, quarantined, views
from cavendish.store.listing import Listing
from cavendish.store.server_info import Server, refuse_old, server
from cavendish.store.shared_state import SharedState
from cavendish.store.statistics import Statistics, StatisticsReader
from cavendish.store.tasks import Tasks


class Store:
    """The store: its chapters share one connection. Safe to share between threads."""

    def __init__(self, url: str, shards: int = 1) -> None:
        self.connection = Connection(url)
        self.tasks = Tasks(self.connection, shards)
        self.deliveries = Deliveries(self.connection)
        self.endpoints = Endpoints(self.connection)
        self.events = Events(self.connection)
        self.shared_state = SharedState(self.connection)
        self.fleet = Fleet(self.connection)
        self.listing = Listing(self.connection)

    def clock(self) -> Clock:
        """A clock set by Redis TIME. Raises BookUnavailable."""
        asked_at = time.monotonic()
        return Clock(self.fleet.now(), asked_at)

    def view(self, lane: Lane, now: float) -> LaneView:
        """The numbers of one lane. Raises BookUnavailable."""
        return views(self.connection, [lane], now)[0]

    def views(
        self,
        lanes: Iterable[Lane],
        now: float,
        after: Mapping[Lane, str] | None = None,
        ends: int = 0,
    ) -> list[LaneView]:
        """The numbers of lanes, with the newest `ends` of each behind its place in `after`.

        Raises BookUnavailable.
        """
        return views(self.connection, lanes, now, after, ends)

    def server(self) -> Server:
        """What the Redis server says of itself. Raises BookUnavailable."""
        return server(self.connection)

    def refuse_old_server(self) -> None:
        """For the processes, before they begin. Raises ServerTooOld and BookUnavailable."""
        refuse_old(self.connection)

    def statistics(self) -> Statistics:
        """Everything that is counted, over all lanes. Raises BookUnavailable."""
        now = self.fleet.now()
        return StatisticsReader(self.connection).count(
            self.tasks.lanes(), self.fleet.members(now), now
        )

    def quarantined(self, lane: Lane) -> dict[str, str]:
        """The ids of a lane whose records could not be read. Raises BookUnavailable."""
        return quarantined(self.connection, lane)

    def close(self) -> None:
        self.connection.close()


__all__ = ["Book"]
