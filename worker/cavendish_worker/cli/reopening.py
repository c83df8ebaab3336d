"""What `dead revive` and `replay` share: closed deliveries become pending again, so many a second."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from cavendish.model import Lane
from cavendish.store import Store

#: Most deliveries that one run reopens, and how many at once.
MOST, CHUNK = 10_000, 500


def chunks(deliveries: Iterable[tuple[Lane, str]]) -> Iterator[tuple[Lane, list[str]]]:
    by_lane = defaultdict[Lane, list[str]](list)
    for lane, name in deliveries:
        by_lane[lane].append(name)
    for lane, names in by_lane.items():
        for start in range(0, len(names), CHUNK):
            yield lane, names[start : start + CHUNK]


def reopen(
    store: Store, deliveries: Sequence[tuple[Lane, str]], start: float, rate: float, *, dead: bool
) -> list[str]:
    """Owe closed deliveries again, `rate` a second from `start` on, in their order.

    Returns those that were reopened.
    """
    times = {delivery: start + place / rate for place, delivery in enumerate(deliveries)}
    done: list[str] = []
    for lane, names in chunks(deliveries):
        done += store.deliveries.reopen(
            lane, {name: times[lane, name] for name in names}, dead=dead
        )
    return done


def over(count: int, rate: float) -> str:
    return f", spread over {count / rate:.0f} s" if count / rate > 1 else ""
