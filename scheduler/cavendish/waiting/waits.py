"""One thread of a client reads which ids have ended, and wakes all who wait in this process.

It reads the event streams of all their lanes, and the record of what ended once for all of them. It
lives while anybody waits and ends soon after: a client that nobody closes leaves nothing behind.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from cavendish.errors import ClientClosed, StoreUnavailable, SubmissionError
from cavendish.model import Lane
from cavendish.store import Store
from cavendish.store.event_listener import EventListener
from cavendish.store.events import Entry
from cavendish.waiting.waiters import Wait, Waiters, Watch

#: Seconds after which all ids are checked, since events may have been trimmed, and lanes in which
#: nobody waits any more are left.
_CHECK_ALL = 5.0
#: Ids of a lane that are read at once.
_AT_ONCE = 500
#: Seconds after which a read that failed before has begun well, and between two failures for all.
_CALM = 0.1
#: Seconds for which `close` waits for the thread, which may itself wait for a Redis that is away.
_CLOSING = 1.0

W = TypeVar("W", bound=Watch)
Run = tuple[Lane, Sequence[str]]


class Waits:
    """The waits and watches of one client. Safe to share between threads, and after a fork.

    `changed`, which they are given, is called by the thread whenever there is more to know; it must
    neither block nor raise.
    """

    def __init__(self, store: Store, shards: int) -> None:
        self._store, self._shards = store, shards
        self._lock = threading.Lock()
        self._thread: _WaitThread | None = None

    @contextmanager
    def wait(
        self, account: str, service: str, ids: Iterable[str], changed: Callable[[], None]
    ) -> Iterator[Wait]:
        """Wait for ids for the length of a `with`."""
        lanes = {each: Lane.of(account, service, each, self._shards) for each in ids}
        with self._joined(Wait(lanes, changed)) as wait:
            yield wait

    @contextmanager
    def watch(self, lanes: Collection[Lane], changed: Callable[[], None]) -> Iterator[Watch]:
        """Watch lanes for the length of a `with`."""
        with self._joined(Watch(lanes, changed)) as watch:
            yield watch

    def close(self) -> None:
        """End the thread. Whoever still waits gets ClientClosed."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread:
            thread.close()

    @contextmanager
    def _joined(self, one: W) -> Iterator[W]:
        if not one.lanes:
            yield one
            return
        with self._lock:
            if self._thread is None or not self._thread.take(one):
                self._thread = _WaitThread(self._store)
                self._thread.take(one)
            thread = self._thread
        try:
            yield one
        finally:
            thread.waiters.remove(one)


class _WaitThread:
    """The thread: it is started by whoever comes first, and takes nobody any more once it ends."""

    def __init__(self, store: Store) -> None:
        self._store, self.waiters = store, Waiters()
        self._listener = EventListener(store.connection, store.events)
        self._to_check: deque[Run] = deque()
        self._lock, self._open, self._pid = threading.Lock(), True, os.getpid()
        self._thread = threading.Thread(target=self._run, name="cavendish-waits", daemon=True)
        self._thread.start()

    def take(self, one: Watch) -> bool:
        """Let somebody wait. False if this thread has ended, or belongs to a forked parent."""
        if self._pid != os.getpid():
            self._listener.close()  # what this process has of it
            return False
        with self._lock:
            if self._open and self.waiters.add(one):
                self._listener.wake()
            return self._open

    def close(self) -> None:
        """End the thread, and let all who wait know."""
        if self._pid == os.getpid() and self._end():
            self._thread.join(_CLOSING)

    def _end(self, *, if_nobody: bool = False) -> bool:
        """Take nobody any more; `if_nobody`: only if nobody waits. False if it goes on."""
        with self._lock:
            if if_nobody and self.waiters.lanes():
                return False
            if self._open:
                self._open = False
                self._listener.wake()
        self.waiters.fail(ClientClosed("The client was closed while this waited."))
        return True

    def _run(self) -> None:
        """Hear and tell until nobody waits any more.

        A read that fails is tried once more after a check of all ids, which sorts out the lanes
        that cannot be read: a connection may just have been lost. If the check fails, or the read
        again and at once, all waits fail.
        """
        failed, check_at = True, time.monotonic() + _CHECK_ALL
        while self._open:
            began, hear = time.monotonic(), not failed or not self._to_check
            try:
                self._turn(check_at, hear=hear)
                failed = failed and not hear
            except Exception as error:  # whatever it is, it is raised where somebody waits
                again = failed and (not hear or time.monotonic() < began + _CALM)
                if again:
                    self.waiters.fail(error)
                    time.sleep(_CALM)
                failed, check_at = not again, 0.0
            if time.monotonic() >= check_at and not self._end(if_nobody=True):
                self._listener.leave(self._listener.lanes - self.waiters.lanes())
                self._to_check = deque(_runs(self.waiters.ids()))
                check_at = time.monotonic() + _CHECK_ALL
        with self._lock:  # nobody is about to wake it
            self._listener.close()

    def _turn(self, check_at: float, *, hear: bool) -> None:
        """Take in who came, look at some ids, and hear what ends until the time of a check."""
        new = self.waiters.newcomers()
        # First the places: what ends before the look is then seen twice rather than never.
        self._listener.listen(self.waiters.lanes())
        wanted: dict[Lane, dict[str, None]] = defaultdict(dict)
        for one in new:
            if isinstance(one, Wait):
                for task_id, lane in one.ids.items():
                    wanted[lane][task_id] = None
            else:
                one.changed()
        self._to_check.extendleft(_runs(wanted))
        if self._to_check:
            self._check(*self._to_check.popleft())
        if hear:
            left = 0.0 if self._to_check else max(check_at - time.monotonic(), 0.0)
            self._tell(self._listener.hear(left))

    def _check(self, lane: Lane, ids: Sequence[str]) -> None:
        """Look whether ids have ended. Where a lane cannot be read, the others go on."""
        ids = self.waiters.wanted(lane, ids)
        try:
            tasks = self._store.tasks.load(lane, ids).tasks
            self._ended(lane, [each for each, task in tasks.items() if task.state.terminal])
        except Exception as error:
            if isinstance(error, StoreUnavailable) and not self._store.connection.clustered:
                raise  # it is away for all
            self._listener.leave([lane])
            self.waiters.fail(error, lane)
            return
        for unknown in (each for each in ids if each not in tasks):
            said = f"{unknown!r} is not tracked for the service {lane.service!r}; submit it first."
            self.waiters.fail(SubmissionError(said), lane, [unknown])
        self.waiters.checked(lane, ids)

    def _tell(self, entries: Iterable[Entry]) -> None:
        """Tell all who wait what has ended."""
        found: dict[Lane, dict[str, None]] = defaultdict(dict)
        for entry in entries:
            found[entry.lane][entry.id] = None
        wanted = {lane: self.waiters.wanted(lane, ids) for lane, ids in found.items()}
        for lane, ids in _runs(wanted):
            self._ended(lane, ids)
        self.waiters.stirred(found)

    def _ended(self, lane: Lane, ids: Sequence[str]) -> None:
        """Read the records of ended ids, and hand them to all who wait for them."""
        tasks = self._store.tasks.load(lane, ids, with_record=True).tasks.values()
        self.waiters.ended(lane, [task for task in tasks if task.state.terminal])


def _runs(wanted: Mapping[Lane, Iterable[str]]) -> Iterator[Run]:
    """The ids of each lane, in runs that are read at once."""
    for lane, ids in wanted.items():
        listed = [*ids]
        for start in range(0, len(listed), _AT_ONCE):
            yield lane, listed[start : start + _AT_ONCE]
