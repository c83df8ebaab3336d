"""Writes back what came of delivery attempts: delivered, skipped, to retry, or a dead letter."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cavendish.model import Lane
from cavendish.policy import backoff
from cavendish.store import Store
from cavendish.store.deliveries import Attempt, RetryAt
from cavendish.store.delivery_reader import Delivery
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.webhooks.attempt import FinishedAttempt
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind, log_with

#: Seconds until the next attempt after a fault of ours, which does not count as an attempt.
OUR_FAULT_WAIT = 30.0
#: Seconds since the task ended after which such an attempt counts too: what seems to be our fault
#: may be the fault of a single endpoint.
OUR_FAULT_LASTS = 2 * backoff.WEBHOOK_WINDOW
_UNCOUNTED = (ResultKind.OUR_FAULT, ResultKind.NOT_SENT)
#: Seconds before each attempt of a delivery, by its endpoint.
Waits = Callable[[str], Sequence[float]]


@dataclass(slots=True)
class Delivered:
    """What came of one delivery loop, in numbers of deliveries.

    `more`: the loop ended although more deliveries are pending.
    """

    delivered: int = 0
    retries: int = 0
    buried: int = 0
    skipped: int = 0
    more: bool = False

    def __str__(self) -> str:
        """What Flower shows."""
        if not self.delivered + self.retries + self.buried + self.skipped:
            return "nothing pending"
        said = f"{self.delivered} delivered · {self.retries} to retry · {self.buried} buried"
        return said + (f" · {self.skipped} skipped" if self.skipped else "")


@dataclass(slots=True)
class WriteBack:
    """Writes for one delivery loop, under the token of its leases.

    `waits`: how the deliveries of an endpoint are tried again. `did` counts the deliveries whose
    lease was still ours.
    """

    store: Store
    token: str
    retention: float
    dead_retention: float
    waits: Waits
    did: Delivered = field(default_factory=Delivered)

    def write(self, attempts: Sequence[FinishedAttempt], now: float) -> None:
        """Write attempts of any lanes. To write the same again does no harm.

        Raises StoreUnavailable.
        """
        by_lane: dict[Lane, list[FinishedAttempt]] = defaultdict(list)
        for attempt in attempts:
            by_lane[attempt.delivery.lane].append(attempt)
        for lane, some in by_lane.items():
            self._write(lane, some, now)

    def _write(self, lane: Lane, some: Sequence[FinishedAttempt], now: float) -> None:
        delivered, skipped = list[Attempt](), list[Attempt]()
        retries, dead = list[RetryAt](), list[Attempt]()
        for attempt in some:
            result = _counted(attempt, now)
            written = _written(attempt.delivery, result, now, self.waits)
            if result.kind is ResultKind.DELIVERED:
                delivered.append(written)
            elif result.kind is ResultKind.SKIPPED:
                skipped.append(written)
            elif isinstance(written, RetryAt):
                retries.append(written)
            else:
                dead.append(written)
        deliveries = self.store.deliveries
        if delivered:
            count = deliveries.delivered(lane, self.token, now, delivered, self.retention)
            self.did.delivered += count
            logger().info("webhook.delivered", lane=str(lane), ids=count)
        if skipped:
            self.did.skipped += deliveries.skip(lane, self.token, now, skipped, self.retention)
        if retries:
            self.did.retries += deliveries.later(lane, self.token, now, retries)
        if dead:
            self.did.buried += deliveries.bury(lane, self.token, now, dead, self.dead_retention)


def _written(delivery: Delivery, result: AttemptResult, now: float, waits: Waits) -> Attempt:
    """What is written of an attempt: a RetryAt where another one follows. Logs each failure."""
    log = delivery.log
    if result.kind not in (ResultKind.NOT_SENT, ResultKind.SKIPPED):
        log = log_with(log, result)
    if result.kind in (ResultKind.DELIVERED, ResultKind.SKIPPED):
        return Attempt(delivery.name, result.outcome, log)
    wait = None if result.kind is ResultKind.REJECTED else _wait(delivery, result, waits)
    about = logger().bind(
        lane=str(delivery.lane),
        id=delivery.task_id,
        endpoint=delivery.endpoint,
        attempts=delivery.attempts + (result.kind not in _UNCOUNTED),
    )
    if wait is not None:
        about.warning("webhook.retry_later", seconds=round(wait), outcome=result.outcome)
        counted = result.kind is ResultKind.RETRY
        return RetryAt(delivery.name, result.outcome, log, now + wait, counted)
    used_up = "; all attempts are used up" if result.kind is ResultKind.RETRY else ""
    about.error("webhook.buried", outcome=result.outcome + used_up)
    return Attempt(delivery.name, result.outcome + used_up, log)


def _counted(attempt: FinishedAttempt, now: float) -> AttemptResult:
    """The result, as a failure of the endpoint where a fault of ours has lasted too long."""
    result = attempt.result
    lasting = now - attempt.since > OUR_FAULT_LASTS and not result.disable
    if result.kind is ResultKind.OUR_FAULT and lasting:
        return replace(result, kind=ResultKind.RETRY)
    return result


def _wait(delivery: Delivery, result: AttemptResult, waits: Waits) -> float | None:
    """Seconds until the next attempt; None if all attempts are used up."""
    if result.disable or result.kind is ResultKind.NOT_SENT:
        return 0.0  # a disabled endpoint is not visited; once enabled, this delivery goes first
    if result.kind is ResultKind.OUR_FAULT:
        return OUR_FAULT_WAIT
    schedule, attempts = waits(delivery.endpoint), delivery.attempts + 1
    return backoff.webhook(attempts, result.retry_after, random.random(), schedule)
