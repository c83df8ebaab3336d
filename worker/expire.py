"""The net under every deadline: ids that no look could settle, because the API could not be asked, expire."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from scheduler.clock import Clock
from scheduler.store import Book
from scheduler.tracking import Lane, State
from scheduler.verdicts import Outcome
from worker.logs import logger

AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Knobs:
    """What an expiry needs of the settings; seconds and numbers."""

    last_look: float
    retention: float
    events_kept: int


def expire_overdue(book: Book, lane: Lane, clock: Clock, knobs: Knobs) -> tuple[int, list[str]]:
    """Expire ids whose deadline passed more than `last_look` seconds ago. Returns how many, and the debts now owed."""
    now, token = clock.now(), secrets.token_hex(8)
    ids = book.tasks.overdue(lane, now - knobs.last_look, token, AT_ONCE)
    if not ids:
        return 0, []
    loaded = book.tasks.load(lane, ids, token=token)
    if loaded.unreadable:
        book.tasks.set_aside(lane, loaded.unreadable)
    pace = book.learned.pace(lane.account)
    because = pace.hold_reason if pace.held(now) else book.learned.condition(lane).reason
    why = "the deadline passed and the API could not be asked" + (f": {because}" if because else "")
    outcomes = [(Outcome(task, State.EXPIRED, why), now) for task in loaded.tasks.values()]
    settled = book.tasks.settle(lane, token, now, outcomes, knobs.retention, knobs.events_kept)
    ended = sum(one.ended for one in settled)
    logger().warning("task.expired", lane=str(lane), ids=ended, outcome=why)
    return ended, [debt for one in settled for debt in one.debts]
