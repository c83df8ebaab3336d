"""Reads the streams of ended ids, one per lane, together in the order of time, from any place on.

A place tells how far one lane was read: the id of the last entry that was handled. A position is
the places of all lanes in one short printable text, so a reader keeps one string for all lanes.
"""

from __future__ import annotations

import base64
import math
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cavendish.errors import EventsMissed, SubmissionError
from cavendish.model import Event, Lane, State
from cavendish.store.connection import Connection
from cavendish.store.keys import LaneKeys
from cavendish.store.redis_clients import SOCKET_TIMEOUT

#: Most seconds of one blocking read: well below the socket's timeout, or a silence would look like
#: an outage.
LONGEST_BLOCK = min(2.0, 0.4 * SOCKET_TIMEOUT)
#: The place before the first entry that a lane ever had, and before the first that it still has.
START, KEPT = "0-0", "-"
#: About how many entries a reader holds at once, and the fewest that it reads of each lane.
_AT_ONCE, _EACH = 10_000, 10
#: Seconds between two polls in a cluster.
POLL = 0.05
_PLACE = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_LONGEST_POSITION = 2**20

Row = tuple[str, Mapping[str, str] | None]


class Entry(NamedTuple):
    """One end in the stream of its lane; `at` in seconds since the epoch, by the clock of Redis."""

    lane: Lane
    place: str
    id: str
    state: State
    at: float


