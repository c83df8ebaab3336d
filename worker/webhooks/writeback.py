"""What came of tries, written down: paid, later, or dead."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from scheduler import backoff
from scheduler.store import Book
from scheduler.store.debts import Debt, Later, Try
from scheduler.tracking import Lane
from worker.logs import logger
from worker.receipts import Fate, Receipt, log_with
from worker.webhooks.sending import Tried

#: Seconds until the next try when the fault is our own; no try is charged for it.
OWN_FAULT_WAIT = 30.0
#: Seconds after its end at which even such a try is charged: what looks like a fault of ours may lie with a single endpoint.
OWN_FAULT_LASTS = 2 * backoff.WEBHOOK_WINDOW
_UNCHARGED = (Fate.OURS, Fate.UNSENT)


@dataclass(slots=True)
class Delivered:
    """What came of one round, in numbers. `more`: it took nothing new for the time being, although more is owed."""

    paid: int = 0
    later: int = 0
    buried: int = 0
    more: bool = False

    def __str__(self) -> str:
        total = self.paid + self.later + self.buried
        return f"{self.paid} paid · {self.later} later · {self.buried} buried" if total else "nothing owed"


@dataclass(slots=True)
class WriteBack:
    """Writes for one round, under the token of its leases; counts in `did` what was still ours."""

    book: Book
    token: str
    retention: float
    dead_retention: float
    did: Delivered = field(default_factory=Delivered)

    def write(self, tries: Sequence[Tried], now: float) -> None:
        """Write down tries of any lanes. Raises BookUnavailable; to write the same again does no harm."""
        by_lane: dict[Lane, list[Tried]] = defaultdict(list)
        for tried in tries:
            by_lane[tried.debt.lane].append(tried)
        for lane, some in by_lane.items():
            self._write(lane, some, now)

    def _write(self, lane: Lane, some: Sequence[Tried], now: float) -> None:
        paid, later, dead, log = list[Try](), list[Later](), list[Try](), logger().bind(lane=str(lane))
        for tried in some:
            debt, receipt = tried.debt, _charged(tried, now)
            written = debt.log if receipt.fate is Fate.UNSENT else log_with(debt.log, receipt)
            if receipt.fate is Fate.PAID:
                paid.append(Try(debt.name, receipt.outcome, written))
                continue
            wait = None if receipt.fate is Fate.REFUSED else _wait(debt, receipt)
            about = {"id": debt.task_id, "endpoint": debt.endpoint, "tries": debt.tries + (receipt.fate not in _UNCHARGED)}
            if wait is None:
                outcome = receipt.outcome + ("; all tries are used up" if receipt.fate is Fate.LATER else "")
                dead.append(Try(debt.name, outcome, written))
                log.error("webhook.buried", **about, outcome=outcome)
            else:
                later.append(Later(debt.name, receipt.outcome, written, now + wait, receipt.fate is Fate.LATER))
                log.warning("webhook.later", **about, seconds=round(wait), outcome=receipt.outcome)
        if paid:
            ours = self.book.debts.paid(lane, self.token, now, paid, self.retention)
            self.did.paid += ours
            log.info("webhook.paid", ids=ours)
        if later:
            self.did.later += self.book.debts.later(lane, self.token, later)
        if dead:
            self.did.buried += self.book.debts.bury(lane, self.token, now, dead, self.dead_retention)


def _charged(tried: Tried, now: float) -> Receipt:
    lasting = tried.receipt.fate is Fate.OURS and not tried.receipt.disable and now - tried.since > OWN_FAULT_LASTS
    return replace(tried.receipt, fate=Fate.LATER) if lasting else tried.receipt


def _wait(debt: Debt, receipt: Receipt) -> float | None:
    if receipt.disable or receipt.fate is Fate.UNSENT:  # the first waits until its endpoint is enabled, and goes first then
        return 0.0
    if receipt.fate is Fate.OURS:
        return OWN_FAULT_WAIT
    return backoff.webhook(debt.tries + 1, receipt.retry_after, random.random())
