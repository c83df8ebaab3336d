"""Counts for one delivery loop which attempts were taken, and writes the numbers once a second.

A process that dies takes a second of them with it. They are shown to operators; nothing is decided
by them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

from cavendish.errors import StoreUnavailable
from cavendish.store import Store
from cavendish_worker.webhooks.attempt import FinishedAttempt
from cavendish_worker.webhooks.attempt_result import ResultKind

#: Seconds between two writes.
EVERY = 1.0
_FAILED = (ResultKind.RETRY, ResultKind.REJECTED)


class AttemptCounter:
    """Belongs to the thread of its delivery loop."""

    def __init__(self, store: Store) -> None:
        self._store, self._written_at = store, float("-inf")
        self._delivered, self._failed = Counter[str](), Counter[str]()

    def add(self, attempts: Iterable[FinishedAttempt], now: float) -> None:
        """Count what receivers took or failed to take; faults of ours say nothing about them."""
        for attempt in attempts:
            if attempt.result.kind is ResultKind.DELIVERED:
                self._delivered[attempt.delivery.endpoint] += 1
            elif attempt.result.kind in _FAILED:
                self._failed[attempt.delivery.endpoint] += 1
        if now - self._written_at >= EVERY:
            self.write(now)

    def write(self, now: float) -> None:
        """Write what was counted since the last write; with the store away, the next write does."""
        self._written_at = now
        delivered, failed = self._delivered, self._failed
        with suppress(StoreUnavailable):
            both = {name: (delivered[name], failed[name]) for name in delivered | failed}
            self._store.attempt_counts.add(both, now)
            self._delivered, self._failed = Counter(), Counter()
