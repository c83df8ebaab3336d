"""How long the deliveries of endpoints have waited in their queues."""

from __future__ import annotations

from collections.abc import Iterable

from cavendish.model import Lane
from cavendish.store.connection import Connection
from cavendish.store.keys import LaneKeys


def due_since(connection: Connection, places: Iterable[tuple[Lane, str]]) -> dict[str, float]:
    """By endpoint since when the first of its queued deliveries is due, or will be, in one round
    trip. Raises StoreUnavailable.

    `places`: in which lane deliveries of an endpoint lie; one without any is left out.
    """
    places, pipe = list(places), connection.pipeline()
    for lane, endpoint in places:
        pipe.zrange(LaneKeys(lane).queue(endpoint), 0, 0, withscores=True)
        pipe.zrange(LaneKeys(lane).retries(endpoint), 0, 0, withscores=True)
    rows, found = connection.answers(pipe), dict[str, float]()
    for (_, endpoint), *pair in zip(places, rows[::2], rows[1::2], strict=True):
        for _, at in (first for row in pair if isinstance(row, list) for first in row):
            found[endpoint] = min(found.get(endpoint, at), at)
    return found
