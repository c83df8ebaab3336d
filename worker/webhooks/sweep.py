"""The net under all webhooks: what should be owed and lies in no queue is owed again, whatever the cause."""

from __future__ import annotations

import time
from dataclasses import dataclass

from scheduler.store import Book
from scheduler.tracking import OPERATIONS
from worker.logs import logger
from worker.webhooks import notices

#: Ended ids that are looked at at once, and seconds that a sweep gives each lane; the next goes on behind them, and begins
#: anew at the end. What is forgotten leaves the list of ended ids only here, so a sweep must keep pace with what ends.
PAGE, LASTS = 2000, 2.0


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found."""

    reowed: int = 0

    def __str__(self) -> str:
        return f"{self.reowed} owed again" if self.reowed else "nothing missing"


def sweep(book: Book, operations: str, dead_retention: float) -> Swept:
    """Compare what has ended with what is owed, paid or dead, and forget old dead letters. Raises BookUnavailable."""
    now, reowed = book.fleet.now(), 0
    for lane in [*book.tasks.lanes(), OPERATIONS]:
        missing, until = list[str](), time.monotonic() + LASTS
        for page in range(book.debts.to_sweep(lane) // PAGE + 1):
            if page == 0 or time.monotonic() < until:
                missing += book.debts.reowe(lane, now, PAGE)
        if missing:
            logger().warning("webhook.reowed", lane=str(lane), ids=len(missing), first=missing[0])
            reowed += len(missing)
        book.debts.forget_dead(lane, now - dead_retention)
    for endpoint, why in book.endpoints.disabled().items():
        notices.disabled(book, operations, endpoint, why, now)
    return Swept(reowed)