class Events:
    """Reads the streams; `settle` writes them. Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        timeout = connection.socket_timeout
        #: Most seconds of one blocking read on this connection.
        self.longest_block = min(LONGEST_BLOCK, 0.4 * timeout) if timeout else LONGEST_BLOCK

    def last(self, lanes: Iterable[Lane]) -> dict[Lane, str]:
        """The place of the newest entry of each lane, START for none, in one round trip."""
        lanes, pipe = list(lanes), self._redis.pipeline()
        for lane in lanes:
            pipe.xrevrange(LaneKeys(lane).events, count=1)
        with self._redis.errors():
            return {
                lane: rows[0][0] if rows else START
                for lane, rows in zip(lanes, pipe.execute(), strict=True)
            }

    def read(
        self, places: Mapping[Lane, str], each: int, block: float | None = None
    ) -> list[Entry]:
        """The next entries behind the places, at most `each` of a lane, by time to the millisecond.

        If there are none, it waits for the first for `block` seconds, but never more than 2; None:
        not at all. An unreadable entry is skipped.
        """
        places = dict(places)
        while found := self._xread(places, each, block):
            if entries := entries_of(found):
                return entries
            places |= {lane: rows[-1][0] for lane, rows in found.items()}
        return []

    def missed(self, places: Mapping[Lane, str]) -> list[Lane]:
        """The lanes whose entries behind these places were trimmed, in one round trip.

        Redis does not tell which entries it trimmed. A lane counts as missed if the entry at the
        place itself is gone; from START on, if fewer entries are kept than were ever added, which
        only Redis 7 knows. There a stream that began anew, after it had expired, is not missed.
        From KEPT on nothing is missed.
        """
        asked = [lane for lane, place in places.items() if place != KEPT]
        pipe = self._redis.pipeline()
        for lane in asked:
            pipe.xinfo_stream(LaneKeys(lane).events)
        answers = self._redis.answers(pipe)
        for answer in answers:
            if isinstance(answer, Exception) and "no such key" not in str(answer):
                raise answer
        return [
            lane
            for lane, answer in zip(asked, answers, strict=True)
            if _trimmed(places[lane], answer)
        ]

    def _xread(
        self, places: Mapping[Lane, str], each: int, block: float | None
    ) -> dict[Lane, Sequence[Row]]:
        """One XREAD over all lanes, at most `each` rows of a lane.

        No other command reads several lanes; in a cluster it cannot: they lie in several slots.
        """
        if not places:
            time.sleep(min(block or 0.0, self.longest_block))
            return {}
        if self._redis.clustered:
            return self._by_slot(places, each, block)
        streams: Any = streams_of(places)
        # To Redis a block of 0 ms is endless.
        seconds = min(block or 0.0, self.longest_block)
        wait = max(math.ceil(seconds * 1000), 1) if seconds > 0 else None
        with self._redis.errors():
            return rows_of(self._redis.redis.xread(streams, count=each, block=wait), places)

    def _by_slot(
        self, places: Mapping[Lane, str], each: int, block: float | None
    ) -> dict[Lane, Sequence[Row]]:
        """The same in a cluster: one XRANGE for each lane, repeated while there is nothing.

        No read blocks on keys in several slots.
        """
        until = time.monotonic() + min(block or 0.0, self.longest_block)
        while True:
            pipe = self._redis.pipeline()
            for lane, place in places.items():
                pipe.xrange(
                    LaneKeys(lane).events, START if place == KEPT else f"({place}", "+", each
                )
            with self._redis.errors():
                found = {
                    lane: rows for lane, rows in zip(places, pipe.execute(), strict=True) if rows
                }
            left = until - time.monotonic()
            if found or left <= 0:
                return found
            time.sleep(min(POLL, left))


class Reader:
    """Reads lanes on from their places and merges them by time, also if one lane has much more.

    For one thread. Raises StoreUnavailable, and EventsMissed if entries behind a place were
    trimmed.
    """

    def __init__(self, events: Events, places: Mapping[Lane, str]) -> None:
        self._events = events
        self._places: dict[Lane, str] = {}
        #: Entries that were read already and must wait for other lanes.
        self._ahead: dict[Lane, list[Entry]] = {}
        self.add(places)

    def add(self, places: Mapping[Lane, str]) -> None:
        """Read these lanes too, if they are new."""
        new = {lane: place for lane, place in places.items() if lane not in self._places}
        self._places |= new
        self._refuse_gaps(new)

    def read(
        self, block: float | None = None, *, until: Mapping[Lane, str] | None = None
    ) -> Iterator[Event]:
        """The next events; if there are none, wait for the first as `Events.read` does.

        `until`: only from lanes that were not read as far as these places.
        """
        asked = {
            lane: place
            for lane, place in self._places.items()
            if lane not in self._ahead and (until is None or order(place) < order(until[lane]))
        }
        each = max(_AT_ONCE // max(len(self._places), 1), _EACH)
        found: dict[Lane, list[Entry]] = defaultdict(list)
        for entry in self._events.read(asked, each, None if self._ahead else block):
            found[entry.lane].append(entry)
        self._refuse_gaps({lane: self._places[lane] for lane in found})
        # A lane may have more behind its last known entry; later entries of others have to wait.
        full = [entries for entries in found.values() if len(entries) >= each]
        ends = (_by_time(entries[-1]) for entries in (*self._ahead.values(), *full))
        horizon = min(ends, default=None)
        lanes = (*self._ahead.values(), *found.values())
        known = sorted((entry for entries in lanes for entry in entries), key=_by_time)
        now = [entry for entry in known if horizon is None or _by_time(entry) <= horizon]
        self._ahead = defaultdict(list)
        for entry in known[len(now) :]:
            self._ahead[entry.lane].append(entry)
        for entry in now:
            self._places[entry.lane] = entry.place
            lane, position = entry.lane, position_of(self._places)
            yield Event(entry.id, lane.service, lane.account, entry.state, entry.at, position)

    def _refuse_gaps(self, read_from: Mapping[Lane, str]) -> None:
        missed = self._events.missed(read_from)
        if missed:
            raise EventsMissed(
                list(map(str, missed)), position_of(self._places | dict.fromkeys(missed, KEPT))
            )


def streams_of(places: Mapping[Lane, str]) -> dict[str, str]:
    """What XREAD is asked: the key of each lane, and behind which entry."""
    return {
        LaneKeys(lane).events: START if place == KEPT else place for lane, place in places.items()
    }


def rows_of(answer: Any, lanes: Iterable[Lane]) -> dict[Lane, Sequence[Row]]:
    """The answer of an XREAD over these lanes; a lane without new rows is left out.

    Depending on the versions of redis-py and of the protocol, nothing is None, [] or {}, and
    anything else a list of pairs or a dict.
    """
    keys = {LaneKeys(lane).events: lane for lane in lanes}
    pairs = answer.items() if isinstance(answer, dict) else answer or ()
    return {
        keys[key]: rows[0] if rows and isinstance(rows[0], list) else rows
        for key, rows in pairs
        if rows
    }


def entries_of(found: Mapping[Lane, Sequence[Row]]) -> list[Entry]:
    """The rows that can be read, by time."""
    several = (_entry(lane, *row) for lane, rows in found.items() for row in rows)
    return sorted((entry for entry in several if entry), key=_by_time)


def _by_time(entry: Entry) -> tuple[tuple[int, int], Lane]:
    return order(entry.place), entry.lane


def order(place: str) -> tuple[int, int]:
    """What places are ordered by: milliseconds, and a number within the millisecond."""
    if place == KEPT:
        return (0, 0)
    milliseconds, _, number = place.partition("-")
    return (int(milliseconds), int(number))


def position_of(places: Mapping[Lane, str]) -> str:
    """The places of all lanes as one text of letters, digits, `-` and `_`.

    Some 40 characters, and 15 for each further lane.
    """
    text = "\n".join(f"{lane} {place}" for lane, place in places.items() if place != START)
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 1)).decode().rstrip("=")


def places_of(position: object) -> dict[Lane, str]:
    """The places that `position_of` wrote, without lanes at START.

    Raises SubmissionError on anything else.
    """
    try:
        pairs = [line.split(" ") for line in _unpacked(position).splitlines()]
        return {Lane.parse(lane): _checked(place) for lane, place in pairs}
    except (ValueError, zlib.error):
        raise SubmissionError(
            "This is no position in the events: give one as an event brought it, or 0 for all kept."
        ) from None


def _unpacked(position: object) -> str:
    if not isinstance(position, str) or not position or len(position) > _LONGEST_POSITION:
        raise ValueError
    unpacking = zlib.decompressobj()
    raw = base64.b64decode(position + "=" * (-len(position) % 4), altchars=b"-_", validate=True)
    text = unpacking.decompress(raw, 16 * _LONGEST_POSITION)
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError
    return text.decode()


def _checked(place: str) -> str:
    if place != KEPT and (not _PLACE.fullmatch(place) or max(order(place)) >= 2**64):
        raise ValueError
    return place


def _entry(lane: Lane, place: str, fields: Mapping[str, str] | None) -> Entry | None:
    try:
        entry = (
            Entry(lane, place, fields["id"], State(fields["state"]), float(fields["at"]))
            if fields
            else None
        )
    except (KeyError, ValueError):
        return None
    return entry if entry and math.isfinite(entry.at) else None


def _trimmed(place: str, info: Any) -> bool:
    if isinstance(info, Exception) or not info["first-entry"]:
        return False
    added, length = info.get("entries-added"), int(info["length"])
    if added is not None and int(added) == length:
        return False
    if place == START:
        return added is not None
    return order(info["first-entry"][0]) > order(place)
