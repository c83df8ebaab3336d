"""What is sent for one claimed debt, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import httpx

from scheduler.clock import Clock
from scheduler.store.debts import Debt
from scheduler.tracking import OPERATIONS, Lane, TrackedTask, compact
from worker.curfew import Curfew
from worker.logs import logger
from worker.metrics import recorded
from worker.receipts import Fate, Receipt
from worker.tracing import traces
from worker.webhooks import announcement
from worker.webhooks.directory import Directory
from worker.webhooks.post import post


@dataclass(frozen=True, slots=True)
class Tried:
    """A debt, since when it is owed, what its try met, and whether its endpoint was trusted when it was claimed."""

    debt: Debt
    since: float
    receipt: Receipt
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends for one round. `patience`: seconds after its claim at which a debt is no longer sent, since its lease ends soon."""

    transport: httpx.AsyncBaseTransport
    directory: Directory
    clock: Clock
    timeout: float
    patience: float
    result_lifetime: Callable[[str], float | None]
    curfew: Curfew

    async def send(self, debt: Debt, task: TrackedTask | None, claimed_at: float, *, trusted: bool) -> Tried:
        """Try one debt. Raises nothing: every error is a receipt too."""
        now = self.clock.now()
        try:
            receipt = await self._receipt(debt, task, claimed_at, now)
        except Exception as error:  # a mistake of ours must cost neither the debt nor its endpoint anything
            logger().exception("webhook.broken", id=debt.task_id, outcome=type(error).__name__)
            receipt = Receipt(Fate.OURS, f"{type(error).__name__} of our own", sent_at=now)
        recorded.tried(debt, task, receipt)
        return Tried(debt, now if task is None else task.settled_at or now, receipt, trusted)

    async def _receipt(self, debt: Debt, task: TrackedTask | None, claimed_at: float, now: float) -> Receipt:
        if task is None or not task.state.terminal:
            why = "has not ended: its id is tracked anew" if task else "can no longer be read in the book"
            return Receipt(Fate.REFUSED, f"what it announces {why}", sent_at=now)
        if self.curfew.in_force:
            return Receipt(Fate.UNSENT, "not sent: this worker ends", sent_at=now)
        if now - claimed_at > self.patience:
            return Receipt(Fate.UNSENT, "no call was free in time", sent_at=now)
        target = self.directory.target(debt, now)
        if target.complaint:
            return Receipt(Fate.REFUSED if target.gone else Fate.OURS, target.complaint, sent_at=now)
        name, body = self._said(debt.lane, task, now)
        with traces().delivery(task) as (trace, told):
            receipt = await post(self.transport, target, name, body, now, self.timeout, self.curfew, trace)
            told(receipt)
        return receipt

    def _said(self, lane: Lane, task: TrackedTask, now: float) -> tuple[str, bytes]:
        """The webhook-id and the body: a notice of our own is stored as it is sent."""
        if lane == OPERATIONS:
            return task.id, compact(task.record).encode()
        lifetime = self.result_lifetime(task.service)
        return announcement.webhook_id(task), announcement.body(task, now=now, result_lifetime=lifetime)
