"""Quarantined messages of the broker: each was in hand at several deaths of a worker, or no worker
can read it.

They are in the broker's Redis, and no worker gets them. A broker that is no Redis has none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cavendish.store import keys
from cavendish.store.connection import Connection

#: The header that counts at how many deaths of a worker its message was in hand, and the count from
#: which on the message is quarantined.
DEATHS, MOST_DEATHS = "cavendish-deaths", 3
#: How many messages of either kind are kept, and how many bytes of them; the oldest are dropped
#: first, but never the newest one.
KEPT, KEPT_BYTES = 100, 64 * 2**20


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One message.

    `at`: seconds since the epoch; `size`: bytes; `message`: as the broker held it, empty in a list.
    """

    id: str
    at: float
    queue: str
    reason: str
    deaths: int
    size: int
    message: str = ""


class Quarantine:
    """The quarantined messages of one broker. Every method raises StoreUnavailable."""

    def __init__(self, url: str) -> None:
        """`url`: the broker's Redis, in redis-py's spelling or Celery's. Raises SettingsError."""
        self._redis = Connection(url)

    def list(self) -> list[Quarantined]:
        """All of them, the newest first, without their messages."""
        with self._redis.errors():
            rows: dict[str, str] = self._redis.redis.hgetall(keys.QUARANTINED)  # type: ignore[assignment]
        found = [_entry(entry_id, text, whole=False) for entry_id, text in rows.items()]
        return sorted(found, key=lambda one: (-one.at, one.id))

    def show(self, entry_id: str) -> Quarantined | None:
        """One of them with its message; None if it is not there."""
        with self._redis.errors():
            text = self._redis.redis.hget(keys.QUARANTINED, entry_id)
        return _entry(entry_id, str(text), whole=True) if text else None

    def drop(self, entry_id: str) -> bool:
        """Forget one of them. False if it is not there."""
        with self._redis.errors():
            gone = self._redis.redis.hdel(keys.QUARANTINED, entry_id)
            for place in (keys.QUARANTINE, keys.UNREADABLE):
                self._redis.redis.lrem(place, 1, entry_id)
        return bool(gone)

    def retry(self, entry_id: str) -> bool:
        """Put one of them back into its queue, with no deaths counted. False if it is not there."""
        entry = self.show(entry_id)
        if entry is None:
            return False
        message = _without_deaths(entry.message).encode("utf-8", "surrogateescape")
        names = [keys.QUARANTINE, keys.UNREADABLE, keys.QUARANTINED, entry.queue]
        return bool(self._redis.script("requeue", names, [entry_id, message]))

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()


def entry_of(now: float, queue: str, reason: str, deaths: int, message: bytes) -> str:
    """An entry as it is kept: JSON."""
    return json.dumps(
        {
            "at": now,
            "queue": queue,
            "reason": reason,
            "deaths": deaths,
            "size": len(message),
            "message": message.decode("utf-8", "surrogateescape"),
        }
    )


def _entry(entry_id: str, text: str, *, whole: bool) -> Quarantined:
    said: dict[str, Any] = json.loads(text)
    message = said.pop("message")
    return Quarantined(entry_id, **said, message=message if whole else "")


def _without_deaths(message: str) -> str:
    """A message without the count of its deaths; one that cannot be read stays as it is."""
    try:
        said = json.loads(message)
        del said["headers"][DEATHS]
    except (ValueError, LookupError, TypeError, RecursionError):
        return message
    return json.dumps(said)
