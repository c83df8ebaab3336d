"""Finds dead letters by endpoint, time, reason, name or id."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, NamedTuple

from cavendish.endpoints.endpoint_view import find_endpoint
from cavendish.endpoints.webhook_endpoint import endpoint_in, endpoint_of
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
        chosen = _loaded(store, islice(self._matching(store), limit))
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
        found, last = list[_Letter](), None
        every = self._all(store, before, limit + 1)
        for letter, matches in self._judged(store, islice(every, looked_at), limit + 1):
            if letter.at < self.since or (len(found) >= limit and letter.at != last):
                return _loaded(store, found), (last if letter.at >= self.since else None)
            last = letter.at
            if matches:
                found.append(letter)
        return _loaded(store, found), (last if next(every, None) is not None else None)

    def steps(
        self, store: Store, before: float, act: Callable[[Lane, list[str]], Collection[str]]
    ) -> Iterator[list[Changed]]:
        """Do something with all that match and died before a time, lane by lane: `act` gets their
        names and returns those that are dead letters no more. What became of each, step by step.
        """
        for lane in self._lanes(store):
            passed = 0
            while page := _names(store, lane, STEP, passed, before):
                if page[0].at < self.since:
                    break
                late = (letter for letter in page if letter.at >= self.since)
                chosen = [one.name for one, matches in self._judged(store, late, STEP) if matches]
                gone = act(lane, chosen) if chosen else ()
                passed += len(page) - len(gone)
                done = {task_of(name) for name in gone}
                yield changes(lane, [task_of(name) for name in chosen], done, ())

    def counted(self, store: Store, before: float) -> Iterator[int]:
        """How many match and died before a time, some after the other."""
        if self.endpoint is None and not self.reason and not self.deliveries:
            return (
                store.closed.count_dead(lane, self.since, before) for lane in self._lanes(store)
            )
        return (len(some) for some in self.steps(store, before, lambda _lane, _names: ()))

    def _matching(self, store: Store) -> Iterator[_Letter]:
        """Those that match, of all lanes, the newest first."""
        for letter, matches in self._judged(store, self._all(store, math.inf, PAGE), PAGE):
            if letter.at < self.since:
                return
            if matches:
                yield letter

    def _judged(
        self, store: Store, letters: Iterable[_Letter], at_once: int
    ) -> Iterator[tuple[_Letter, bool]]:
        """Each with whether it matches. Its outcome is read, some at once, only where a reason is
        wanted and all else matches; the first time so many, then twice as many each time.
        """
        reason, every = self.reason.casefold(), iter(letters)
        endpoint = None if self.endpoint is None else endpoint_of(self.endpoint)
        while some := list(islice(every, at_once)):
            chosen = [letter for letter in some if self._names(letter, endpoint)]
            if reason:
                met = store.deliveries.outcomes([(one.lane, one.name) for one in chosen])
                pairs = zip(chosen, met, strict=True)
                chosen = [one for one, outcome in pairs if reason in outcome.casefold()]
            matching = set(chosen)
            yield from ((letter, letter in matching) for letter in some)
            at_once = min(2 * at_once, PAGE)

    def _names(self, letter: _Letter, endpoint: str | None) -> bool:
        """True if its name matches; `endpoint`: the wanted one, None: any."""
        wanted = self.deliveries
        named = not wanted or letter.name in wanted or task_of(letter.name) in wanted
        return named and endpoint in (None, endpoint_in(letter.name))

    def _lanes(self, store: Store) -> list[Lane]:
        return [*filter(self.lanes, [*store.tasks.listed_lanes(), OPERATIONS])]

    def _all(self, store: Store, before: float, at_once: int) -> Iterator[_Letter]:
        pages = [_dead(store, lane, before, at_once) for lane in self._lanes(store)]
        return heapq.merge(*pages, key=lambda letter: -letter.at)


class _Letter(NamedTuple):
    """A dead letter of which no more is read than where it lies and since when."""

    lane: Lane
    name: str
    at: float


def _names(store: Store, lane: Lane, at_most: int, offset: int, before: float) -> list[_Letter]:
    found = store.closed.dead_names(lane, at_most, offset, before)
    return [_Letter(lane, name, at) for name, at in found]


def _dead(store: Store, lane: Lane, before: float, at_once: int) -> Iterator[_Letter]:
    """All dead letters of a lane, page by page, each once: a new one shifts the next page."""
    offset, seen = 0, set[str]()
    while page := _names(store, lane, at_once, offset, before):
        yield from (letter for letter in page if letter.name not in seen)
        seen.update(letter.name for letter in page)
        offset, at_once = offset + len(page), min(2 * at_once, PAGE)


def _loaded(store: Store, letters: Iterable[_Letter]) -> list[Delivery]:
    """Read dead letters, some at once of each lane; in their order."""
    letters, found = list(letters), dict[tuple[Lane, str], Delivery]()
    by_lane = defaultdict[Lane, list[_Letter]](list)
    for letter in letters:
        by_lane[letter.lane].append(letter)
    for lane, all_of_lane in by_lane.items():
        for start in range(0, len(all_of_lane), PAGE):
            some = all_of_lane[start : start + PAGE]
            read = store.deliveries.load(lane, [one.name for one in some], [one.at for one in some])
            found |= {(lane, one.name): one for one in read}
    return [found[letter.lane, letter.name] for letter in letters]


def fields(delivery: Delivery) -> dict[str, Any]:
    """A dead letter as plain values, without its log."""
    said = asdict(delivery) | {"lane": str(delivery.lane), "endpoint": delivery.endpoint}
    del said["log"]
    return said
