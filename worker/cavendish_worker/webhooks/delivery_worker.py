"""Delivers pending webhooks: one delivery worker per process, which runs one delivery loop at a
time.

A call of `deliver` during a loop makes that loop look for new deliveries, so a fresh delivery needs
no thread of its own. A loop that has run long enough claims nothing new and ends when its calls
have ended; the next loop may begin meanwhile.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from cavendish.errors import StoreUnavailable
from cavendish.model import Lane
from cavendish.store import Store
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.webhooks.delivery_loop import DeliveryConfig, DeliveryLoop
from cavendish_worker.webhooks.endpoint_cache import EndpointCache
from cavendish_worker.webhooks.write_back import Delivered

#: Seconds between two messages of a busy loop to the other workers: they go on once they were told.
CALL_EVERY = 1.0


class DeliveryWorker:
    """Delivers for one worker process. Safe to share between threads."""

    def __init__(
        self,
        store: Store,
        transport: PooledTransport,
        loop: LoopThread,
        endpoint_cache: EndpointCache,
        config: DeliveryConfig,
    ) -> None:
        self._shutdown_deadline, self._loop = ShutdownDeadline(), loop
        self._parts = (store, transport, loop, endpoint_cache, config, self._shutdown_deadline)
        self._lock = threading.Lock()
        self._running: DeliveryLoop | None = None
        self._stopping = False
        self._called_at = -math.inf  # when another worker was last called, since this one was busy

    def poke(self, lane: Lane) -> bool:
        """Let the loop that runs here look for new deliveries in a lane.

        False if a message should tell the other workers of them: no loop runs here, or it is busy,
        and they were not told for a while.
        """
        with self._lock:
            if self._running is None or self._stopping:
                return False
            if self._running.busy and time.monotonic() - self._called_at >= CALL_EVERY:
                self._called_at = time.monotonic()
                return False
            self._running.poke(lane)
            return True

    def deliver(self, go_on: Callable[[], None]) -> Delivered | None:
        """Run a delivery loop; None if one runs already, which then looks for new deliveries.

        `go_on` is called when another loop should begin, while this one waits for its last calls.
        Raises StoreUnavailable.
        """
        with self._lock:
            if self._running is not None:
                self._running.poke()
                return None
            mine = self._running = DeliveryLoop(*self._parts)
            if self._stopping:
                mine.stop()
        try:
            did = mine.run(lambda: self._leave(mine))
        except StoreUnavailable:
            mine.finish()
            raise
        finally:
            self._leave(mine, always=True)
        if did.more:
            go_on()
        return mine.finish()

    def _leave(self, mine: DeliveryLoop, *, always: bool = False) -> bool:
        """Let another loop begin; false if this one was poked since it last looked."""
        with self._lock:
            if mine.poked and not always:
                return False
            if self._running is mine:
                self._running = None
            return True

    def stop(self, within: float = math.inf) -> None:
        """This process shuts down: claim nothing new, wait at most `within` seconds for answers."""
        with self._lock:
            self._stopping = True
            if self._running is not None:
                self._running.stop()
        self._loop.call(lambda: self._shutdown_deadline.set(within))
