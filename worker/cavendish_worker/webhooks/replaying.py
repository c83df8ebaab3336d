"""Sends delivered webhooks of an endpoint again, the oldest first."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

from cavendish.endpoints.webhook_endpoint import endpoint_in
from cavendish.model import OPERATIONS, Lane
from cavendish.store import Store
from cavendish.store.deliveries import PAGE
from cavendish.store.keys import delivery_of
from cavendish_worker.webhooks.reopening import CHUNK, reopen

#: When an id ended, its lane, and the name of the delivery.
Ended = tuple[float, Lane, str]


def replay(
    store: Store,
    endpoint: str,
    since: float,
    rate: float,
    limit: int,
    lanes: Callable[[Lane], bool] = lambda _: True,
    *,
    by: str,
) -> tuple[int, int | None]:
    """Send webhooks of ids that ended `since` then to an `endpoint` again, `rate` per second.

    Returns how many there are, and the second at which the `limit` cut off the rest: those of one
    second are never divided. `lanes`: of which lanes; `by`: as for `reopen`.
    """
    wanted = filter(lanes, [*store.tasks.listed_lanes(), OPERATIONS])
    ended = heapq.merge(*(_ended(store, lane, since, endpoint) for lane in wanted))
    return _replay(store, ended, store.fleet.now(), rate, limit, by)


def _replay(
    store: Store, ended: Iterable[Ended], now: float, rate: float, limit: int, by: str
) -> tuple[int, int | None]:
    done, second, batch = 0, None, list[tuple[Lane, str]]()
    for at, lane, name in ended:
        fresh = int(at) != second
        if len(batch) >= CHUNK or (fresh and done + len(batch) >= limit):
            done += len(reopen(store, batch, now + done / rate, rate, dead=False, by=by))
            batch = []
        if fresh and done >= limit:
            return done, int(at)
        second = int(at)
        batch.append((lane, name))
    return done + len(reopen(store, batch, now + done / rate, rate, dead=False, by=by)), None


def _ended(store: Store, lane: Lane, since: float, endpoint: str) -> Iterator[Ended]:
    """The deliveries to an endpoint for the ids of a lane that ended since then, in that order.

    The next page begins at the time of the last id, after those of that very time: the reconcile
    run may remove some meanwhile.
    """
    at, there = since, 0
    while page := store.closed.ended_since(lane, at, there, PAGE):
        for task_id, ended, webhooks in page:
            at, there = ended, (there if ended == at else 0) + 1
            for subscription in webhooks.split():
                if endpoint_in(subscription) == endpoint:
                    yield ended, lane, delivery_of(subscription, task_id)
