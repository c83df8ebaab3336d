"""Pay what is pending: one delivery worker for each worker process, which is on at most one round
at a time.

Whoever finds it on its round pokes it, so a fresh delivery costs no thread of its own. A round that
has lasted long enough takes nothing new and ends when its calls have ended; the next may begin
meanwhile.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import httpx

from cavendish.errors import StoreUnavailable
from cavendish.store import Store
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.webhooks.delivery_loop import Config, DeliveryLoop
from cavendish_worker.webhooks.endpoint_cache import EndpointCache
from cavendish_worker.webhooks.write_back import Delivered


class DeliveryWorker:
    """Delivers for one worker process. Safe to share between threads."""

    def __init__(
        self,
        store: Store,
        transport: httpx.AsyncBaseTransport,
        loop: LoopThread,
        endpoint_cache: EndpointCache,
        config: Config,
    ) -> None:
        self._shutdown_deadline, self._loop = ShutdownDeadline(), loop
        self._parts = (store, transport, loop, endpoint_cache, config, self._shutdown_deadline)
        self._lock = threading.Lock()
        self._under_way: DeliveryLoop | None = None
        self._stopping = False

    def deliver(self, succeeded: Callable[[], None]) -> Delivered | None:
        """Go on a round; None if one is under way, which then polls again. Raises BookUnavailable.

        `succeeded` is called as soon as another round should begin, while this one waits for the
        last of its calls.
        """
        with self._lock:
            if self._under_way is not None:
                self._under_way.poke()
                return None
            mine = self._under_way = DeliveryLoop(*self._parts)
            if self._stopping:
                mine.stop()
        try:
            did = mine.go(lambda: self._leave(mine))
        except StoreUnavailable:
            mine.come_home()
            raise
        finally:
            self._leave(mine, whatever=True)
        if did.more:
            succeeded()
        return mine.come_home()

    def _leave(self, mine: DeliveryLoop, *, whatever: bool = False) -> bool:
        """Let another round begin; false if somebody has poked this one since it last looked."""
        with self._lock:
            if mine.poked and not whatever:
                return False
            if self._under_way is mine:
                self._under_way = None
            return True

    def stop(self, within: float = math.inf) -> None:
        """Take nothing new from now on, and wait at most so many seconds for answers.

        This process is to end.
        """
        with self._lock:
            self._stopping = True
            if self._under_way is not None:
                self._under_way.stop()
        self._loop.call(lambda: self._shutdown_deadline.leave(within))
