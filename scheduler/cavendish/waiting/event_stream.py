"""The ends of tracked tasks from a place on: what is kept, or also what comes."""

from __future__ import annotations

import time
from collections.abc import Iterator

from cavendish.model import Event, Lane
from cavendish.store import Store
from cavendish.store.events import KEPT, START, Reader, places_of

#: Seconds after which new lanes are looked for.
LIST_AGAIN = 2.0


class EventStream:
    """What `Client.events` reads; its options are explained there. For one thread at a time."""

    def __init__(
        self, store: Store, service: str | None, account: str | None, after: str | None
    ) -> None:
        self._store, self._service, self._account = store, service, account
        self._first_lanes = lanes = self.lanes()
        if after is None:
            places = store.events.last(lanes)
        elif after in ("", "0"):
            places = dict.fromkeys(lanes, KEPT)
        else:
            known = places_of(after)
            places = {lane: known.get(lane, START) for lane in lanes}
        self._reader = Reader(store.events, places)

    def lanes(self) -> list[Lane]:
        """The lanes that there are now."""
        return [
            lane
            for lane in self._store.tasks.lanes()
            if self._service in (None, lane.service) and self._account in (None, lane.account)
        ]

    def read(self, block: float | None = None) -> Iterator[Event]:
        """The next events; if there are none, wait for `block` seconds, but never more than 2."""
        return self._reader.read(block)

    def kept(self) -> Iterator[Event]:
        """All up to the last one that there is now. For a stream that nothing was read of."""
        return self._until(self._store.events.last(self._first_lanes))

    def following(self) -> Iterator[Event]:
        """All that there are, and then those that come."""
        while True:
            list_again = time.monotonic() + LIST_AGAIN
            while (left := list_again - time.monotonic()) > 0:
                yield from self.read(left)
            self.add_new_lanes()

    def add_new_lanes(self) -> list[Lane]:
        """Read new lanes too, from their beginning. Returns all lanes that there are."""
        lanes = self.lanes()
        self._reader.add(dict.fromkeys(lanes, START))
        return lanes

    def _until(self, end: dict[Lane, str]) -> Iterator[Event]:
        while events := list(self._reader.read(until=end)):
            yield from events
