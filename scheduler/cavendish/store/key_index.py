"""Finds ids by the key that their producer gave them. `add` writes the index of a lane.

An entry outlives the record of its id, since Redis deletes that unseen: it is dropped when somebody
finds it, and by the reconcile run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cavendish.model import Lane
from cavendish.store.connection import Connection
from cavendish.store.keys import LaneKeys

#: Entries that are looked at in one run.
PAGE = 1000


class KeyIndex:
    """The ids of a lane by their keys. Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def having(self, lanes: Iterable[Lane], key: str) -> list[Lane]:
        """The lanes that have entries with this key, in one round trip."""
        lanes, pipe = list(lanes), self._redis.pipeline()
        for lane in lanes:
            pipe.zrangebylex(LaneKeys(lane).own_keys, f"[{key}\0", f"({key}\1", 0, 1)
        answers = self._redis.answers(pipe)
        return [
            one for one, row in zip(lanes, answers, strict=True) if isinstance(row, list) and row
        ]

    def find(self, lane: Lane, key: str) -> list[str]:
        """The ids of a lane that have this key, in order."""
        found, start = list[str](), f"[{key}\0"
        while page := self._page(lane, start, f"({key}\1"):
            found += [entry.partition("\0")[2] for entry in self._alive(lane, page)]
            start = f"({page[-1]}"
        return found

    def reconcile(self, lane: Lane) -> bool:
        """Look at the next PAGE entries, and drop those whose records are gone.

        Returns false after the last page; the next run begins anew.
        """
        keys = LaneKeys(lane)
        with self._redis.errors():
            last: Any = self._redis.redis.get(keys.own_keys_checked)
        page = self._page(lane, f"({last}" if last else "-", "+")
        self._alive(lane, page)
        if len(page) == PAGE:
            self._redis.write_when_full(keys.own_keys_checked, "SET", page[-1])
        elif last:
            with self._redis.errors():
                self._redis.redis.delete(keys.own_keys_checked)
        return len(page) == PAGE

    def _page(self, lane: Lane, start: str, end: str) -> list[str]:
        with self._redis.errors():
            page: list[str] = self._redis.redis.zrangebylex(  # type: ignore[assignment]
                LaneKeys(lane).own_keys, start, end, 0, PAGE
            )
        return page

    def _alive(self, lane: Lane, entries: Sequence[str]) -> list[str]:
        """Those of some entries whose ids have this key; the others leave the index."""
        if not entries:
            return []
        keys = LaneKeys(lane)
        ids = [entry.partition("\0")[2] for entry in entries]
        names = [keys.own_keys, *map(keys.task, ids)]
        gone = set(self._redis.script("drop_keys", names, entries))
        return [entry for number, entry in enumerate(entries, 1) if number not in gone]
