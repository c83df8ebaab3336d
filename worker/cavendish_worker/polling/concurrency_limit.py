"""Limits how many threads of a worker process one kind of work may use, so that a slow API does not
starve the other work.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Threads that are always left for the other Celery tasks: dispatch, submit, expire, reconcile,
#: and two delivery loops.
OTHERS = 5


class ConcurrencyLimit:
    """A number of threads that one kind of work may use at once.

    Work beyond it does not wait: its ids are in the store, and will be claimed again.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._free = threading.BoundedSemaphore(number)

    @contextmanager
    def acquired(self) -> Iterator[bool]:
        """Inside: true if the limit was not reached; the thread is given back at the end."""
        got = self._free.acquire(blocking=False)
        try:
            yield got
        finally:
            if got:
                self._free.release()
