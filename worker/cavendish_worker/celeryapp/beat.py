"""Beat's scheduler: the beat schedule by the steady clock, and no message that nobody would hear or
that would find nothing to do.

Messages carry no `expires`: that would be judged by the clock of another machine. A late message is
cheap and harmless instead, and since beat sends nothing while no worker lives, none pile up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery.beat import ScheduleEntry, Scheduler

from cavendish.errors import StoreUnavailable
from cavendish.store import Store
from cavendish.task_names import FOR_PENDING, beat_schedule
from cavendish_worker.runtime import get_runtime
from cavendish_worker.telemetry.logs import logger

#: Seconds for which a yes and a no are believed. A first poll is due a second after its submit at
#: the earliest.
HEARD_FOR, UNHEARD_FOR = 2.0, 1.0
BUSY_FOR, IDLE_FOR = 1.0, 0.5


class Known:
    """A yes or no that is asked for anew only after a while.

    While the store is away the answer is no.
    """

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
    """What beat must know of the store before it sends anything."""

    def __init__(self, store: Store) -> None:
        self._store, self._away = store, False
        self._heard = Known(self._is_heard, HEARD_FOR, UNHEARD_FOR)
        self._pending = Known(store.tasks.anything_pending, BUSY_FOR, IDLE_FOR)

    def worth(self, task: str) -> bool:
        """True if a message for this Celery task would be heard, and would find something to do."""
        try:
            return bool(self._heard) and (task not in FOR_PENDING or bool(self._pending))
        except Exception as error:  # whatever it is, beat must not end of it
            if not self._away:
                logger().warning(
                    "beat.waits",
                    outcome=f"{error}" if isinstance(error, StoreUnavailable) else repr(error),
                )
            self._away = True
            return False

    def _is_heard(self) -> bool:
        fleet = self._store.fleet
        now = fleet.now()
        living = [member.role == "worker" and member.alive(now) for member in fleet.members(now)]
        if self._away:
            logger().info("beat.goes_on")
        self._away = False
        return any(living)


class BeatScheduler(Scheduler):
    """Celery's plain scheduler, but its times are steady.

    A wall clock that is set back does not stop it.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._every = {line.task: line.every for line in beat_schedule(get_runtime().settings)}
        self._next: dict[str, float] = {}
        self._watch = Watch(get_runtime().store)

    def tick(self, *_: Any, **__: Any) -> float:
        """Fire what is due; returns the seconds until the next entry is."""
        for name, every in self._every.items():
            now = time.monotonic()
            if now >= (due := self._next.get(name, now)):
                self._next[name] = max(due + every, now)  # what was missed is not made up for
                self.apply_entry(self.schedule[name])
        return max(min(self._next.values()) - time.monotonic(), 0.0)

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        """Send the message of an entry, if it is worth it."""
        if self._watch.worth(str(entry.task)):
            super().apply_entry(entry, producer=producer or self.producer)
