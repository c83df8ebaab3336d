"""Finds tracked tasks by a filter, page by page, along the journal."""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from cavendish.errors import SubmissionError
from cavendish.filter import (
    Filter,
    Page,
    fields_of,
    includes,
    mark_of,
    states_of,
    times_of,
    told_to,
)
from cavendish.model import Lane, TrackedTask
from cavendish.store.connection import Connection
from cavendish.store.journal import Journal, Place, Section
from cavendish.store.key_index import KeyIndex
from cavendish.store.keys import LaneKeys, minute_of
from cavendish.store.tracked_tasks import Tasks

#: Ids that one page looks at, at most, give or take one step of the journal.
LOOKED_AT = 20_000
#: Ids of one lane that are found by one key, at most.
NAMED = 100

#: An id that matches, and where it stands.
Found = tuple[Place, str]


class Search:
    """Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection, tasks: Tasks, journal: Journal) -> None:
        self._redis, self._tasks, self._journal = connection, tasks, journal
        self._key_index = KeyIndex(connection)

    def page(
        self,
        wanted: Filter,
        cursor: str | None,
        limit: int,
        *,
        with_record: bool = False,
        looked_at_most: int = LOOKED_AT,
    ) -> Page:
        """The first `limit` matching tasks behind a cursor. Raises SubmissionError for a cursor
        that is malformed, or that belongs to another filter.
        """
        found, looked_at, end = list[Found](), 0, None
        for sections in self._walk(wanted, _place(cursor, wanted)):
            found += self._matching(sections, wanted)
            looked_at += sum(len(section.ids) for section in sections)
            if len(found) > limit:
                found, end = found[:limit], found[limit - 1][0]
                break
            if looked_at >= looked_at_most:
                end = sections[-1].place(len(sections[-1].ids) - 1)
                break
        items = tuple(self.load(found, with_record=with_record))
        return Page(items, None if end is None else _cursor(end, wanted))

    def steps(self, wanted: Filter) -> Iterator[list[Found]]:
        """All matching ids, some hundreds at a time, without those that are submitted meanwhile."""
        for sections in self._walk(wanted):
            if found := self._matching(sections, wanted):
                yield found

    def count(self, wanted: Filter) -> int:
        """How many tasks match."""
        return sum(map(len, self.steps(wanted)))

    def named(self, text: str) -> list[TrackedTask]:
        """The tasks that have this id or this key, of all lanes, without their records."""
        lanes, pipe = self._tasks.lanes(), self._redis.pipeline()
        for lane in lanes:
            pipe.exists(LaneKeys(lane).task(text))
            pipe.zrangebylex(LaneKeys(lane).own_keys, f"[{text}\0", f"({text}\1", 0, NAMED)
        rows = self._redis.answers(pipe)
        found = list[TrackedTask]()
        for lane, there, entries in zip(lanes, rows[::2], rows[1::2], strict=True):
            keyed = entries if isinstance(entries, list) else []  # none in a damaged index
            ids = [entry.partition("\0")[2] for entry in keyed]
            ids = list(dict.fromkeys([text, *ids] if there == 1 else ids))
            tasks = self._tasks.load(lane, ids).tasks.values()
            found += (task for task in tasks if text in (task.id, task.key))  # others are leftovers
        return found

    def load(self, found: Iterable[Found], *, with_record: bool = False) -> list[TrackedTask]:
        """The tasks of ids that were found, in their order, each once; without those that are gone
        or unreadable.
        """
        ids = defaultdict[Lane, dict[str, None]](dict)
        for place, task_id in found:
            ids[place.lane][task_id] = None
        loaded = {
            lane: self._tasks.load(lane, list(some), with_record=with_record).tasks
            for lane, some in ids.items()
        }
        places = dict.fromkeys((place.lane, task_id) for place, task_id in found)
        return [loaded[lane][task_id] for lane, task_id in places if task_id in loaded[lane]]

    def _walk(self, wanted: Filter, before: Place | None = None) -> Iterator[list[Section]]:
        """The sections of the journal in which ids may match."""
        lanes = [lane for lane in self._tasks.lanes() if includes(wanted, lane)]
        if wanted.key is None:
            return self._journal.walk(lanes, before)
        minutes = dict[Lane, set[int]]()
        for lane in self._key_index.having(lanes, wanted.key):
            ids = self._key_index.find(lane, wanted.key)
            tasks = self._tasks.load(lane, ids).tasks.values()
            minutes[lane] = {minute_of(task.submitted_at) for task in tasks}
        return self._journal.walk(minutes, before, minutes)

    def _matching(self, sections: list[Section], wanted: Filter) -> list[Found]:
        states = f" {' '.join(states_of(wanted))} " if states_of(wanted) else ""
        said = [text for pair in fields_of(wanted).items() for text in pair]
        calls = []
        for section in sections:
            keys = LaneKeys(section.lane)
            names = [keys.common, *map(keys.task, section.ids)]
            args: list[Any] = [
                section.minute,
                section.end - 1,
                states,
                *map(repr, times_of(wanted)),
            ]
            args += [" ".join(told_to(wanted)), *said]
            calls.append((names, args))
        return [
            (section.place(number - 1), section.ids[number - 1])
            for section, numbers in zip(
                sections, self._redis.scripts("matching", calls), strict=True
            )
            if isinstance(numbers, list)
            for number in numbers
        ]


def _cursor(place: Place, wanted: Filter) -> str:
    text = f"{place.minute} {place.lane} {place.number} {mark_of(wanted)}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _place(cursor: str | None, wanted: Filter) -> Place | None:
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
        minute, lane, number, mark = text.split(" ")
        place = Place(int(minute), Lane.parse(lane), int(number))
    except (ValueError, binascii.Error):
        raise SubmissionError("The cursor is not one that a page ended with.") from None
    if mark != mark_of(wanted):
        raise SubmissionError("The cursor belongs to a search with another filter.")
    return place
