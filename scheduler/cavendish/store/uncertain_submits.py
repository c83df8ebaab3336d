"""Paid submits of uncertain fate: the API may have made a task of each, whose id was lost.

They are kept for operators, who look for the tasks at the API: the latest, and for a week.
"""

from __future__ import annotations

from dataclasses import dataclass

from cavendish.store.connection import Connection
from cavendish.store.keys import UNCERTAIN
from cavendish.stored_json import compact, read

#: How many are kept, and for how many seconds.
KEPT, KEPT_FOR = 1000, 7 * 86400.0


@dataclass(frozen=True, slots=True)
class UncertainSubmit:
    """A submit `at` a time (seconds since the epoch), to a `service` with the token of an account.

    `producer`: whose it was; `said`: what came of the call, in words.
    """

    at: float
    account: str
    service: str
    producer: str
    said: str


class UncertainSubmits:
    """Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def note(self, submit: UncertainSubmit) -> None:
        """Keep one, and drop the oldest if there are too many."""
        self._redis.write_when_full(UNCERTAIN, "ZADD", submit.at, compact(submit))
        self._redis.write_when_full(UNCERTAIN, "ZREMRANGEBYRANK", 0, -KEPT - 1)

    def all(self, now: float) -> list[UncertainSubmit]:
        """Those of the last week, the oldest first; what cannot be read is left out."""
        with self._redis.errors():
            rows = self._redis.redis.zrangebyscore(UNCERTAIN, now - KEPT_FOR, "+inf")
        found = (read(UncertainSubmit, row) for row in rows)
        return [submit for submit in found if submit is not None]

    def count(self, now: float) -> int:
        """How many there are of the last week."""
        with self._redis.errors():
            return int(self._redis.redis.zcount(UNCERTAIN, now - KEPT_FOR, "+inf"))

    def forget(self) -> None:
        """Drop all of them: an operator has seen to them."""
        with self._redis.errors():
            self._redis.redis.delete(UNCERTAIN)
