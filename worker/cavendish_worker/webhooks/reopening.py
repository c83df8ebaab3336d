"""Reopens closed deliveries: what `dead revive` and `replay` share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from cavendish.model import Lane
from cavendish.operator_act import OperatorAct
from cavendish.store import Store

#: Most deliveries that one run reopens, and how many at once.
MOST, CHUNK = 10_000, 500


def chunks(deliveries: Iterable[tuple[Lane, str]]) -> Iterator[tuple[Lane, list[str]]]:
    """Names of deliveries by lane, at most CHUNK at once."""
    by_lane = defaultdict[Lane, list[str]](list)
    for lane, name in deliveries:
        by_lane[lane].append(name)
    for lane, names in by_lane.items():
        for start in range(0, len(names), CHUNK):
            yield lane, names[start : start + CHUNK]


def reopen(
    store: Store,
    deliveries: Sequence[tuple[Lane, str]],
    start: float,
    rate: float,
    *,
    dead: bool,
    by: str,
) -> list[str]:
    """Make closed deliveries pending again: `rate` per second from `start` on, in their order.

    `dead`: they are dead letters, else delivered ones. `by` whom it is done is noted in the record
    of each id. Returns the names that were reopened.
    """
    act = OperatorAct(store.fleet.now(), "revive" if dead else "replay", by)
    times = {delivery: start + place / rate for place, delivery in enumerate(deliveries)}
    return [
        name
        for lane, names in chunks(deliveries)
        for name in store.closed.reopen(
            lane, {name: times[lane, name] for name in names}, dead=dead, act=act
        )
    ]


def spread(count: int, rate: float) -> str:
    """Over how long the deliveries are spread, in words; empty for less than a second."""
    return f", spread over {count / rate:.0f} s" if count / rate > 1 else ""
