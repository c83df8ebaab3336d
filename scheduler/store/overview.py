"""What an operator wants to see at a glance: all lanes in two round trips, two small scripts for each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scheduler.condition import Condition
from scheduler.endpoints import endpoint_in
from scheduler.store.connection import Connection
from scheduler.store.keys import LaneKeys
from scheduler.tracking import Lane

#: Fresh debts of a lane that are counted by endpoint; a longer inbox is counted as a whole.
NAMED = 1000
#: Queues whose lengths one script tells: a short script lets others in between.
QUEUES_AT_ONCE = 500
#: Under this name count the debts of an inbox that is too long to be read.
UNSORTED = "(not sorted yet)"


class End(NamedTuple):
    """The end of one id: its place in the stream, when the book learned of it, and how long after the finish (s)."""

    place: str
    at: float
    delay: float | None


@dataclass(frozen=True, slots=True)
class LaneView:
    """The numbers of one lane. `in_flight` are leased ids; `owed` debts by endpoint; `counts` totals since the book began.

    `ends` are the newest ends, the newest first; `producers` those with pending ids.
    """

    lane: Lane
    pending: int
    due: int
    in_flight: int
    owed: dict[str, int]
    dead: int
    aside: int
    counts: dict[str, int]
    condition: Condition
    producers: tuple[str, ...]
    ends: tuple[End, ...]


def views(
    connection: Connection, lanes: Iterable[Lane], now: float, after: Mapping[Lane, str] | None = None, ends: int = 0
) -> list[LaneView]:
    """Look at lanes, and at the newest `ends` of each, behind its place in `after` if there is one. Raises BookUnavailable."""
    lanes, glances, places = list(lanes), connection.reads(), after or {}
    for lane in lanes:
        k = LaneKeys(lane)
        names = [k.deadlines, k.leases, k.dead, k.aside, k.counts, k.owed, k.owing, k.producers, k.condition, k.events]
        glances.queue("glance", names, [NAMED, f"({places[lane]}" if lane in places else "-", ends])
    with connection.errors():
        seen = glances.execute() if lanes else []
    return [_view(lane, row, *d) for lane, row, d in zip(lanes, seen, _depths(connection, lanes, seen, now), strict=True)]


def _depths(connection: Connection, lanes: Sequence[Lane], seen: Sequence[Any], now: float) -> list[tuple[int, dict[str, int]]]:
    """How much is due in each lane, and how much waits in the queues of each endpoint."""
    batch, asked = connection.reads(), []
    for number, (lane, row) in enumerate(zip(lanes, seen, strict=True)):
        keys, owing, producers = LaneKeys(lane), row[7], row[8]
        for start in range(0, max(len(owing), 1), QUEUES_AT_ONCE):
            some = owing[start : start + QUEUES_AT_ONCE]
            dues = [keys.due(producer) for producer in producers] if not start else []
            queues = [key for endpoint in some for key in (keys.queue(endpoint), keys.retries(endpoint))]
            if dues or queues:
                batch.queue("depths", [*dues, *queues], [now, len(dues)])
                asked.append((number, len(dues), some))
    with connection.errors():
        answers = batch.execute() if asked else []
    found: list[tuple[int, dict[str, int]]] = [(0, {}) for _ in lanes]
    for (number, dues_asked, endpoints), numbers in zip(asked, answers, strict=True):
        waiting = numbers[dues_asked:]
        both = zip(endpoints, waiting[::2], waiting[1::2], strict=True)
        due, queued = found[number]
        found[number] = (due + sum(numbers[:dues_asked]), queued | {name: q + r for name, q, r in both if q + r})
    return found


def _view(lane: Lane, row: Any, due: int, owed: dict[str, int]) -> LaneView:
    pending, in_flight, dead, set_aside, counts, inbox, fresh, _, producers, condition, ends = row
    for debt in fresh:
        owed[endpoint_in(debt)] = owed.get(endpoint_in(debt), 0) + 1
    if inbox > len(fresh):
        owed[UNSORTED] = inbox - len(fresh)
    totals = {name: int(count) for name, count in zip(counts[::2], counts[1::2], strict=True)}
    told = tuple(End(place, _number(at) or 0.0, _number(delay)) for place, at, delay in _threes(ends))
    known = Condition.from_json(condition or None)
    return LaneView(lane, pending, due, in_flight, owed, dead, set_aside, totals, known, tuple(sorted(producers)), told)


def _threes(flat: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    return zip(flat[::3], flat[1::3], flat[2::3], strict=True)


def _number(text: str) -> float | None:
    """None for a text that is no number of this world: entries of an older version say no delay."""
    try:
        return number if math.isfinite(number := float(text)) else None
    except ValueError:
        return None


def aside(connection: Connection, lane: Lane) -> dict[str, str]:
    """The ids whose records could not be read, with the reason. Raises BookUnavailable."""
    with connection.errors():
        found: dict[str, str] = connection.redis.hgetall(LaneKeys(lane).aside)  # type: ignore[assignment]
    return found
