"""Callbacks are only hints: the id that one names is polled soon, and no more.

A callback may come before its id was submitted, so such an id is remembered for two minutes. A
flood of ids that nobody submitted displaces only ids of the same kind.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from cavendish.errors import StoreUnavailable
from cavendish.store import Store
from cavendish_worker.service.held_requests import cancelled

#: Ids that are announced at once; and most that wait for their first, and for a later announcement.
_AT_ONCE, _MOST = 500, 10_000
#: Seconds before the later announcements of an id that was not tracked yet.
_AGAIN = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
#: Seconds between two rounds.
_ROUND = 0.02


@dataclass(frozen=True, slots=True)
class Heard:
    """An id that a callback named."""

    account: str
    service: str
    id: str


class CallbackHints:
    """The ids of callbacks on their way into the store. Use it in one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._new: OrderedDict[Heard, None] = OrderedDict()
        #: How often each was announced already, and when it is the next time.
        self._early: OrderedDict[Heard, tuple[int, float]] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    def hear(self, heard: Heard) -> None:
        """Let an id be polled soon; returns at once."""
        if len(self._new) < _MOST:  # beyond that the polls of the schedule find the end
            self._new[heard] = None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Forget what is on its way."""
        if self._task is not None:
            await cancelled(self._task)

    async def _run(self) -> None:
        """Announce ids until there are none; the next one starts it again."""
        while self._new or self._early:
            some = dict(self._due(time.monotonic()))
            if some:
                await self._announce(some)
            await asyncio.sleep(_ROUND)

    def _due(self, now: float) -> Iterator[tuple[Heard, int]]:
        """What to announce now, each with how often that was done before."""
        for _ in range(min(len(self._new), _AT_ONCE)):
            heard, _ = self._new.popitem(last=False)
            yield heard, self._early.pop(heard, (0, 0.0))[0]
        due = [heard for heard, (_, at) in self._early.items() if at <= now]
        for heard in due[:_AT_ONCE]:
            yield heard, self._early.pop(heard)[0]

    async def _announce(self, some: dict[Heard, int]) -> None:
        places: dict[tuple[str, str], list[str]] = defaultdict(list)
        for heard in some:
            places[heard.account, heard.service].append(heard.id)
        again = await asyncio.to_thread(self._told, places)
        now = time.monotonic()
        for heard, times in some.items():
            if heard in again and times < len(_AGAIN):
                self._early[heard] = times + 1, now + _AGAIN[times]
        while len(self._early) > _MOST:
            self._early.popitem(last=False)

    def _told(self, places: dict[tuple[str, str], list[str]]) -> set[Heard]:
        """Announce ids by place; those to announce again."""
        again = {Heard(*place, each) for place, ids in places.items() for each in ids}
        with suppress(StoreUnavailable):
            now = self._store.fleet.now()
            for place, ids in places.items():
                left = self._store.announcements.announce(*place, ids, now)
                again -= {Heard(*place, each) for each in ids if each not in left}
        return again
