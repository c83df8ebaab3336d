"""Calls of the API by the gateway itself take their turns in the rate limit of the fleet."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from cavendish.errors import StoreUnavailable
from cavendish.policy import rate_limit
from cavendish.store import Store

#: Seconds after which a call that may not be made yet is given up.
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class CallTurns:
    """`ceiling`: the calls per second that the settings allow (0: any number)."""

    store: Store
    ceiling: float

    async def take(self, account: str) -> bool:
        """Wait for the turn of a call; false if it does not come soon, or an operator pauses it."""
        left = _PATIENCE
        while (wait := await asyncio.to_thread(self._take, account)) is not None:
            if wait <= 0:
                return True
            left -= wait
            if left < 0:
                return False
            await asyncio.sleep(wait)
        return False

    def _take(self, account: str) -> float | None:
        """Seconds until the turn, 0: it is now; None: there is none."""
        try:
            now, controls = self.store.fleet.now(), self.store.controls.known()
            if controls.account_pause(account, now):
                return None
            ceiling = controls.ceiling_of(account, self.ceiling)
            step = partial(rate_limit.acquire, now=now, ceiling=ceiling)
            return self.store.shared_state.change_rate_limit(account, step)
        except StoreUnavailable:
            return None
