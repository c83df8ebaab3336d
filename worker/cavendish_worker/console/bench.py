"""What the pages of one process work with: the store, threads, and what they remember of it."""

from __future__ import annotations

import threading
import time
from typing import Any

from cavendish.local_paths import store_url, with_kept
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.statistics import Statistics
from cavendish_worker.cli.top.rates import Rates
from cavendish_worker.console.bulk_runner import BulkRunner
from cavendish_worker.console.off_loop import OffLoop
from cavendish_worker.telemetry.snapshot import Memory, read, said

#: Seconds for which all who look at a page get the same numbers.
FRESH_FOR = 2.0
#: URLs of endpoints without a name that are remembered, at most.
URLS = 20_000


class Bench:
    """Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = with_kept(settings)
        self.store = Store(store_url(self.settings), self.settings.shards)
        self.off_loop = OffLoop()
        self.runner = BulkRunner(self.store, self.settings)
        self._memory, self._rates, self._lock = Memory(), Rates(), threading.Lock()
        self._polled_at = 0.0
        self._known: tuple[dict[str, Any], Statistics] | None = None

    @property
    def urls(self) -> dict[str, str]:
        """The URLs of endpoints without a name, as far as they are known."""
        return self._memory.urls

    def poll(self) -> tuple[dict[str, Any], Statistics]:
        """All numbers, as `top` has them, with `rates` of all lanes and of each.

        Raises StoreUnavailable.
        """
        with self._lock:
            if self._known is None or time.monotonic() - self._polled_at > FRESH_FOR:
                self._known = self._poll()
                self._polled_at = time.monotonic()
            return self._known

    def poll_anew(self) -> None:
        """Show what somebody has just changed."""
        self._known = None

    def _poll(self) -> tuple[dict[str, Any], Statistics]:
        if len(self._memory.urls) > URLS:
            self._memory.urls.clear()
        statistics = read(self.store, self._memory)
        found = said(self.store, self.settings, self._memory, statistics)
        rates = self._rates.see(found)
        for lane in found["lanes"]:
            lane["rates"] = rates[lane["lane"]]
        return found | {"rates": rates[""]}, statistics
