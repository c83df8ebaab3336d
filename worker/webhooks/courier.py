"""Pay what is owed: one courier for each worker process, which is on at most one round at a time.

Whoever finds it on its round pokes it, so a fresh debt costs no thread of its own. A round that has lasted long enough
takes nothing new and ends when its calls have ended; the next may begin meanwhile.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import httpx

from scheduler.errors import BookUnavailable
from scheduler.store import Book
from worker.curfew import Curfew
from worker.loop import LoopThread
from worker.webhooks.directory import Directory
from worker.webhooks.round import Knobs, Round
from worker.webhooks.writeback import Delivered


class Courier:
    """Delivers for one worker process. Safe to share between threads."""

    def __init__(
        self, book: Book, transport: httpx.AsyncBaseTransport, loop: LoopThread, directory: Directory, knobs: Knobs
    ) -> None:
        self._curfew, self._loop = Curfew(), loop
        self._parts = (book, transport, loop, directory, knobs, self._curfew)
        self._lock = threading.Lock()
        self._under_way: Round | None = None
        self._stopping = False

    def deliver(self, succeeded: Callable[[], None]) -> Delivered | None:
        """Go on a round; None if one is under way, which then looks again. Raises BookUnavailable.

        `succeeded` is called as soon as another round should begin, while this one waits for the last of its calls.
        """
        with self._lock:
            if self._under_way is not None:
                self._under_way.poke()
                return None
            mine = self._under_way = Round(*self._parts)
            if self._stopping:
                mine.stop()
        try:
            did = mine.go(lambda: self._leave(mine))
        except BookUnavailable:
            mine.come_home()
            raise
        finally:
            self._leave(mine, whatever=True)
        if did.more:
            succeeded()
        return mine.come_home()

    def _leave(self, mine: Round, *, whatever: bool = False) -> bool:
        """Let another round begin; false if somebody has poked this one since it last looked."""
        with self._lock:
            if mine.poked and not whatever:
                return False
            if self._under_way is mine:
                self._under_way = None
            return True

    def stop(self, within: float = math.inf) -> None:
        """Take nothing new from now on, and wait at most so many seconds for answers: this process is to end."""
        with self._lock:
            self._stopping = True
            if self._under_way is not None:
                self._under_way.stop()
        self._loop.call(lambda: self._curfew.leave(within))
