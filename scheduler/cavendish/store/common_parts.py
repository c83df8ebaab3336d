"""Common parts of submits: what many ids share, and long metadata and URLs, are stored once.

A part is a few fields of a record, named by a hash of their text, so that equal parts of many
submits are one, and never change. A record lists the parts that hold its fields. A part is kept
while a record without expiry refers to it, and then until the last record that did has expired.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from cavendish.model import Lane
from cavendish.store.connection import Connection
from cavendish.store.keys import LaneKeys
from cavendish.stored_json import compact, parse

#: Bytes of a value, and of all values, above which a part is stored apart; a shorter one costs less
#: inside each record. With a value of more than 64 bytes Redis stores a hash less compactly.
LONGEST_VALUE, LONGEST_PART = 64, 128
#: Seconds for which a part outlives the last record that refers to it.
MARGIN = 3600.0
#: Parts that are looked at in one run.
PAGE = 1000

#: Bytes of memory for the parts that one process remembers; what Python needs for one beside its
#: text (its dict, its strings).
REMEMBERED, OVERHEAD = 4 << 20, 800

#: The fields of parts by lane and name; None where one is gone or unreadable.
Parts = Mapping[tuple[Lane, str], Mapping[str, str] | None]


@dataclass(frozen=True, slots=True)
class Part:
    """Fields of a record. `name` is "" if they are too short to be stored apart."""

    name: str
    text: str

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Part:
        """The part that holds these fields."""
        text = compact(fields)
        sizes = [len(value.encode(errors="surrogatepass")) for value in fields.values()]
        if sum(sizes) <= LONGEST_PART and max(sizes, default=0) <= LONGEST_VALUE:
            return cls("", "")
        return cls.named(text)

    @classmethod
    def whole(cls, fields: Mapping[str, str]) -> Part:
        """The part that holds these fields, however short they are."""
        return cls.named(compact(fields))

    @classmethod
    def named(cls, text: str) -> Part:
        """The part with this text."""
        digest = hashlib.sha256(text.encode()).digest()[:9]
        return cls(urlsafe_b64encode(digest).decode()[:11], text)


class CommonParts:
    """Reads and forgets common parts; `add.lua` stores them. Raises StoreUnavailable.

    What was read lately is remembered: a part never changes. Safe to share between threads.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._remembered = Remembered()

    def read(self, records: Iterable[tuple[Lane, Any]]) -> Parts:
        """The parts that records name in their field `in`: those that are not remembered are
        read in one round trip.
        """
        wanted = {
            (lane, name)
            for lane, common in dict.fromkeys(records)
            if isinstance(common, str)
            for name in common.split()
        }
        found: dict[tuple[Lane, str], Mapping[str, str] | None] = {}
        by_lane: dict[Lane, list[str]] = {}
        for lane, name in wanted:
            found[lane, name] = self._remembered.get(name)
            if found[lane, name] is None:
                by_lane.setdefault(lane, []).append(name)
        if not by_lane:
            return found
        pipe = self._redis.pipeline()
        for lane, names in by_lane.items():
            pipe.hmget(LaneKeys(lane).common, names)
        for (lane, names), row in zip(by_lane.items(), self._redis.answers(pipe), strict=True):
            for name, text in zip(names, row if isinstance(row, list) else (), strict=False):
                fields = _fields(text)
                found[lane, name] = fields
                if fields is not None:
                    self._remembered.put(name, fields, len(text) + OVERHEAD)
        return found

    def urls(self, records: Sequence[tuple[Lane, str, Any]]) -> list[str]:
        """The URL of each subscription; "" if it has none, or its record is unreadable.

        Each row is `to:SUBSCRIPTION` and `in` of its record, or an error of Redis.
        """
        rows = [row if isinstance(row, list) else (None, None) for _, _, row in records]
        parts = self.read(
            (lane, common)
            for (lane, _, _), (url, common) in zip(records, rows, strict=True)
            if not url
        )
        found = []
        for (lane, subscription, _), (url, common) in zip(records, rows, strict=True):
            fields = {f"to:{subscription}": url} if url else {"in": common}
            whole = completed(lane, fields, parts)
            to = whole.get(f"to:{subscription}") if isinstance(whole, dict) else None
            found.append(to if isinstance(to, str) else "")
        return found

    def forget(self, lane: Lane, now: float) -> None:
        """Delete the parts that no record refers to any more."""
        keys = LaneKeys(lane)
        names = [keys.common, keys.common_open, keys.common_until]
        while self._redis.script("forget_common", names, [now - MARGIN, PAGE]) == PAGE:
            pass


class Remembered:
    """The fields of parts that were read lately, by name. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._fields: OrderedDict[str, tuple[Mapping[str, str], int]] = OrderedDict()
        self._size = 0

    def get(self, name: str) -> Mapping[str, str] | None:
        """The fields of a part; None if they are not remembered."""
        with self._lock:
            if name not in self._fields:
                return None
            self._fields.move_to_end(name)
            return self._fields[name][0]

    def put(self, name: str, fields: Mapping[str, str], size: int) -> None:
        """Remember the fields of a part, which take so many bytes of memory."""
        with self._lock:
            self._size += size - self._fields.pop(name, ({}, 0))[1]
            self._fields[name] = fields, size
            while self._size > REMEMBERED:
                self._size -= self._fields.popitem(last=False)[1][1]


def completed(lane: Lane, fields: Any, parts: Parts) -> Any:
    """The fields of a record with those of its common parts; a ValueError if one is unreadable.

    Anything but the fields of a record is returned as it is.
    """
    return completed_all(lane, [fields], parts)[0]


def completed_all(lane: Lane, records: Iterable[Any], parts: Parts) -> list[Any]:
    """The same for many records: the parts that several have in common are joined once."""
    joined: dict[str, dict[str, str] | ValueError] = {}
    whole = []
    for fields in records:
        names = fields.get("in") if isinstance(fields, dict) else None
        if not names:
            whole.append(fields)
            continue
        if names not in joined:
            joined[names] = _joined(lane, names, parts)
        common = joined[names]
        whole.append(common | fields if isinstance(common, dict) else common)
    return whole


def _joined(lane: Lane, names: str, parts: Parts) -> dict[str, str] | ValueError:
    whole: dict[str, str] = {}
    for name in names.split():
        part = parts.get((lane, name))
        if part is None:
            return ValueError(f"its common part {name} is gone or unreadable")
        whole |= part
    return whole


def _fields(text: Any) -> Mapping[str, str] | None:
    try:
        fields = parse(text or "")
    except ValueError:
        return None
    sound = isinstance(fields, dict) and all(isinstance(each, str) for each in fields.values())
    return fields if sound else None
