"""What is sent for one claimed delivery, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import httpx

from cavendish.clock import Clock
from cavendish.model import OPERATIONS, Lane, TrackedTask, compact
from cavendish.store.deliveries import Delivery
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.metrics import recorded
from cavendish_worker.telemetry.tracing import traces
from cavendish_worker.webhooks import payload
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind
from cavendish_worker.webhooks.endpoint_cache import EndpointCache
from cavendish_worker.webhooks.post import post


@dataclass(frozen=True, slots=True)
class Attempted:
    """A delivery, since when it is pending, what its try met, and whether its endpoint was trusted
    when it was claimed.
    """

    delivery: Delivery
    since: float
    result: AttemptResult
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends for one round.

    `patience`: seconds after its claim at which a delivery is no longer sent, since its lease ends
    soon.
    """

    transport: httpx.AsyncBaseTransport
    endpoint_cache: EndpointCache
    clock: Clock
    timeout: float
    patience: float
    result_lifetime: Callable[[str], float | None]
    shutdown_deadline: ShutdownDeadline

    async def send(
        self, delivery: Delivery, task: TrackedTask | None, claimed_at: float, *, trusted: bool
    ) -> Attempted:
        """Try one delivery. Raises nothing: every error is a attempt result too."""
        now = self.clock.now()
        try:
            result = await self._result(delivery, task, claimed_at, now)
        except (
            Exception
        ) as error:  # a mistake of ours must cost neither the delivery nor its endpoint anything
            logger().exception("webhook.broken", id=delivery.task_id, outcome=type(error).__name__)
            result = AttemptResult(
                ResultKind.OURS, f"{type(error).__name__} of our own", sent_at=now
            )
        recorded.attempted(delivery, task, result)
        return Attempted(delivery, now if task is None else task.settled_at or now, result, trusted)

    async def _result(
        self, delivery: Delivery, task: TrackedTask | None, claimed_at: float, now: float
    ) -> AttemptResult:
        if task is None or not task.state.terminal:
            why = (
                "has not ended: its id is tracked anew"
                if task
                else "can no longer be read in the store"
            )
            return AttemptResult(ResultKind.REFUSED, f"what it announces {why}", sent_at=now)
        if self.shutdown_deadline.in_force:
            return AttemptResult(ResultKind.UNSENT, "not sent: this worker ends", sent_at=now)
        if now - claimed_at > self.patience:
            return AttemptResult(ResultKind.UNSENT, "no call was free in time", sent_at=now)
        target = self.endpoint_cache.target(delivery, now)
        if target.complaint:
            return AttemptResult(
                ResultKind.REFUSED if target.gone else ResultKind.OURS,
                target.complaint,
                sent_at=now,
            )
        name, body = self._said(delivery.lane, task, now)
        with traces().delivery(task) as (trace, told):
            result = await post(
                self.transport, target, name, body, now, self.timeout, self.shutdown_deadline, trace
            )
            told(result)
        return result

    def _said(self, lane: Lane, task: TrackedTask, now: float) -> tuple[str, bytes]:
        """The webhook-id and the body: a notice of our own is stored as it is sent."""
        if lane == OPERATIONS:
            return task.id, compact(task.record).encode()
        lifetime = self.result_lifetime(task.service)
        return payload.webhook_id(task), payload.body(task, now=now, result_lifetime=lifetime)
