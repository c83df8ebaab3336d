"""Finds dead letters by a filter, the newest first, and looks at so many of them at most."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from cavendish.model import OPERATIONS, Lane
from cavendish.store import Store
from cavendish.store.deliveries import Delivery
from cavendish.webhook_endpoint import endpoint_of

#: Dead letters that are read at once, and that are looked at for one page.
CHUNK, LOOKED_AT = 200, 20_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Dead letters to an `endpoint` (name or URL), whose reason contains a text, that died since a
    time, and that have one of these `names`; what is empty matches any.
    """

    endpoint: str = ""
    reason: str = ""
    since: float | None = None
    names: frozenset[str] = frozenset()

    def matches(self, one: Delivery) -> bool:
        endpoint = endpoint_of(self.endpoint) if self.endpoint else one.endpoint
        named = not self.names or one.name in self.names
        return (
            named and endpoint == one.endpoint and self.reason.casefold() in one.outcome.casefold()
        )


def find(
    store: Store, wanted: Wanted, limit: int, before: float | None = None
) -> tuple[list[Delivery], float | None]:
    """About so many, those of one moment never divided; and where the next page begins, if there
    are more.
    """
    lanes = [*store.tasks.listed_lanes(), OPERATIONS]
    start = float("inf") if before is None else before
    merged = heapq.merge(
        *(_dead(store, lane, start) for lane in lanes), key=lambda one: -(one.at or 0.0)
    )
    found, last = list[Delivery](), None
    for one in islice(merged, LOOKED_AT):
        at = one.at or 0.0
        if wanted.since is not None and at < wanted.since:
            return found, None
        if len(found) >= limit and at != last:
            return found, last
        last = at
        if wanted.matches(one):
            found.append(one)
    return found, last if next(merged, None) is not None else None


def _dead(store: Store, lane: Lane, before: float) -> Iterator[Delivery]:
    """All dead letters of a lane from before a time, each once: what is new is newer."""
    offset = 0
    while page := store.closed.dead(lane, CHUNK, offset, before):
        yield from page
        offset += len(page)
