"""How many attempts at each endpoint were taken and failed lately, in a few numbers of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cavendish.policy.attempt_history import KEPT, PERIOD, AttemptHistory, history, period_of
from cavendish.store import keys
from cavendish.store.connection import Connection


class AttemptCounts:
    """Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def add(self, counts: Mapping[str, tuple[int, int]], now: float) -> None:
        """Count attempts by endpoint: how many were taken, and how many failed."""
        period = period_of(now)
        calls = [
            ([keys.attempts(endpoint)], [period, period - KEPT, (KEPT + 1) * PERIOD, *pair])
            for endpoint, pair in counts.items()
        ]
        if calls:
            self._redis.scripts("count_attempts", calls)

    def of(self, endpoints: Iterable[str], now: float) -> list[AttemptHistory]:
        """The last day of each endpoint, in one round trip."""
        pipe = self._redis.pipeline()
        for endpoint in endpoints:
            pipe.hgetall(keys.attempts(endpoint))
        return [history(fields, now) for fields in self._redis.answers(pipe)]
