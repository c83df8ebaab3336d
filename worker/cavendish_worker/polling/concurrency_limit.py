"""How many threads of a worker process each kind of work may hold, so that a slow API starves
nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Threads that are always left for the other Celery tasks: dispatch, submit, expire, reconcile run,
#: and two rounds of deliveries.
OTHERS = 5


class ConcurrencyLimit:
    """Seats for one kind of work.

    Who finds none does not wait: what it came for lies in the store, and is found again.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._free = threading.BoundedSemaphore(number)

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """True inside if a seat was free; it is given back at the end."""
        got = self._free.acquire(blocking=False)
        try:
            yield got
        finally:
            if got:
                self._free.release()
