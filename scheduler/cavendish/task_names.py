"""The names of the Celery tasks, and what beat sends how often."""

from __future__ import annotations

from dataclasses import dataclass

from cavendish.settings import Settings

SUBMIT = "cavendish.submit"
DISPATCH = "cavendish.dispatch"
RETRIEVE = "cavendish.retrieve"
DELIVER = "cavendish.deliver"
EXPIRE = "cavendish.expire"
RECONCILE = "cavendish.reconcile"

#: Each Celery task has a queue of its own name, so that it can be given workers of its own.
QUEUES = (SUBMIT, DISPATCH, RETRIEVE, DELIVER, EXPIRE, RECONCILE)
#: Tasks that are sent only while ids are pending.
FOR_PENDING = frozenset((DISPATCH, EXPIRE))


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the beat schedule: a task, and the seconds between its messages."""

    task: str
    every: float


def beat_schedule(settings: Settings) -> tuple[Entry, ...]:
    """What beat sends. Deliveries are sent by whoever settles; beat only repeats what was lost."""
    return (
        Entry(DISPATCH, settings.tick),
        Entry(DELIVER, 15.0),
        Entry(EXPIRE, 5.0),
        Entry(RECONCILE, 60.0),
    )
