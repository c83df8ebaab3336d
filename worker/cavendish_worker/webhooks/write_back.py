"""What came of attempts, written down: delivered, later, or dead."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cavendish.model import Lane
from cavendish.policy import backoff
from cavendish.store import Store
from cavendish.store.deliveries import Attempt, Delivery, RetryAt
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.webhooks.attempt import Attempted
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind, log_with

#: Seconds until the next try when the fault is our own; no try is charged for it.
OWN_FAULT_WAIT = 30.0
#: Seconds after its end at which even such a try is charged: what polls like a fault of ours may
#: lie with a single endpoint.
OWN_FAULT_LASTS = 2 * backoff.WEBHOOK_WINDOW
_UNCHARGED = (ResultKind.OURS, ResultKind.UNSENT)


@dataclass(slots=True)
class Delivered:
    """What came of one round, in numbers.

    `more`: it took nothing new for the time being, although more is pending.
    """

    delivered: int = 0
    later: int = 0
    buried: int = 0
    more: bool = False

    def __str__(self) -> str:
        total = self.delivered + self.later + self.buried
        return (
            f"{self.delivered} delivered · {self.later} later · {self.buried} buried"
            if total
            else "nothing pending"
        )


@dataclass(slots=True)
class WriteBack:
    """Writes for one round, under the token of its leases; counts in `did` what was still ours."""

    store: Store
    token: str
    retention: float
    dead_retention: float
    did: Delivered = field(default_factory=Delivered)

    def write(self, attempts: Sequence[Attempted], now: float) -> None:
        """Write down attempts of any lanes.

        Raises BookUnavailable; to write the same again does no harm.
        """
        by_lane: dict[Lane, list[Attempted]] = defaultdict(list)
        for attempted in attempts:
            by_lane[attempted.delivery.lane].append(attempted)
        for lane, some in by_lane.items():
            self._write(lane, some, now)

    def _write(self, lane: Lane, some: Sequence[Attempted], now: float) -> None:
        delivered, later, dead, log = (
            list[Attempt](),
            list[RetryAt](),
            list[Attempt](),
            logger().bind(lane=str(lane)),
        )
        for attempted in some:
            delivery, result = attempted.delivery, _charged(attempted, now)
            written = (
                delivery.log if result.kind is ResultKind.UNSENT else log_with(delivery.log, result)
            )
            if result.kind is ResultKind.DELIVERED:
                delivered.append(Attempt(delivery.name, result.outcome, written))
                continue
            wait = None if result.kind is ResultKind.REFUSED else _wait(delivery, result)
            about = {
                "id": delivery.task_id,
                "endpoint": delivery.endpoint,
                "attempts": delivery.attempts + (result.kind not in _UNCHARGED),
            }
            if wait is None:
                outcome = result.outcome + (
                    "; all attempts are used up" if result.kind is ResultKind.LATER else ""
                )
                dead.append(Attempt(delivery.name, outcome, written))
                log.error("webhook.buried", **about, outcome=outcome)
            else:
                later.append(
                    RetryAt(
                        delivery.name,
                        result.outcome,
                        written,
                        now + wait,
                        result.kind is ResultKind.LATER,
                    )
                )
                log.warning(
                    "webhook.retry_later", **about, seconds=round(wait), outcome=result.outcome
                )
        if delivered:
            ours = self.store.deliveries.delivered(lane, self.token, now, delivered, self.retention)
            self.did.delivered += ours
            log.info("webhook.delivered", ids=ours)
        if later:
            self.did.later += self.store.deliveries.later(lane, self.token, later)
        if dead:
            self.did.buried += self.store.deliveries.bury(
                lane, self.token, now, dead, self.dead_retention
            )


def _charged(attempted: Attempted, now: float) -> AttemptResult:
    lasting = (
        attempted.result.kind is ResultKind.OURS
        and not attempted.result.disable
        and now - attempted.since > OWN_FAULT_LASTS
    )
    return replace(attempted.result, kind=ResultKind.LATER) if lasting else attempted.result


def _wait(delivery: Delivery, result: AttemptResult) -> float | None:
    if (
        result.disable or result.kind is ResultKind.UNSENT
    ):  # the first waits until its endpoint is enabled, and goes first then
        return 0.0
    if result.kind is ResultKind.OURS:
        return OWN_FAULT_WAIT
    return backoff.webhook(delivery.attempts + 1, result.retry_after, random.random())
