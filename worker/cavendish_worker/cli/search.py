"""Find tracked ids in the store: by a filter, page by page."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from cavendish.model import Lane, State, TrackedTask
from cavendish.store import Store
from cavendish.store.listing import Listed
from cavendish.webhook_endpoint import endpoint_in

#: Records that are read at once, and at most by one search.
CHUNK, MOST = 200, 100_000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which ids are wanted: those that match every field; None matches any.

    `since` and `until` (Unix time) compare with the end of a task, or with its submit while it is
    pending.
    """

    states: frozenset[str]
    producer: str | None
    model: str | None
    endpoint: str | None
    since: float
    until: float

    def matches(self, task: TrackedTask) -> bool:
        at = (task.settled_at if task.state.terminal else task.submitted_at) or 0.0
        return (
            task.state.value in self.states
            and self.producer in (None, task.producer)
            and self.model in (None, task.model)
            and self.since <= at <= self.until
            and (self.endpoint is None or self.endpoint in map(endpoint_in, task.webhooks))
        )


@dataclass
class Search:
    """One search; it stops after MOST records. `read`: how many were read so far."""

    store: Store
    wanted: Filter
    read: int = 0
    _found: set[tuple[str, str, str]] = field(default_factory=set)

    def all(self, lanes: Sequence[Lane]) -> Iterator[TrackedTask]:
        """The matching tasks, each once: a pending one may end before the ended ones are read."""
        for task in chain(self.pending(lanes), self.ended(lanes)):
            place = (task.account, task.service, task.id)
            if place not in self._found:
                self._found.add(place)
                yield task

    def pending(self, lanes: Iterable[Lane]) -> Iterator[TrackedTask]:
        """The matching pending tasks; the one that is polled next comes first."""
        if State.PENDING not in self.wanted.states:
            return
        pages = [
            self._loaded(lane, self.store.listing.pending(lane, self.wanted.producer))
            for lane in lanes
        ]
        for _, task in heapq.merge(*pages, key=lambda pair: pair[0].at):
            if not task.state.terminal and self.wanted.matches(task):
                yield task

    def ended(self, lanes: Iterable[Lane]) -> Iterator[TrackedTask]:
        """The matching ended tasks, the newest end first; of several ends of an id the last one."""
        if not self.wanted.states - {State.PENDING}:
            return
        pages = [
            self._loaded(lane, self.store.listing.ended(lane, self.wanted.until)) for lane in lanes
        ]
        for listed, task in heapq.merge(*pages, key=lambda pair: -pair[0].at):
            if listed.at < self.wanted.since:
                return
            if task.settled_at == listed.at and self.wanted.matches(task):
                yield task

    def _loaded(self, lane: Lane, listed: Iterator[Listed]) -> Iterator[tuple[Listed, TrackedTask]]:
        """Load the records, chunk by chunk; an id whose record is gone is left out."""
        size = 20  # grows, because most searches want a few ids
        while self.read < MOST and (some := [*islice(listed, size)]):
            size = min(size * 2, CHUNK)
            self.read += len(some)
            tasks = self.store.tasks.load(lane, [one.id for one in some]).tasks
            yield from ((one, tasks[one.id]) for one in some if one.id in tasks)
