"""The keys of the HTTP service, as this process has read them, and when each was used."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from cavendish.errors import StoreUnavailable
from cavendish.policy.access import ApiKey, is_text_of, prefix_of
from cavendish.store.api_keys import ApiKeys

#: Seconds for which the keys count as they were read: a revoked one opens nothing any more then.
FRESH_FOR = 2.0
#: Seconds between two notes that keys were used.
NOTE_EVERY = 60.0
#: In place of a key that is not known: the comparison then takes as long.
_NOBODY = ApiKey("nobody", "", "0" * 64, ())


class KeyRing:
    """Finds keys by their texts. Use it in one event loop."""

    def __init__(self, stored: ApiKeys) -> None:
        self._stored, self._lock = stored, asyncio.Lock()
        self._by_prefix: dict[str, ApiKey] = {}
        self._read_at = self._noted_at = -NOTE_EVERY
        self._used = set[str]()

    async def find(self, text: str) -> ApiKey | None:
        """The key with this text, unless it is unknown, revoked or expired.

        Raises StoreUnavailable.
        """
        await self._keep_fresh()
        key = self._by_prefix.get(prefix_of(text) or "", _NOBODY)
        if not is_text_of(key, text) or key.expired(time.time()):
            return None
        self._used.add(key.name)
        return key

    async def counts(self, key: ApiKey) -> bool:
        """True while a key that was found is still there, unchanged and not expired.

        Raises StoreUnavailable.
        """
        await self._keep_fresh()
        return self._by_prefix.get(key.prefix) == key and not key.expired(time.time())

    async def _keep_fresh(self) -> None:
        if time.monotonic() - self._read_at > FRESH_FOR:
            async with self._lock:
                if time.monotonic() - self._read_at > FRESH_FOR:
                    await asyncio.to_thread(self._refresh)

    def _refresh(self) -> None:
        keys = {key.prefix: key for key in self._stored.all()}
        if self._used and time.monotonic() - self._noted_at > NOTE_EVERY:
            self._noted_at, used = time.monotonic(), self._used & {k.name for k in keys.values()}
            self._used.clear()
            with suppress(StoreUnavailable):  # it is full, or has no right: a note is worth no 503
                if used:
                    self._stored.note_used(used, time.time())
        self._by_prefix, self._read_at = keys, time.monotonic()
