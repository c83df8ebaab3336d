"""How late the ends of the last minutes were noticed, by samples from the streams of events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from cavendish.model import Lane
from cavendish.store.connection import Connection
from cavendish.store.keys import LaneKeys

#: Lanes that are asked, and ends of each lane and minute that are read, at most.
LANES, SAMPLE = 20, 30


def recent_delays(
    connection: Connection, lanes: Sequence[Lane], now: float, minutes: int
) -> dict[int, list[float]]:
    """Seconds from finish to store of some ends of each of the last minutes, by their number: 0 is
    the one that ends now. In one round trip; a minute without ends has no entry.

    Raises StoreUnavailable.
    """
    pipe, places = connection.pipeline(), list[int]()
    for lane in lanes[:LANES]:
        for minute in range(minutes):
            newest, oldest = now - 60 * minute, now - 60 * (minute + 1)
            pipe.xrevrange(
                LaneKeys(lane).events, int(newest * 1000), int(oldest * 1000) + 1, SAMPLE
            )
            places.append(minute)
    found = defaultdict[int, list[float]](list)
    for minute, rows in zip(places, connection.answers(pipe), strict=True):
        for _, entry in rows if isinstance(rows, list) else ():
            try:
                found[minute].append(max(float((entry or {}).get("delay", "")), 0.0))
            except ValueError:
                continue  # of an id whose finish is not known
    return dict(found)
