"""The only door to Redis.

`keys.py` has the table of keys; each Lua script is run by a method of its name.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from cavendish.clock import Clock
from cavendish.model import OPERATIONS, Lane
from cavendish.store.announcements import Announcements
from cavendish.store.api_keys import ApiKeys
from cavendish.store.attempt_counts import AttemptCounts
from cavendish.store.closed import Closed
from cavendish.store.common_parts import CommonParts
from cavendish.store.connection import Connection
from cavendish.store.controls import OperatorControls
from cavendish.store.deadlines import Deadlines
from cavendish.store.deliveries import Deliveries
from cavendish.store.endpoint_registry import Endpoints
from cavendish.store.erasure import Erasure
from cavendish.store.events import Events
from cavendish.store.fleet import Fleet
from cavendish.store.groups import Groups
from cavendish.store.journal import Journal
from cavendish.store.key_index import KeyIndex
from cavendish.store.lane_registry import LaneRegistry
from cavendish.store.producer_usage import ProducerUsage
from cavendish.store.reconciliation import Reconciliation
from cavendish.store.refused import Refused
from cavendish.store.search import Search
from cavendish.store.server_info import Server, refuse_old, server
from cavendish.store.shared_state import SharedState
from cavendish.store.statistics import Statistics, StatisticsReader
from cavendish.store.tracked_tasks import Tasks
from cavendish.store.uncertain_submits import UncertainSubmits

#: Seconds of a round trip after which the time is asked for again, and how often at most.
SLOW_ROUND_TRIP, CLOCK_TRIES = 0.1, 3


class Store:
    """The store: its subjects share one connection. Safe to share between threads."""

    def __init__(self, url: str, shards: int = 1) -> None:
        self.connection = Connection(url)
        self._clock: tuple[float, Clock] | None = None
        self.common_parts = CommonParts(self.connection)
        self.tasks = Tasks(self.connection, self.common_parts, shards)
        self.deadlines = Deadlines(self.connection)
        self.producer_usage = ProducerUsage(self.connection)
        self.groups = Groups(self.connection, shards)
        self.key_index = KeyIndex(self.connection)
        self.deliveries = Deliveries(self.connection, self.common_parts)
        self.closed = Closed(self.connection, self.deliveries)
        self.reconciliation = Reconciliation(self.connection)
        self.lane_registry = LaneRegistry(self.connection)
        self.endpoints = Endpoints(self.connection)
        self.attempt_counts = AttemptCounts(self.connection)
        self.api_keys = ApiKeys(self.connection)
        self.events = Events(self.connection)
        self.shared_state = SharedState(self.connection)
        self.controls = OperatorControls(self.connection)
        self.fleet = Fleet(self.connection)
        self.journal = Journal(self.connection)
        self.erasure = Erasure(self.connection, self.journal)
        self.search = Search(self.connection, self.tasks, self.journal)
        self.refused = Refused(self.connection)
        self.uncertain = UncertainSubmits(self.connection)
        self.announcements = Announcements(self.connection, self.tasks, shards)

    def clock(self, known_for: float = 0.0) -> Clock:
        """A clock set by Redis TIME, which was asked at most `known_for` seconds ago.

        It is wrong by at most half of a round trip, so after a slow one Redis is asked again.
        Raises StoreUnavailable.
        """
        known = self._clock
        if known is not None and time.monotonic() - known[0] < known_for:
            return known[1]
        clocks: list[tuple[float, Clock]] = []
        while len(clocks) < CLOCK_TRIES and (not clocks or clocks[-1][0] > SLOW_ROUND_TRIP):
            asked_at = time.monotonic()
            clock = Clock(self.fleet.now(), asked_at)
            clocks.append((time.monotonic() - asked_at, clock))
        clock = min(clocks, key=lambda pair: pair[0])[1]
        self._clock = time.monotonic(), clock
        return clock

    def server(self) -> Server:
        """What the Redis server reports about itself. Raises StoreUnavailable."""
        return server(self.connection)

    def refuse_old_server(self) -> None:
        """Raise ServerTooOld if the Redis server is too old. Raises StoreUnavailable."""
        refuse_old(self.connection)

    def statistics(
        self,
        lanes: Iterable[Lane] | None = None,
        *,
        after: Mapping[Lane, str] | None = None,
        ends: int = 0,
        models: int = 0,
    ) -> Statistics:
        """All numbers: of all lanes and the operator alerts, or of these lanes only.

        The options are those of `StatisticsReader`. Raises StoreUnavailable.
        """
        now = self.fleet.now()
        wanted = [*self.tasks.listed_lanes(), OPERATIONS] if lanes is None else list(lanes)
        reader = StatisticsReader(self.connection, after, ends=ends, models=models)
        return reader.read(wanted, self.fleet.members(now), now)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


__all__ = ["Store"]
