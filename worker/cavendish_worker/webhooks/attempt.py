"""Makes one delivery attempt: decides whether and what to send, sends it, returns the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cavendish.clock import Clock
from cavendish.model import GROUPS, OPERATIONS, Lane, TrackedTask
from cavendish.store.delivery_reader import Delivery
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.metrics import recorded
from cavendish_worker.telemetry.tracing import traces
from cavendish_worker.webhooks import payload
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind
from cavendish_worker.webhooks.endpoint_cache import EndpointCache
from cavendish_worker.webhooks.post import post


@dataclass(frozen=True, slots=True)
class FinishedAttempt:
    """A delivery with the result of its attempt.

    `since`: when the delivery became pending, in seconds since the epoch; `trusted`: whether its
    endpoint was trusted when it was claimed.
    """

    delivery: Delivery
    since: float
    result: AttemptResult
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends for one delivery loop.

    `patience`: seconds after its claim at which a delivery is no longer sent, since its lease ends
    soon. `result_lifetime`: by service, as `payload.body` needs it.
    """

    transport: PooledTransport
    endpoint_cache: EndpointCache
    clock: Clock
    timeout: float
    patience: float
    result_lifetime: Callable[[str], float | None]
    shutdown_deadline: ShutdownDeadline

    async def send(
        self, delivery: Delivery, task: TrackedTask | None, claimed_at: float, *, trusted: bool
    ) -> FinishedAttempt:
        """Attempt one delivery. Raises nothing: every error is a result too."""
        now = self.clock.now()
        try:
            result = await self._result(delivery, task, claimed_at, now)
        except Exception as error:  # a bug of ours must cost neither the delivery nor its endpoint
            name = type(error).__name__
            logger().exception("webhook.broken", id=delivery.task_id, outcome=name)
            result = AttemptResult(ResultKind.OUR_FAULT, f"{name} of our own", sent_at=now)
        recorded.attempted(delivery, task, result)
        since = now if task is None else task.settled_at or now
        return FinishedAttempt(delivery, since, result, trusted)

    async def _result(
        self, delivery: Delivery, task: TrackedTask | None, claimed_at: float, now: float
    ) -> AttemptResult:
        def no_call(kind: ResultKind, why: str) -> AttemptResult:
            return AttemptResult(kind, why, sent_at=now)

        if task is None:
            why = "the task of this delivery can no longer be read in the store"
            return no_call(ResultKind.REJECTED, why)
        if not task.state.terminal:
            why = "the task of this delivery has not ended: its id was submitted again"
            return no_call(ResultKind.REJECTED, why)
        kind = payload.kind_of(delivery.lane, task)
        if not self.endpoint_cache.chooses(delivery.endpoint, kind):
            why = f"not sent: {delivery.endpoint} does not choose {kind}"
            return no_call(ResultKind.SKIPPED, why)
        if self.shutdown_deadline.in_force:
            return no_call(ResultKind.NOT_SENT, "not sent: this worker shuts down")
        if now - claimed_at > self.patience:
            return no_call(ResultKind.NOT_SENT, "not sent: no call was free in time")
        target = self.endpoint_cache.target(delivery, now)
        if target.complaint:
            kind = ResultKind.REJECTED if target.gone else ResultKind.OUR_FAULT
            return no_call(kind, target.complaint)
        name, body = self._message(delivery.lane, task, now)
        with traces().delivery(task) as (trace, told):
            result = await post(
                self.transport, target, name, body, now, self.timeout, self.shutdown_deadline, trace
            )
            told(result)
        return result

    def _message(self, lane: Lane, task: TrackedTask, now: float) -> tuple[str, bytes]:
        """The webhook-id and the body; an operator alert is stored as it is sent."""
        if lane == OPERATIONS:
            return task.id, (task.record_json or "").encode()
        if lane.service == GROUPS:
            return payload.group_id(task), payload.group_body(task)
        lifetime = self.result_lifetime(task.service)
        return payload.webhook_id(task), payload.body(task, now=now, result_lifetime=lifetime)
