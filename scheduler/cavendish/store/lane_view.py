"""What an operator wants to see at a glance.

All lanes in two round trips, two small scripts for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cavendish.model import Lane
from cavendish.policy.service_health import ServiceHealth
from cavendish.store.connection import Connection
from cavendish.store.keys import LaneKeys
from cavendish.webhook_endpoint import endpoint_in

#: Fresh deliveries of a lane that are counted by endpoint; a longer inbox is counted as a whole.
NAMED = 1000
#: Queues whose lengths one script tells: a short script lets others in between.
QUEUES_AT_ONCE = 500
#: Under this name count the deliveries of an inbox that is too long to be read.
UNSORTED = "(not sorted yet)"


class End(NamedTuple):
    """The end of one id.

    Its place in the stream, when the store learned of it, and how long after the finish (s).
    """

    place: str
    at: float
    delay: float | None


@dataclass(frozen=True, slots=True)
class LaneView:
    """The numbers of one lane. `in_flight` are leased ids; `pending_deliveries` deliveries by
    endpoint; `counts` totals since the store began.

    `ends` are the newest ends, the newest first; `producers` those with pending ids.
    """

    lane: Lane
    pending: int
    due: int
    in_flight: int
    pending_deliveries: dict[str, int]
    dead: int
    quarantined: int
    counts: dict[str, int]
    service_health: ServiceHealth
    producers: tuple[str, ...]
    ends: tuple[End, ...]


def views(
    connection: Connection,
    lanes: Iterable[Lane],
    now: float,
    after: Mapping[Lane, str] | None = None,
    ends: int = 0,
) -> list[LaneView]:
    """Look at lanes, and at the newest `ends` of each, behind its place in `after` if there is one.

    Raises BookUnavailable.
    """
    lanes, summaries, places = list(lanes), connection.reads(), after or {}
    for lane in lanes:
        k = LaneKeys(lane)
        names = [
            k.deadlines,
            k.leases,
            k.dead,
            k.quarantined,
            k.counts,
            k.pending_deliveries,
            k.endpoint_index,
            k.producers,
            k.service_health,
            k.events,
        ]
        summaries.queue(
            "lane_summary", names, [NAMED, f"({places[lane]}" if lane in places else "-", ends]
        )
    with connection.errors():
        seen = summaries.execute() if lanes else []
    return [
        _view(lane, row, *d)
        for lane, row, d in zip(
            lanes, seen, _queue_lengths(connection, lanes, seen, now), strict=True
        )
    ]


def _queue_lengths(
    connection: Connection, lanes: Sequence[Lane], seen: Sequence[Any], now: float
) -> list[tuple[int, dict[str, int]]]:
    """How much is due in each lane, and how much waits in the queues of each endpoint."""
    batch, asked = connection.reads(), []
    for number, (lane, row) in enumerate(zip(lanes, seen, strict=True)):
        keys, endpoint_index, producers = LaneKeys(lane), row[7], row[8]
        for start in range(0, max(len(endpoint_index), 1), QUEUES_AT_ONCE):
            some = endpoint_index[start : start + QUEUES_AT_ONCE]
            dues = [keys.due(producer) for producer in producers] if not start else []
            queues = [
                key for endpoint in some for key in (keys.queue(endpoint), keys.retries(endpoint))
            ]
            if dues or queues:
                batch.queue("queue_lengths", [*dues, *queues], [now, len(dues)])
                asked.append((number, len(dues), some))
    with connection.errors():
        answers = batch.execute() if asked else []
    found: list[tuple[int, dict[str, int]]] = [(0, {}) for _ in lanes]
    for (number, dues_asked, endpoints), numbers in zip(asked, answers, strict=True):
        waiting = numbers[dues_asked:]
        both = zip(endpoints, waiting[::2], waiting[1::2], strict=True)
        due, queued = found[number]
        found[number] = (
            due + sum(numbers[:dues_asked]),
            queued | {name: q + r for name, q, r in both if q + r},
        )
    return found


def _view(lane: Lane, row: Any, due: int, pending_deliveries: dict[str, int]) -> LaneView:
    (
        pending,
        in_flight,
        dead,
        quarantine,
        counts,
        inbox,
        fresh,
        _,
        producers,
        service_health,
        ends,
    ) = row
    for delivery in fresh:
        pending_deliveries[endpoint_in(delivery)] = (
            pending_deliveries.get(endpoint_in(delivery), 0) + 1
        )
    if inbox > len(fresh):
        pending_deliveries[UNSORTED] = inbox - len(fresh)
    totals = {name: int(count) for name, count in zip(counts[::2], counts[1::2], strict=True)}
    told = tuple(
        End(place, _number(at) or 0.0, _number(delay)) for place, at, delay in _threes(ends)
    )
    known = ServiceHealth.from_json(service_health or None)
    return LaneView(
        lane,
        pending,
        due,
        in_flight,
        pending_deliveries,
        dead,
        quarantine,
        totals,
        known,
        tuple(sorted(producers)),
        told,
    )


def _threes(flat: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    return zip(flat[::3], flat[1::3], flat[2::3], strict=True)


def _number(text: str) -> float | None:
    """None for a text that is no number of this world: entries of an older version say no delay."""
    try:
        return number if math.isfinite(number := float(text)) else None
    except ValueError:
        return None


def quarantined(connection: Connection, lane: Lane) -> dict[str, str]:
    """The ids whose records could not be read, with the reason. Raises BookUnavailable."""
    with connection.errors():
        found: dict[str, str] = connection.redis.hgetall(LaneKeys(lane).quarantined)  # type: ignore[assignment]
    return found
