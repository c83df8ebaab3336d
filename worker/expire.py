"""The net under every deadline: ids that no look could settle, because the API could not be asked, expire."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from scheduler.clock import Clock
from scheduler.errors import BookUnavailable
from scheduler.store import Book
from scheduler.tracking import Lane, State
from scheduler.verdicts import Outcome
from worker.logs import logger
from worker.metrics import recorded
from worker.tracing import traces

AT_ONCE = 500
#: Times `last_look` that an id may be late where the API can be asked.
PATIENCE = 10


@dataclass(frozen=True, slots=True)
class Knobs:
    """What an expiry needs of the settings; seconds and numbers."""

    last_look: float
    retention: float
    events_kept: int


def expire_lane(book: Book, lane: Lane, clock: Clock, knobs: Knobs) -> tuple[int, list[str]]:
    """`expire_overdue`, so that one lane that cannot be read does not stop the others."""
    try:
        return expire_overdue(book, lane, clock, knobs)
    except BookUnavailable:
        raise
    except Exception as error:
        logger().error("lane.unreadable", lane=str(lane), outcome=f"{type(error).__name__}: {error}"[:200])
        return 0, []


def expire_overdue(book: Book, lane: Lane, clock: Clock, knobs: Knobs) -> tuple[int, list[str]]:
    """Expire ids whose deadline passed more than `last_look` seconds ago. Returns how many, and the debts now owed.

    Where the API can be asked, a last look is on its way: the dispatch takes ids past their deadline before all others. Only
    ten times as late nothing is waited for any more.
    """
    now, token = clock.now(), secrets.token_hex(8)
    because = _obstacle(book, lane, now)
    before = now - knobs.last_look * (1 if because else PATIENCE)
    why = "the deadline passed and the API could not be asked" + (f": {because}" if because else " in time")
    ended, debts = 0, list[str]()
    while ids := book.tasks.overdue(lane, before, token, AT_ONCE):
        loaded = book.tasks.load(lane, ids, token=token)
        if loaded.unreadable:
            book.tasks.set_aside(lane, loaded.unreadable)
            recorded.set_aside(lane.service, len(loaded.unreadable))
        outcomes = [(Outcome(task, State.EXPIRED, why), now) for task in loaded.tasks.values() if not task.state.terminal]
        settled = book.tasks.settle(lane, token, now, outcomes, knobs.retention, knobs.events_kept)
        recorded.settled(lane.service, settled, [outcome for outcome, _ in outcomes], now)
        traces().looks(lane).settled(settled, [outcome for outcome, _ in outcomes])
        ended += sum(one.ended for one in settled)
        debts += [debt for one in settled for debt in one.debts]
        if not any(one.ended for one in settled):
            break
    if ended:
        logger().warning("task.expired", lane=str(lane), ids=ended, outcome=why)
    return ended, debts


def _obstacle(book: Book, lane: Lane, now: float) -> str:
    """Why this lane cannot be asked right now; empty if it can."""
    pace, condition = book.learned.pace(lane.account), book.learned.condition(lane)
    workers = [member for member in book.fleet.members(now) if member.role == "worker" and member.alive(now)]
    if workers and not any(lane.account in member.accounts for member in workers):
        return f"no worker has a token for the account {lane.account}"
    if pace.held(now):
        return pace.hold_reason
    return condition.reason if condition.failures else ""
