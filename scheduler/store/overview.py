"""What an operator wants to see at a glance, read in one round trip per lane."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.store.connection import Connection
from scheduler.store.debts import Debts
from scheduler.store.keys import LaneKeys
from scheduler.tracking import Lane


@dataclass(frozen=True, slots=True)
class LaneView:
    """The numbers of one lane. `in_flight` are leased ids; `owed` debts by endpoint; `counts` totals since the book began."""

    lane: Lane
    pending: int
    due: int
    in_flight: int
    owed: dict[str, int]
    dead: int
    aside: int
    counts: dict[str, int]


def view(connection: Connection, lane: Lane, now: float) -> LaneView:
    """Look at one lane. Raises BookUnavailable."""
    keys = LaneKeys(lane)
    with connection.errors():
        producers: Iterable[str] = connection.redis.smembers(keys.producers)  # type: ignore[assignment]
    pipe = connection.pipeline()
    pipe.zcard(keys.deadlines)
    pipe.hlen(keys.leases)
    pipe.zcard(keys.dead)
    pipe.hlen(keys.aside)
    pipe.hgetall(keys.counts)
    for producer in producers:
        pipe.zcount(keys.due(producer), "-inf", now)
    with connection.errors():
        pending, in_flight, dead, set_aside, counts, *due = pipe.execute()
    owed = Debts(connection).waiting(lane)
    totals = {name: int(count) for name, count in counts.items()}
    return LaneView(lane, pending, sum(due), in_flight, owed, dead, set_aside, totals)


def aside(connection: Connection, lane: Lane) -> dict[str, str]:
    """The ids whose records could not be read, with the reason. Raises BookUnavailable."""
    with connection.errors():
        found: dict[str, str] = connection.redis.hgetall(LaneKeys(lane).aside)  # type: ignore[assignment]
    return found
