"""What the pages of one process work with: the store, threads, and what they remember of it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from cavendish.environment.local_paths import store_url, with_kept
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.statistics import Statistics
from cavendish_worker.console.bulk_runner import BulkRunner
from cavendish_worker.console.counting import Counts
from cavendish_worker.console.endpoint_rows import ranked
from cavendish_worker.console.off_loop import OffLoop
from cavendish_worker.telemetry.snapshot import Memory, read, said
from cavendish_worker.wording.rates import Rates

#: Seconds for which all who look at a page get the same numbers.
FRESH_FOR = 2.0
#: URLs of endpoints without a name that are remembered, at most.
URLS = 20_000


@dataclass(frozen=True, slots=True)
class Polled:
    """All numbers: as `top` has them (`found`), with the `rates` of all lanes and of each, but
    without the endpoints; as the store has them; and the names of all endpoints as they are listed.
    """

    found: dict[str, Any]
    statistics: Statistics
    endpoints: list[str]


class ConsoleParts:
    """Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = with_kept(settings)
        self.store = Store(store_url(self.settings), self.settings.shards)
        self.off_loop = OffLoop()
        self.runner = BulkRunner(self.store, self.settings)
        self.counts = Counts()
        self._memory, self._rates, self._lock = Memory(), Rates(), threading.Lock()
        self._polled_at = 0.0
        self._known: Polled | None = None

    @property
    def urls(self) -> dict[str, str]:
        """The URLs of endpoints without a name, as far as they were looked for."""
        return self._memory.urls

    def poll(self) -> Polled:
        """All numbers as they are now, or were a moment ago. Raises StoreUnavailable."""
        with self._lock:
            if self._known is None or time.monotonic() - self._polled_at > FRESH_FOR:
                self._known = self._poll()
                self._polled_at = time.monotonic()
            return self._known

    def poll_anew(self) -> None:
        """Show what somebody has just changed."""
        with self._lock:
            self._known = None

    def _poll(self) -> Polled:
        if len(self.urls) > URLS:
            self.urls.clear()
        statistics = read(self.store, self._memory)
        found = said(self.store, self.settings, self._memory, statistics, ())
        rates = self._rates.see(found)
        for lane in found["lanes"]:
            lane["rates"] = rates[lane["lane"]]
        return Polled(found | {"rates": rates[""]}, statistics, ranked(statistics, self.urls))
