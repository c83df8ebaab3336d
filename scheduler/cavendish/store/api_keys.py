"""The keys of the HTTP service in the store: made, listed, revoked, and when each was last used."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from cavendish.policy.access import ApiKey, digest_of, prefix_of
from cavendish.store.connection import Connection
from cavendish.store.keys import API_KEYS, API_KEYS_USED
from cavendish.stored_json import compact, read


@dataclass(frozen=True, slots=True)
class _Use:
    at: float


class ApiKeys:
    """Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def add(self, key: ApiKey) -> str | None:
        """Store a key with a new secret, and return its text; None if its name is taken."""
        text = f"cav_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
        made = replace(key, prefix=prefix_of(text) or "", digest=digest_of(text))
        batch = self._redis.batch()
        batch.command(API_KEYS, "HSETNX", API_KEYS, made.name, compact(made))
        return text if batch.execute()[0] else None

    def all(self) -> list[ApiKey]:
        """All keys, by name. One that cannot be read opens nothing, and is left out."""
        with self._redis.errors():
            rows: Any = self._redis.redis.hgetall(API_KEYS)
        found = (read(ApiKey, row, name=name) for name, row in sorted(rows.items()))
        return [key for key in found if key is not None]

    def revoke(self, name: str) -> bool:
        """Delete a key; false if there is none of this name."""
        with self._redis.errors():
            self._redis.redis.hdel(API_KEYS_USED, name)
            return bool(self._redis.redis.hdel(API_KEYS, name))

    def note_used(self, names: Collection[str], now: float) -> None:
        """Note that keys were used about now."""
        with self._redis.errors():
            self._redis.redis.hset(API_KEYS_USED, mapping=dict.fromkeys(names, compact(_Use(now))))

    def last_used(self) -> dict[str, float]:
        """When each key was last used, to about a minute; without those that never were."""
        with self._redis.errors():
            rows: Any = self._redis.redis.hgetall(API_KEYS_USED)
        found = ((name, read(_Use, row)) for name, row in rows.items())
        return {name: use.at for name, use in found if use is not None}
