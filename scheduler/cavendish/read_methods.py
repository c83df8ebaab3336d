"""What a client reads: tracked tasks by id, or page by page by a filter."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator
from uuid import UUID

from cavendish.arguments import checked
from cavendish.errors import SubmissionError
from cavendish.filter import Filter, Page
from cavendish.model import Group, TrackedTask
from cavendish.store import Store
from cavendish.submission import group_name, ids_of, text_of

#: Most tasks on one page.
_LARGEST_PAGE = 1000


class ReadMethods:
    """Methods of `Client`."""

    _store: Store

    @checked()
    def get(
        self, task_id: str | UUID, *, service: str, account: str = "default"
    ) -> TrackedTask | None:
        """One tracked task (`task_id` of a `service`, under an `account`) with its record.

        `record` has Python values, `record_json` the text that they came as. None if it is not
        tracked.
        """
        return self.get_many([task_id], service=service, account=account).get(text_of(task_id))

    @checked()
    def get_many(
        self,
        ids: Iterable[str | UUID],
        *,
        service: str,
        account: str = "default",
        with_record: bool = True,
    ) -> dict[str, TrackedTask]:
        """The tracked tasks among the `ids` of a `service`, under an `account`, by id.

        `with_record=False` leaves the upstream records out.
        """
        return self._store.tasks.get(account, service, ids_of(ids), with_record=with_record)

    @checked()
    def find(
        self, key: str | UUID, *, service: str | None = None, account: str | None = None
    ) -> builtins.list[TrackedTask]:
        """The tracked tasks with this `key`: of all, or of one `service` or `account`.

        They have their records. Several ids may have the same key.
        """
        lanes = [
            lane
            for lane in self._store.tasks.lanes()
            if service in (None, lane.service) and account in (None, lane.account)
        ]
        found = builtins.list[TrackedTask]()
        for lane in self._store.key_index.having(lanes, text_of(key)):
            ids = self._store.key_index.find(lane, text_of(key))
            found += self._store.tasks.load(lane, ids, with_record=True).tasks.values()
        return found

    @checked()
    def group(self, name: str, *, account: str = "default") -> Group | None:
        """The group `name` of an `account`: how many of its ids have joined, and have ended.

        Of an id that was restarted the first end counts. A group is kept for CAVENDISH_RETENTION
        after its last webhook; one that does not complete, for 7 days (or CAVENDISH_RETENTION, if
        that is longer) after the last deadline and the last end of its ids. None: it is not kept.
        """
        return self._store.groups.get(account, group_name(name))

    @checked()
    def list(
        self,
        matching: Filter | None = None,
        *,
        cursor: str | None = None,
        limit: int = 50,
        with_record: bool = False,
    ) -> Page:
        """A page of the tasks that are tracked or kept, the newest submit first.

        `matching`: only those that match this filter; `cursor`: the `next` of the page before, so
        that all pages hold each task once, whatever comes and goes meanwhile; `limit`: at most so
        many, 1 to 1,000; `with_record`: with their upstream records. Raises SubmissionError for a
        cursor that is malformed or of another filter.
        """
        if not 1 <= limit <= _LARGEST_PAGE:
            raise SubmissionError(f"A page has 1 to {_LARGEST_PAGE} tasks, not {limit}.")
        return self._store.search.page(matching or Filter(), cursor, limit, with_record=with_record)

    @checked()
    def iter(
        self, matching: Filter | None = None, *, with_record: bool = False
    ) -> Iterator[TrackedTask]:
        """All tasks that `list` has pages of, without those that are submitted meanwhile.

        `matching` and `with_record`: as for `list`.
        """
        cursor, first = None, True
        while first or cursor is not None:
            page = self.list(matching, cursor=cursor, limit=500, with_record=with_record)
            yield from page.items
            cursor, first = page.next, False

    @checked()
    def count(self, matching: Filter | None = None) -> int:
        """How many tasks are tracked or kept: all, or those `matching` a filter.

        It reads each of them: about half a million per second.
        """
        return self._store.search.count(matching or Filter())
