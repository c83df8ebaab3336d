"""Undoes what was submitted: cancels ids, gives them another deadline, forgets them.

It goes chunk by chunk, so that a hundred thousand ids block nobody, and whatever dies in between
leaves each id either as it was or changed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from uuid import UUID

from cavendish.controller import checked_text, whoever_calls
from cavendish.errors import SubmissionError
from cavendish.filter import Filter, includes, states_of
from cavendish.model import Changed, Lane, State
from cavendish.operator_act import OperatorAct
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.groups import IdEnd
from cavendish.store.new_tasks import by_lane
from cavendish.submission import LONGEST_DEADLINE, SHORTEST_DEADLINE, checked_account, ids_of

#: Ids of a service, or a filter.
Chosen = Iterable[str | UUID] | Filter


class Undo:
    """Each method goes on only while its results are taken: some hundred ids at a time.

    All raise StoreUnavailable, and SubmissionError for wrong values.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings

    def cancel(
        self,
        chosen: Chosen,
        service: str | None,
        account: str | None,
        *,
        silent: bool,
        reason: str,
        by: str | None,
    ) -> Iterator[list[Changed]]:
        """End pending ids as cancelled; see `Client.cancel`."""
        by = whoever_calls() if by is None else checked_text(by, "by")
        said = checked_text(reason, "reason")
        why = f"cancelled by {by}: {said}" if said else f"cancelled by {by}"
        for lane, ids in self._chunks(chosen, service, account, pending_only):
            yield self._cancel(lane, ids, why, silent=silent)

    def set_deadline(
        self,
        chosen: Chosen,
        service: str | None,
        account: str | None,
        seconds: float,
        by: str | None = None,
    ) -> Iterator[list[Changed]]:
        """Give pending ids a deadline so many seconds from now; see `Client.set_deadline`.

        `by` is noted in the record of each (default: user and host of the caller).
        """
        by = whoever_calls() if by is None else checked_text(by, "by")
        check_deadline(seconds)
        began_at = self._store.fleet.now()
        deadline_at = round(began_at + seconds, 3)
        act = OperatorAct(began_at, "deadline", by, deadline_at)
        for lane, ids in self._chunks(chosen, service, account, pending_only):
            now = self._store.fleet.now()
            known = self._store.tasks.load(lane, ids).tasks
            tasks = [task for task in known.values() if not task.state.terminal]
            groups = (group for task in tasks for group in task.groups)
            self._store.groups.keep(
                lane.account, groups, deadline_at, now, self._settings.retention
            )
            done = set(self._store.tasks.set_deadline(lane, tasks, deadline_at, now, act))
            yield changes(lane, ids, done, known.keys())

    def forget(
        self, chosen: Chosen, service: str | None, account: str | None
    ) -> Iterator[list[Changed]]:
        """Erase all that is kept of ids; see `Client.forget`."""
        lanes = set[Lane]()
        if isinstance(chosen, Filter):  # it finds nothing of what an earlier run has erased
            lanes = {lane for lane in self._store.tasks.lanes() if includes(chosen, lane)}
        for lane, ids in self._chunks(chosen, service, account):
            lanes.add(lane)
            yield self._forget(lane, ids)
        for lane in sorted(lanes):  # of an earlier run that was killed, too
            self._store.erasure.erase_common_parts(lane)

    def _cancel(self, lane: Lane, ids: Sequence[str], why: str, *, silent: bool) -> list[Changed]:
        tasks, s = self._store.tasks, self._settings
        left, done, ended = [*ids], set[str](), set[str]()
        while left:
            now, token = self._store.fleet.now(), secrets.token_hex(8)
            seized = set(tasks.seize(lane, left, now, token))
            known = tasks.load(lane, left).tasks
            ended |= {task.id for task in known.values() if task.state.terminal}
            outcomes = [
                (Outcome(task, State.CANCELLED, why, polled=False, silent=silent), now)
                for task in known.values()
                if task.id in seized and not task.state.terminal
            ]
            settled = tasks.settle(lane, token, now, outcomes, s.retention, s.events_kept)
            done |= {one.id for one in settled if one.ended}
            left = [one.id for one in settled if not one.ended]  # another process took the lease
        return changes(lane, ids, done, ended)

    def _forget(self, lane: Lane, ids: Sequence[str]) -> list[Changed]:
        left, done = [*ids], set[str]()
        while left:
            self._cancel(lane, left, "forgotten", silent=True)
            known, erased = self._erase(lane, left)
            done |= erased
            # What is left has other webhooks by now, or is tracked anew.
            left = [each for each in left if each in known - erased]
        return changes(lane, ids, done, ())

    def _erase(self, lane: Lane, ids: Sequence[str]) -> tuple[set[str], set[str]]:
        """Erase what has ended; the ids that were known, and those that were erased."""
        store, now, retention = self._store, self._store.fleet.now(), self._settings.retention
        loaded = store.tasks.load(lane, ids, with_record=True)
        if loaded.unreadable:
            store.tasks.quarantine(lane, loaded.unreadable)
        tasks = [task for task in loaded.tasks.values() if task.state.terminal]
        damaged = set(store.tasks.quarantined(lane)) & set(ids) - {task.id for task in tasks}
        ends = [
            IdEnd(group, one.service, one.id, one.state) for one in tasks for group in one.groups
        ]
        if ends:  # their groups count them, although nothing tells so any more
            store.groups.end(lane.account, ends, now, retention)
        erased = store.erasure.erase(lane, tasks, list(damaged), now)
        gone = [task for task in tasks if task.id in erased]
        store.producer_usage.restarted(gone, retention, now)
        return set(loaded.tasks), erased

    def _chunks(
        self,
        chosen: Chosen,
        service: str | None,
        account: str | None,
        narrowed: Callable[[Filter], Filter] = lambda found: found,
    ) -> Iterator[tuple[Lane, list[str]]]:
        """The chosen ids by lane, some hundred at a time; a filter is `narrowed` before."""
        if isinstance(chosen, Filter):
            if service is not None or account is not None:
                raise SubmissionError("A filter names service and account itself.")
            for found in self._store.search.steps(narrowed(chosen)):
                lanes: dict[Lane, list[str]] = {}
                for place, task_id in found:
                    lanes.setdefault(place.lane, []).append(task_id)
                yield from lanes.items()
            return
        if service is None:
            raise SubmissionError("Name the service of the ids.", "service")
        ids = dict.fromkeys(ids_of(chosen))
        shards = self._settings.shards
        yield from by_lane(checked_account(account or "default"), service, ids, shards)


def check_deadline(seconds: object) -> None:
    """Raise SubmissionError unless a deadline may lie so many seconds from now."""
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not SHORTEST_DEADLINE <= seconds <= LONGEST_DEADLINE:  # type: ignore[operator]
        raise SubmissionError(
            f"A deadline must lie within 1 s and 30 days (2592000 s) from now, not {seconds!r} s."
        )


def pending_only(found: Filter) -> Filter:
    """The filter for what it finds that is pending. Raises SubmissionError if it wants none."""
    if states_of(found) and State.PENDING not in states_of(found):
        raise SubmissionError("Only pending ids can be changed: name the state pending, or none.")
    return replace(found, state=State.PENDING.value)


def changes(
    lane: Lane, ids: Iterable[str], done: Collection[str], ended: Collection[str]
) -> list[Changed]:
    """What became of ids of a lane: those that are neither `done` nor had `ended` are unknown."""
    return [
        Changed(
            task_id,
            lane.service,
            lane.account,
            "done" if task_id in done else "ended" if task_id in ended else "unknown",
        )
        for task_id in ids
    ]
