"""The waits of this process: for the ends of ids, or for all ends in some lanes."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from cavendish.errors import WaitTimeout
from cavendish.model import Lane, TrackedTask

#: Seconds of one pause at most: locks refuse those of centuries.
_LONGEST = 3600.0


class Watch:
    """Somebody who is told whenever something ends in these `lanes`, and once when that begins.

    `changed` is called by the thread that hears of it, so it must neither block nor raise.
    """

    def __init__(self, lanes: Collection[Lane], changed: Callable[[], None]) -> None:
        self.lanes, self.changed = lanes, changed


class Wait(Watch):
    """Somebody who waits until `ids` have ended, and is told when some of them have."""

    def __init__(self, ids: Mapping[str, Lane], changed: Callable[[], None]) -> None:
        super().__init__(set(ids.values()), changed)
        self.ids = ids
        #: Why this waits in vain.
        self.error: Exception | None = None
        self._ended: dict[str, TrackedTask] = {}
        #: What nobody has looked at yet. The time of a wait is not over before.
        self._unchecked = set(ids)

    @property
    def ended(self) -> dict[str, TrackedTask]:
        """What has ended, in the order of `ids`."""
        return {each: self._ended[each] for each in self.ids if each in self._ended}

    def end(self, task: TrackedTask) -> None:
        """This one has ended."""
        self._ended[task.id] = task

    def check(self, task_id: str) -> bool:
        """This one was looked at; True if it was the last that nobody had looked at."""
        before = len(self._unchecked)
        self._unchecked.discard(task_id)
        return before == 1 and not self._unchecked

    def until_ended(
        self, timeout: float | None, progress: Callable[[int, int], None] | None
    ) -> Iterator[float | None]:
        """For how many seconds to wait for a change, again and again, until all have ended.

        None: for as long as it takes. `timeout` and `progress` are those of `Client.wait`. Raises
        WaitTimeout, and what was met instead of an end.
        """
        until, told = math.inf if timeout is None else time.monotonic() + timeout, -1
        while self.error is None:
            checked, ended = not self._unchecked, len(self._ended)
            if progress and checked and ended != told:
                told = ended
                progress(ended, len(self.ids))
            if ended == len(self.ids):
                return
            left = until - time.monotonic()
            if checked and left <= 0:
                pending = [each for each in self.ids if each not in self._ended]
                raise WaitTimeout(pending, timeout or 0.0)
            yield min(left, _LONGEST) if checked and left < math.inf else None
        raise copy.copy(self.error)  # others raise it, too


class Waiters:
    """All who wait, by what they wait for. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: dict[Lane, dict[str, set[Wait]]] = {}
        self._watches: dict[Lane, set[Watch]] = {}
        #: Who came since `newcomers` was called.
        self._new: list[Watch] = []

    def add(self, one: Watch) -> bool:
        """Somebody begins to wait. True for the first who came since `newcomers` was called."""
        with self._lock:
            if isinstance(one, Wait):
                for task_id, lane in one.ids.items():
                    self._waits.setdefault(lane, {}).setdefault(task_id, set()).add(one)
            else:
                for lane in one.lanes:
                    self._watches.setdefault(lane, set()).add(one)
            self._new.append(one)
            return len(self._new) == 1

    def remove(self, one: Watch) -> None:
        """Somebody waits no more; nothing happens if that is so already."""
        with self._lock:
            self._remove(one)

    def newcomers(self) -> list[Watch]:
        """Who came since this was called last."""
        with self._lock:
            new, self._new = self._new, []
            return new

    def lanes(self) -> set[Lane]:
        """The lanes that anybody waits for."""
        with self._lock:
            return self._waits.keys() | self._watches.keys()

    def ids(self) -> dict[Lane, list[str]]:
        """The ids that anybody waits for."""
        with self._lock:
            return {lane: [*ids] for lane, ids in self._waits.items()}

    def wanted(self, lane: Lane, ids: Iterable[str]) -> list[str]:
        """Those of these ids that anybody waits for."""
        with self._lock:
            waits = self._waits.get(lane, {})
            return [each for each in ids if each in waits]

    def ended(self, lane: Lane, tasks: Iterable[TrackedTask]) -> None:
        """Tell those who wait for these: they have ended."""
        told = set[Wait]()
        with self._lock:
            waits = self._waits.get(lane, {})
            for task in tasks:
                for wait in waits.pop(task.id, ()):
                    wait.check(task.id)
                    wait.end(task)
                    told.add(wait)
            if not waits:
                self._waits.pop(lane, None)
        _tell(told)

    def checked(self, lane: Lane, ids: Iterable[str]) -> None:
        """These ids were looked at, and have not ended."""
        with self._lock:
            waits = self._waits.get(lane, {})
            several = [(wait, each) for each in ids for wait in waits.get(each, ())]
            told = {wait for wait, each in several if wait.check(each)}
        _tell(told)

    def stirred(self, lanes: Iterable[Lane]) -> None:
        """Tell those who watch these lanes: something has ended there."""
        with self._lock:
            told = {watch for lane in lanes for watch in self._watches.get(lane, ())}
        _tell(told)

    def fail(
        self, error: Exception, lane: Lane | None = None, ids: Collection[str] | None = None
    ) -> None:
        """Tell those who wait for these ids of a lane, or in a lane, or at all, that it is in vain.

        Whoever watches finds out by reading.
        """
        told = set[Wait]()
        with self._lock:
            for each in [*self._waits] if lane is None else [lane]:
                waits = self._waits.get(each, {})
                told.update(
                    *(waits.get(task_id, ()) for task_id in (waits if ids is None else ids))
                )
            for one in told:
                one.error = error
                self._remove(one)
        _tell(told)
        if ids is None:
            self.stirred(self.lanes() if lane is None else [lane])

    def _remove(self, one: Watch) -> None:
        for task_id, lane in one.ids.items() if isinstance(one, Wait) else ():
            waits = self._waits.get(lane, {})
            waits.get(task_id, set()).discard(one)
            if not waits.get(task_id):
                waits.pop(task_id, None)
            if not waits:
                self._waits.pop(lane, None)
        for lane in () if isinstance(one, Wait) else one.lanes:
            watches = self._watches.get(lane, set())
            watches.discard(one)
            if not watches:
                self._watches.pop(lane, None)


def _tell(told: Iterable[Watch]) -> None:
    for one in told:
        one.changed()
