"""The beat schedule as data: what beat fires, and how often."""

from __future__ import annotations

from dataclasses import dataclass

from cavendish.settings import Settings

SUBMIT = "cavendish.submit"
DISPATCH = "cavendish.dispatch"
RETRIEVE = "cavendish.retrieve"
DELIVER = "cavendish.deliver"
EXPIRE = "cavendish.expire"
RECONCILE = "cavendish.reconcile"

#: Every Celery task has a queue of its own name, so that any of them can get workers of its own.
QUEUES = (SUBMIT, DISPATCH, RETRIEVE, DELIVER, EXPIRE, RECONCILE)
#: What is worth a message only while ids are pending.
FOR_PENDING = frozenset((DISPATCH, EXPIRE))


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the beat schedule, in seconds."""

    task: str
    every: float


def beat_schedule(settings: Settings) -> tuple[Entry, ...]:
    """What beat fires.

    Whoever settles calls the delivery worker; beat's call is for what was missed.
    """
    return (
        Entry(DISPATCH, settings.tick),
        Entry(DELIVER, 15.0),
        Entry(EXPIRE, 5.0),
        Entry(RECONCILE, 60.0),
    )
