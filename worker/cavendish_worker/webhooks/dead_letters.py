"""Finds dead letters by endpoint, time, reason, name or id."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from cavendish.endpoints.endpoint_view import find_endpoint
from cavendish.endpoints.webhook_endpoint import endpoint_of
from cavendish.model import OPERATIONS, Changed, Lane
from cavendish.store import Store
from cavendish.store.deliveries import PAGE
from cavendish.store.delivery_reader import Delivery
from cavendish.store.keys import task_of
from cavendish.undo import changes

#: Dead letters that are looked at for one page, and in one step of what is done to many.
LOOKED_AT, STEP = 20_000, 500


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The dead letters that match every field that is given.

    `endpoint`: a name, a URL or a hash; `since`: Unix time; `reason`: a part of it; `deliveries`:
    names of deliveries, or ids that they announce; `lanes`: which lanes are looked at.
    """

    endpoint: str | None = None
    since: float = float("-inf")
    reason: str = ""
    deliveries: Collection[str] = ()
    lanes: Callable[[Lane], bool] = lambda _: True

    def find(self, store: Store, limit: int | None) -> list[Delivery]:
        """The newest of them. Raises EndpointError for an endpoint that is not known at all."""
        chosen = [*islice(self._matching(store), limit)]
        if self.endpoint is not None and not chosen:
            find_endpoint(store, self.endpoint)
        return chosen

    def page(
        self,
        store: Store,
        limit: int,
        before: float = math.inf,
        looked_at: int = LOOKED_AT,
    ) -> tuple[list[Delivery], float | None]:
        """About so many of the newest from before a time, and where the next page begins, if there
        are more: those of one moment are never divided. It looks at so many at most.
        """
        found, last = list[Delivery](), None
        every = self._all(store, before, min(limit + 1, PAGE))
        for delivery in islice(every, looked_at):
            at = delivery.at or 0.0
            if at < self.since or (len(found) >= limit and at != last):
                return found, (last if at >= self.since else None)
            last = at
            if self._matches(delivery):
                found.append(delivery)
        return found, (last if next(every, None) is not None else None)

    def steps(
        self, store: Store, before: float, act: Callable[[Lane, list[str]], Collection[str]]
    ) -> Iterator[list[Changed]]:
        """Do something with all that match and died before a time, lane by lane: `act` gets their
        names and returns those that are dead letters no more. What became of each, step by step.
        """
        for lane in self._lanes(store):
            passed = 0
            while page := store.closed.dead(lane, STEP, passed, before):
                if (page[0].at or 0.0) < self.since:
                    break
                chosen = [one for one in page if self._matches(one) and self._is_late(one)]
                gone = act(lane, [one.name for one in chosen]) if chosen else ()
                passed += len(page) - len(gone)
                done = {task_of(name) for name in gone}
                yield changes(lane, [one.task_id for one in chosen], done, ())

    def counted(self, store: Store, before: float) -> Iterator[int]:
        """How many match and died before a time, some after the other."""
        return (len(some) for some in self.steps(store, before, lambda _lane, _names: ()))

    def _is_late(self, delivery: Delivery) -> bool:
        return (delivery.at or 0.0) >= self.since

    def _matching(self, store: Store) -> Iterator[Delivery]:
        """Those that match, of all lanes, the newest first."""
        for delivery in self._all(store, math.inf, PAGE):
            if (delivery.at or 0.0) < self.since:
                return
            if self._matches(delivery):
                yield delivery

    def _matches(self, delivery: Delivery) -> bool:
        endpoint = delivery.endpoint if self.endpoint is None else endpoint_of(self.endpoint)
        wanted = self.deliveries
        named = not wanted or delivery.name in wanted or delivery.task_id in wanted
        said = self.reason.casefold() in delivery.outcome.casefold()
        return named and said and endpoint == delivery.endpoint

    def _lanes(self, store: Store) -> list[Lane]:
        return [*filter(self.lanes, [*store.tasks.listed_lanes(), OPERATIONS])]

    def _all(self, store: Store, before: float, at_once: int) -> Iterator[Delivery]:
        pages = [_dead(store, lane, before, at_once) for lane in self._lanes(store)]
        return heapq.merge(*pages, key=lambda delivery: -(delivery.at or 0.0))


def _dead(store: Store, lane: Lane, before: float, at_once: int) -> Iterator[Delivery]:
    """All dead letters of a lane, page by page, each once: a new one shifts the next page."""
    offset, seen = 0, set[str]()
    while page := store.closed.dead(lane, at_once, offset, before):
        yield from (delivery for delivery in page if delivery.name not in seen)
        seen.update(delivery.name for delivery in page)
        offset += len(page)


def fields(delivery: Delivery) -> dict[str, Any]:
    """A dead letter as plain values, without its log."""
    said = asdict(delivery) | {"lane": str(delivery.lane), "endpoint": delivery.endpoint}
    del said["log"]
    return said
