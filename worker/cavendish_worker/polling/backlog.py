"""How many batches wait that no worker has begun with, counted no more often than it matters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

#: Seconds for which a count is good, as long as it leaves room for what is wanted, or half of all.
_COUNTED_FOR = 0.25


@dataclass(slots=True)
class Backlog:
    """Counts with `count`, which asks the broker; what this process sent since counts as waiting.

    So it takes the backlog for shorter than it is only by what other processes sent meanwhile.
    """

    count: Callable[[], int] = lambda: 0
    _waiting: int = 0
    _counted_at: float = -math.inf

    def room(self, wanted: int, most: int, now: float) -> int:
        """How many of `wanted` batches may be sent, if `most` may wait."""
        enough = most - self._waiting >= min(wanted, (most + 1) // 2)
        if now - self._counted_at >= _COUNTED_FOR or not enough:
            self._waiting, self._counted_at = self.count(), now
        return max(min(wanted, most - self._waiting), 0)

    def sent(self) -> None:
        """One more waits."""
        self._waiting += 1
