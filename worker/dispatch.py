"""One tick of the dispatch: ask the pace first, then claim what is most worth a look, and send it as batches.

A tick drains for its slot of time: it waits for the pace and claims at the last moment, so a claim is never
older than the call it is for. Any number of beats may fire; one tick runs in each slot.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scheduler.clock import Clock
from scheduler.pace import Pace, acquire
from scheduler.store import Book
from scheduler.tracking import Lane

#: Sends one claimed batch on its way: lane, ids, lease token.
Send = Callable[[Lane, list[str], str], None]

#: Shortest and longest sleep between two rounds of a drain, in seconds.
_SHORT, _LONG = 0.005, 0.1


@dataclass(frozen=True, slots=True)
class Knobs:
    """What a dispatch needs of the settings; seconds and ids."""

    tick: float
    batch_size: int
    lease: float
    rate: float


@dataclass(slots=True)
class Drained:
    """What one tick sent."""

    batches: int = 0
    ids: int = 0

    def __str__(self) -> str:
        return f"{self.batches} batches · {self.ids} ids" if self.batches else "nothing due"


def drain(book: Book, accounts: Iterable[str], knobs: Knobs, clock: Clock, send: Send) -> Drained | None:
    """Run one tick; None if another dispatch has this slot. Raises BookUnavailable."""
    started = clock.now()
    if not book.fleet.take_tick(started, knobs.tick):
        return None
    drained, usable = Drained(), frozenset(accounts)
    until = (int(started / knobs.tick) + 1) * knobs.tick
    while (now := clock.now()) < until:
        wait = _round(book, usable, knobs, now, send, drained)
        if wait >= until - now:
            break
        time.sleep(min(max(wait, _SHORT), _LONG))
    return drained


def _round(book: Book, accounts: frozenset[str], knobs: Knobs, now: float, send: Send, drained: Drained) -> float:
    """Send at most one batch for each lane that may be asked; returns the seconds until another could be sent."""
    lanes = [lane for lane in book.tasks.lanes() if lane.account in accounts]
    due = book.tasks.due(lanes, now)
    wait = _LONG
    for lane in sorted((lane for lane in lanes if due[lane]), key=lambda lane: -due[lane]):
        condition = book.learned.condition(lane)
        if now < condition.down_until:
            continue
        turn = book.learned.change_pace(lane.account, lambda pace: _take(pace, now, knobs.rate))
        wait = min(wait, turn)
        if turn > 0:
            continue
        token = secrets.token_hex(8)
        ids = book.tasks.claim(lane, now, now + knobs.lease, token, condition.batch_size(knobs.batch_size))
        if ids:
            send(lane, ids, token)
            drained.batches += 1
            drained.ids += len(ids)
    return wait


def _take(pace: Pace, now: float, ceiling: float) -> tuple[Pace, float]:
    return acquire(pace, now, ceiling)
