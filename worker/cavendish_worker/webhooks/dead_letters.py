"""Finds dead letters by endpoint, time, reason, name or id."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from cavendish.endpoint_view import find_endpoint
from cavendish.model import OPERATIONS, Lane
from cavendish.store import Store
from cavendish.store.deliveries import PAGE, Delivery
from cavendish.webhook_endpoint import endpoint_of


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The dead letters that match every field that is given.

    `endpoint`: a name, a URL or a hash; `since`: Unix time; `reason`: a part of it; `deliveries`:
    names of deliveries, or ids that they announce; `lanes`: which lanes are looked at.
    """

    endpoint: str | None = None
    since: float = float("-inf")
    reason: str = ""
    deliveries: Sequence[str] = ()
    lanes: Callable[[Lane], bool] = lambda _: True

    def find(self, store: Store, limit: int | None) -> list[Delivery]:
        """The newest of them. Raises EndpointError for an endpoint that is not known at all."""
        chosen = [*islice(self._matching(store), limit)]
        if self.endpoint is not None and not chosen:
            find_endpoint(store, self.endpoint)
        return chosen

    def _matching(self, store: Store) -> Iterator[Delivery]:
        """Those that match, of all lanes, the newest first."""
        endpoint = None if self.endpoint is None else endpoint_of(self.endpoint)
        wanted, reason = {*self.deliveries}, self.reason.casefold()
        lanes = filter(self.lanes, [*store.tasks.listed_lanes(), OPERATIONS])
        pages = [_dead(store, lane) for lane in lanes]
        for delivery in heapq.merge(*pages, key=lambda delivery: -(delivery.at or 0.0)):
            if (delivery.at or 0.0) < self.since:
                return
            named = not wanted or bool(wanted & {delivery.name, delivery.task_id})
            said = reason in delivery.outcome.casefold()
            if named and said and endpoint in (None, delivery.endpoint):
                yield delivery


def _dead(store: Store, lane: Lane) -> Iterator[Delivery]:
    """All dead letters of a lane, page by page, each once: a new one shifts the next page."""
    offset, seen = 0, set[str]()
    while page := store.closed.dead(lane, PAGE, offset):
        yield from (delivery for delivery in page if delivery.name not in seen)
        seen.update(delivery.name for delivery in page)
        offset += len(page)


def fields(delivery: Delivery) -> dict[str, Any]:
    """A dead letter as plain values, without its log."""
    said = asdict(delivery) | {"lane": str(delivery.lane), "endpoint": delivery.endpoint}
    del said["log"]
    return said
