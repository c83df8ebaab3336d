"""Beat's scheduler: it uses the monotonic clock, and sends no message that would be useless.

A message is useless while no worker lives, while there is nothing to do, a tick also while nothing
is due, or while the one before it
still waits in its queue. So messages do not pile up, also where all threads are busy, and need no
`expires`, which would be compared with the clock of another machine. A late message is cheap and
harmless.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery.beat import ScheduleEntry, Scheduler

from cavendish.clock import Clock
from cavendish.errors import StoreUnavailable
from cavendish.store import Store
from cavendish.task_names import DISPATCH, FOR_PENDING, beat_schedule
from cavendish_worker.runtime import get_runtime
from cavendish_worker.telemetry.logs import logger

#: Seconds for which a yes and a no are used. The first poll of an id is due at the earliest one
#: second after its submit.
ALIVE_FOR, DEAD_FOR = 2.0, 1.0
BUSY_FOR, IDLE_FOR = 1.0, 0.5
#: Seconds after which a message that no worker took is given up; and at most, as the time doubles.
PATIENCE, LONGEST_PATIENCE = 2.0, 60.0
#: Accounts of which beat asks whether anything is due; of more it is not worth the question.
ASKED = 8


class CachedAnswer:
    """A yes or no that is asked for again only after a while; no while the store is away."""

    def __init__(self, ask: Callable[[], bool], yes_for: float, no_for: float) -> None:
        self._ask, self._yes_for, self._no_for = ask, yes_for, no_for
        self._answer, self._until = False, float("-inf")

    def __bool__(self) -> bool:
        if time.monotonic() >= self._until:
            try:
                self._answer = False
                self._answer = self._ask()
            finally:
                self._until = time.monotonic() + (self._yes_for if self._answer else self._no_for)
        return self._answer


class Watch:
    """Asks the store whether a message is useful; a tick is, if something is due within it."""

    def __init__(self, store: Store, tick: float = 1.0) -> None:
        self._store, self._away, self._tick = store, False, tick
        self._clock = Clock(0.0, 0.0)
        self._worker_alive = CachedAnswer(self._is_worker_alive, ALIVE_FOR, DEAD_FOR)
        self._pending = CachedAnswer(store.deadlines.anything_pending, BUSY_FOR, IDLE_FOR)

    def useful(self, task: str) -> bool:
        """True if a worker would get a message for this Celery task, and would find work."""
        try:
            if not self._worker_alive or (task in FOR_PENDING and not self._pending):
                return False
            return task != DISPATCH or self._is_anything_due()
        except Exception as error:  # whatever it is, beat must go on
            if not self._away:
                away = isinstance(error, StoreUnavailable)
                logger().warning("beat.waits", outcome=str(error) if away else repr(error))
            self._away = True
            return False

    def _is_worker_alive(self) -> bool:
        fleet, self._clock = self._store.fleet, self._store.clock()
        now = self._clock.now()
        living = [member.role == "worker" and member.alive(now) for member in fleet.members(now)]
        if self._away:
            logger().info("beat.continues")
        self._away = False
        return any(living)

    def _is_anything_due(self) -> bool:
        """True if a check of a lane is due within a tick, and its account may be polled then."""
        now, tasks = self._clock.now(), self._store.tasks
        accounts = [account for account, _ in self._store.deadlines.index.groups()]
        return len(accounts) > ASKED or any(
            (first_at := tasks.due(account).first_at()) is not None
            and first_at <= now + self._tick
            and self._store.shared_state.rate_limit(account).paused_until <= now + self._tick
            and not self._store.controls.known().account_pause(account, now + self._tick)
            for account in accounts
        )


class Messages:
    """Keeps beat from sending a message while the one before it waits in its queue.

    A message may be lost with a worker, so another one is sent after a while; after twice that
    while if that one is not taken either, and so on.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        #: By task: when beat last sent a message, and for how many seconds it then waits.
        self._sent: dict[str, tuple[float, float]] = {}

    def may_send(self, task: str) -> bool:
        """True if the last message for this Celery task was taken, or is given up."""
        at, patience = self._sent.get(task, (time.monotonic(), 0.0))
        given_up = patience > 0 and time.monotonic() - at >= patience
        patience = min(2 * patience, LONGEST_PATIENCE) if given_up else PATIENCE
        with suppress(StoreUnavailable):
            if self._store.fleet.may_send(task, patience):
                self._sent[task] = time.monotonic(), patience
                return True
        return False


class BeatScheduler(Scheduler):
    """Celery's plain scheduler, but a wall clock that is set back does not stop it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._every = {entry.task: entry.every for entry in beat_schedule(get_runtime().settings)}
        self._next: dict[str, float] = {}
        self._watch, self._messages = (
            Watch(get_runtime().store, get_runtime().settings.tick),
            Messages(get_runtime().store),
        )

    def tick(self, *_: Any, **__: Any) -> float:
        """Send what is due; returns the seconds until the next entry is due."""
        for name, every in self._every.items():
            now = time.monotonic()
            if now >= (due := self._next.get(name, now)):
                self._next[name] = max(due + every, now)  # missed ticks are not made up
                self.apply_entry(self.schedule[name])
        return max(min(self._next.values()) - time.monotonic(), 0.0)

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        """Send the message of an entry, if it is useful."""
        if self._watch.useful(str(entry.task)) and self._messages.may_send(str(entry.task)):
            super().apply_entry(entry, producer=producer or self.producer)
