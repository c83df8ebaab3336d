"""Poll the store again and again; rates come from the difference of two polls."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.telemetry.snapshot import Memory, gather
from cavendish_worker.wording.rates import Rates

#: Least and most seconds between two polls.
LEAST, MOST = 0.1, 3600.0


@dataclass
class Polls:
    """The polls of one command. `every`: seconds between two of them."""

    store: Store
    settings: Settings
    every: float
    _memory: Memory = field(default_factory=Memory)
    _rates: Rates = field(default_factory=Rates)

    def gather(self) -> dict[str, Any]:
        """What `gather` returns now. Raises StoreUnavailable."""
        return gather(self.store, self.settings, self._memory)

    def poll(self) -> dict[str, Any]:
        """What `gather` returns now, with `rates`, `history` and the seconds that it `took`.

        Each lane has `rates`, too. Raises StoreUnavailable.
        """
        began, found = time.monotonic(), self.gather()
        rates = self._rates.see(found)
        for lane in found["lanes"]:
            lane["rates"] = rates[lane["lane"]]
        histories = self._rates.history.items()
        history = {name: [round(rate, 2) for rate in values] for name, values in histories}
        took = round(time.monotonic() - began, 4)
        return found | {"rates": rates[""], "history": history, "took": took}
