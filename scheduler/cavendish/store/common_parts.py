"""Common parts of submits: long metadata and URLs, stored once however many ids share them.

A part is a few fields of a record, named by a hash of their text, so that equal parts of many
submits are one. A record lists the parts that hold its fields. A part is kept while a record
without expiry refers to it, and then until the last record that did has expired.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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

#: The stored texts of parts by lane and name; None where one is gone.
Texts = Mapping[tuple[Lane, str], Any]


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
        digest = hashlib.sha256(text.encode()).digest()[:16]
        return cls(urlsafe_b64encode(digest).decode().rstrip("="), text)


class CommonParts:
    """Reads and forgets common parts; `add.lua` stores them. Raises StoreUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def texts(self, records: Iterable[tuple[Lane, Any]]) -> Texts:
        """The parts that records name in their field `common`, each once, in one round trip.

        No part, no round trip.
        """
        by_lane: dict[Lane, dict[str, None]] = {}
        for lane, common in records:
            if isinstance(common, str) and common:
                by_lane.setdefault(lane, {}).update(dict.fromkeys(common.split()))
        if not by_lane:
            return {}
        pipe = self._redis.pipeline()
        for lane, names in by_lane.items():
            pipe.hmget(LaneKeys(lane).common, list(names))
        rows = self._redis.answers(pipe)
        return {
            (lane, name): text
            for (lane, names), row in zip(by_lane.items(), rows, strict=True)
            for name, text in zip(names, row if isinstance(row, list) else (), strict=False)
        }

    def urls(self, records: Sequence[tuple[Lane, str, Any]]) -> list[str]:
        """The URL of each subscription; "" if it has none, or its record is unreadable.

        Each row is `to:SUBSCRIPTION` and `common` of its record, or an error of Redis.
        """
        rows = [row if isinstance(row, list) else (None, None) for _, _, row in records]
        texts = self.texts(
            (lane, common)
            for (lane, _, _), (url, common) in zip(records, rows, strict=True)
            if not url
        )
        found = []
        for (lane, subscription, _), (url, common) in zip(records, rows, strict=True):
            fields = {f"to:{subscription}": url, "common": "" if url else common}
            whole = completed(lane, fields, texts)
            to = whole.get(f"to:{subscription}") if isinstance(whole, dict) else None
            found.append(to if isinstance(to, str) else "")
        return found

    def forget(self, lane: Lane, now: float) -> None:
        """Delete the parts that no record refers to any more."""
        keys = LaneKeys(lane)
        names = [keys.common, keys.common_open, keys.common_until]
        while self._redis.script("forget_common", names, [now - MARGIN, PAGE]) == PAGE:
            pass


def completed(lane: Lane, fields: Any, texts: Texts) -> Any:
    """The fields of a record with those of its common parts; a ValueError if one is unreadable.

    Anything but the fields of a record is returned as it is.
    """
    if not isinstance(fields, dict) or not fields.get("common"):
        return fields
    found: dict[str, str] = {}
    for name in fields["common"].split():
        try:
            part = parse(texts.get((lane, name)) or "")
        except ValueError:
            part = None
        if not isinstance(part, dict):
            return ValueError(f"its common part {name} is gone or unreadable")
        found |= part
    return fields | found
