"""One tick of the dispatch: ask the pace first, then claim what is most worth a look, and send it as batches.

A batch is sent when its ids together are worth the price of a call: the price is low while calls are plentiful and
rises with the share of the pace that is used, so near the limit calls wait until they find more.

A tick drains until the next one comes: it waits for the pace and claims at the last moment, so a claim is never
older than the call it is for. Any number of beats may fire: a tick is taken once.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scheduler.clock import Clock
from scheduler.forecast import Forecasts
from scheduler.law import call_price
from scheduler.pace import acquire
from scheduler.share import fair_share
from scheduler.store import Book
from scheduler.tracking import Candidate, Lane

#: Sends one claimed batch on its way: lane, ids, lease token.
Send = Callable[[Lane, list[str], str], None]

#: Shortest sleep between two rounds of a drain, and the sleep while batches gain worth, in seconds.
_SHORT, _AGAIN = 0.005, 0.04
#: Seconds that a drain outlives its tick, so that a late next one leaves no gap: claims and pace are shared anyway.
_OVERLAP = 0.02


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


@dataclass(frozen=True, slots=True)
class Desk:
    """What a dispatch works with."""

    book: Book
    forecasts: Forecasts
    knobs: Knobs


def drain(desk: Desk, accounts: Iterable[str], clock: Clock, send: Send) -> Drained | None:
    """Run one tick; None if another dispatch has this tick. Raises BookUnavailable."""
    started, tick = clock.now(), desk.knobs.tick
    if not desk.book.fleet.take_tick(tick):
        return None
    drained, usable = Drained(), frozenset(accounts)
    until = started + tick + _OVERLAP  # as long as the next tick takes to come, wherever in its slot it falls
    while (now := clock.now()) < until:
        wait = run_round(desk, usable, now, send, drained)
        if wait >= until - now:
            break
        time.sleep(max(wait, _SHORT))
    return drained


def run_round(desk: Desk, accounts: frozenset[str], now: float, send: Send, drained: Drained) -> float:
    """Send at most one batch for each lane that is worth a call; returns the seconds until another could be."""
    wait = math.inf
    weighed: list[tuple[float, Lane, list[Candidate]]] = []
    for lane in desk.book.tasks.lanes():
        if lane.account not in accounts:
            continue
        pace, condition = desk.book.learned.pace(lane.account), desk.book.learned.condition(lane)
        blocked = max(acquire(pace, now, desk.knobs.rate)[1], condition.down_until - now)
        if blocked > 0:
            wait = min(wait, blocked)
            continue
        size = condition.batch_size(desk.knobs.batch_size)
        batch = fair_share(desk.book.tasks.candidates(lane, now, size), size, now)
        if not batch:
            continue
        wait = min(wait, _AGAIN)
        worth = desk.forecasts.worth(lane, batch, now)
        if worth >= call_price(pace.used_share(now)) or any(one.due <= now and one.deadline_at <= now for one in batch):
            weighed.append((worth, lane, batch))
    for _, lane, batch in sorted(weighed, key=lambda each: -each[0]):
        if desk.book.learned.change_pace(lane.account, lambda pace: acquire(pace, now, desk.knobs.rate)) == 0:
            token = secrets.token_hex(8)
            ids = desk.book.tasks.claim(lane, now + desk.knobs.lease, token, batch)
            if ids:
                try:
                    send(lane, ids, token)
                except Exception:  # the broker is away: nobody will ask, so let nobody wait for the lease
                    desk.book.tasks.release(lane, token, [one for one in batch if one.id in ids])
                    raise
                wait = 0.0
                drained.batches += 1
                drained.ids += len(ids)
    return wait
