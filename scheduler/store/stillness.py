"""One cheap look: does anything wait for an answer of the API, or may beat be still?"""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.store.connection import Connection
from scheduler.store.keys import LaneKeys
from scheduler.tracking import Lane


def anything_pending(connection: Connection, lanes: Iterable[Lane]) -> bool:
    """True if a lane has ids that have not ended: each of those has a deadline. Raises BookUnavailable."""
    pipe = connection.pipeline()
    for lane in lanes:
        pipe.exists(LaneKeys(lane).deadlines)
    with connection.errors():
        return any(pipe.execute())
