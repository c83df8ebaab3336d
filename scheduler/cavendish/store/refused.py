"""Refused submits in the store: messages of producers in which something was wrong.

Nobody waits for the answer to a message, so what was refused is kept where operators find it.
It is capped: the oldest of the producer that has most are dropped, so that nobody fills the place
of the others.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from cavendish.store.connection import Connection
from cavendish.store.keys import REFUSED, REFUSED_LOST, REFUSED_SENT, nothing
from cavendish.stored_json import compact, read

#: How many are kept, and how many bytes of what was sent: of one, and of all.
KEPT, LARGEST, ALL = 200, 2**20, 16 * 2**20


@dataclass(frozen=True, slots=True)
class RefusedSubmit:
    """One refused submit.

    It was refused `at` (seconds since the epoch), because of its `kind` (see SubmissionError), with
    a `reason`. `sender` and `task_id` are what Celery says of its message ("" if it says nothing),
    `producer` and `service` what it says itself. It has `ids` ids and `size` bytes; if it is not
    `whole`, it was too large to be kept as it came. `sent`: what was sent, empty in a list.
    """

    at: float
    kind: str
    reason: str
    sender: str = ""
    task_id: str = ""
    producer: str = ""
    service: str = ""
    ids: int = 0
    size: int = 0
    whole: bool = True
    id: str = ""
    sent: str = ""


class Refused:
    """The refused submits. Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def keep(self, refused: RefusedSubmit) -> str:
        """Keep one, and drop old ones if there are too many; returns its id."""
        entry_id = uuid.uuid4().hex[:12]
        known = asdict(refused)
        del known["id"], known["sent"]
        keys = [REFUSED, nothing(REFUSED), REFUSED_SENT, REFUSED_LOST]
        self._redis.script("refuse", keys, [entry_id, compact(known), refused.sent, KEPT, ALL])
        return entry_id

    def count(self) -> int:
        """How many there are."""
        with self._redis.errors():
            return int(self._redis.redis.hlen(REFUSED))

    def lost(self) -> int:
        """How many were dropped since the store began, because only so many are kept."""
        with self._redis.errors():
            return int(self._redis.redis.get(REFUSED_LOST) or 0)

    def list(self) -> list[RefusedSubmit]:
        """All of them, the newest first, without what was sent."""
        with self._redis.errors():
            rows: dict[str, str] = self._redis.redis.hgetall(REFUSED)  # type: ignore[assignment]
        found = [_read(entry_id, text) for entry_id, text in rows.items()]
        return sorted(found, key=lambda one: (-one.at, one.id))

    def show(self, entry_id: str) -> RefusedSubmit | None:
        """One of them with what was sent; None if it is not there."""
        with self._redis.errors():
            known = self._redis.redis.hget(REFUSED, entry_id)
            sent = self._redis.redis.hget(REFUSED_SENT, entry_id)
        return None if known is None else _read(entry_id, str(known), str(sent or ""))

    def drop(self, ids: Iterable[str]) -> int:
        """Forget some of them; how many there were."""
        wanted = list(ids)
        if not wanted:
            return 0
        with self._redis.errors():
            self._redis.redis.hdel(REFUSED_SENT, *wanted)
            return int(self._redis.redis.hdel(REFUSED, *wanted))

    def forget(self, before: float) -> int:
        """Forget those that were refused before a time; how many there were."""
        return self.drop(one.id for one in self.list() if one.at < before)


def _read(entry_id: str, text: str, sent: str = "") -> RefusedSubmit:
    unreadable = RefusedSubmit(0.0, "unreadable", "its entry cannot be read", id=entry_id)
    return read(RefusedSubmit, text, id=entry_id, sent=sent) or unreadable
