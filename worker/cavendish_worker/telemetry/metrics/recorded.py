"""Counts what this worker process has done since it began.

One process has one registry: workers run threads, whatever `-P` says. Labels have few values:
services, and words of ours; never ids, URLs or texts from outside.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from cavendish.model import Answer, State, TrackedTask, UpstreamError
from cavendish.policy.verdicts import Outcome, Reading
from cavendish.store.delivery_reader import Delivery
from cavendish.store.tracked_tasks import Settled
from cavendish_worker.telemetry.metrics.families import Counter, Histogram
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind, delivered_before

#: Seconds, from a twentieth to an hour: how late a poll or a webhook is.
DELAYS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 15, 30, 60, 120, 300, 900, 3600)
#: Seconds that a call takes: those of the API end at CAVENDISH_CALL_TIMEOUT, webhooks at
#: CAVENDISH_WEBHOOK_TIMEOUT.
CALLS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60)
#: Ids in one call.
FILL = (1, 2, 5, 10, 20, 30, 40, 50, 75, 100, 200, 500, 1000)
#: Seconds that a task may take, and its announcement.
LIVES = (0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 24 * 3600, 76 * 3600)

POLLS = Counter(
    "cavendish_polls", "Polls of one id each, by their verdict.", ("service", "verdict")
)
POLL_LAG = Histogram(
    "cavendish_poll_lag_seconds",
    "From the time that an id was due for a poll to its claim.",
    DELAYS,
    ("service",),
)
CALLS_MADE = Counter(
    "cavendish_calls", "Calls to the remote API, by how they ended.", ("service", "outcome")
)
CALL_DURATION = Histogram(
    "cavendish_call_duration_seconds",
    "Length of a call to the remote API.",
    CALLS,
    ("service", "outcome"),
)
CALL_IDS = Histogram(
    "cavendish_call_ids", "Ids in one batch call to the remote API.", FILL, ("service",)
)
DETECTION_DELAY = Histogram(
    "cavendish_detection_delay_seconds",
    "From the finish that the remote API reports (or the submit, if that was later) to the settle.",
    DELAYS,
    ("service",),
)
ABSENCES = Counter(
    "cavendish_absences", "Confirmed polls that found an id absent or forbidden.", ("service",)
)
EXPIRED = Counter(
    "cavendish_expired", "Ids that this process ended because their deadline passed.", ("service",)
)
QUARANTINED = Counter(
    "cavendish_quarantined", "Records that could not be read and were quarantined.", ("service",)
)
MESSAGES_QUARANTINED = Counter(
    "cavendish_messages_quarantined",
    "Messages that were quarantined: workers died with them in work, or could not read them.",
)
REFUSED = Counter(
    "cavendish_refused",
    "Submits by message that were refused, as a whole or single ids of them, by what was wrong: "
    "service, endpoint, webhook, ids, quota, option.",
    ("kind",),
)
WEBHOOK_ATTEMPTS = Counter(
    "cavendish_webhook_attempts",
    "Attempts to deliver a webhook, by their result: delivered, retry, rejected (now dead), "
    "our_fault, not_sent, skipped (not chosen by its endpoint).",
    ("outcome",),
)
WEBHOOK_DURATION = Histogram(
    "cavendish_webhook_duration_seconds",
    "Length of a webhook call, with name lookup, connect and answer.",
    CALLS,
    ("outcome",),
)
WEBHOOK_DELAY = Histogram(
    "cavendish_webhook_delay_seconds",
    "From the settle of an id to the first attempt of its webhook.",
    DELAYS,
)
WEBHOOK_END_TO_END = Histogram(
    "cavendish_webhook_end_to_end_seconds",
    "From the finish that the remote API reports (or the submit, if that was later) to the "
    "receiver's acknowledgement.",
    LIVES,
)

REGISTRY = CollectorRegistry(auto_describe=False)
for one in [value for value in globals().values() if isinstance(value, Counter | Histogram)]:
    REGISTRY.register(one)
ProcessCollector(registry=REGISTRY)  # CPU, memory, open files, by the names that dashboards know
GCCollector(registry=REGISTRY)
for kind in ResultKind:  # shown from the first scrape on, so that the first one is an increase
    WEBHOOK_ATTEMPTS.add(kind.value, by=0)


def claimed(service: str, dues: Sequence[float], now: float) -> None:
    """Ids were claimed; those that only filled the batch up were not due yet and do not count."""
    for due in dues:
        if due <= now:
            POLL_LAG.add(now - due, service)


def called(service: str, answer: Answer, seconds: float, ids: int | None) -> None:
    """A call ended after `seconds`; `ids` is None for a single-id request, which is no batch."""
    outcome = answer.why.name.lower() if isinstance(answer, UpstreamError) else "answered"
    CALLS_MADE.add(service, outcome)
    CALL_DURATION.add(seconds, service, outcome)
    if ids is not None:
        CALL_IDS.add(ids, service)


def polled(service: str, readings: Sequence[tuple[TrackedTask, Reading, Outcome]]) -> None:
    """Answers were classified."""
    for task, reading, outcome in readings:
        POLLS.add(service, reading.verdict.value)
        if outcome.absences > task.absences:
            ABSENCES.add(service)


def settled(
    service: str, written: Sequence[Settled], outcomes: Sequence[Outcome], now: float
) -> None:
    """Outcomes were written; those that came too late do not count."""
    for one, outcome in zip(written, outcomes, strict=True):
        if not one.ended:
            continue
        if outcome.state is State.EXPIRED:
            EXPIRED.add(service)
        if outcome.finished_at is not None:
            DETECTION_DELAY.add(now - max(outcome.finished_at, outcome.task.submitted_at), service)


def quarantine(service: str, records: int) -> None:
    """Records could not be read."""
    QUARANTINED.add(service, by=records)


def attempted(delivery: Delivery, task: TrackedTask | None, result: AttemptResult) -> None:
    """A webhook was attempted; `result.seconds` is 0 if it was not sent."""
    outcome, sent = result.kind.value, result.seconds > 0
    WEBHOOK_ATTEMPTS.add(outcome)
    if sent:
        WEBHOOK_DURATION.add(result.seconds, outcome)
    # A process that ends in the middle of a call leaves the attempt to another one.
    if task is None or not sent or result.kind is ResultKind.NOT_SENT:
        return
    if not delivery.log and task.settled_at is not None:  # a replay has a log already
        WEBHOOK_DELAY.add(result.sent_at - task.settled_at)
    first = result.kind is ResultKind.DELIVERED and not delivered_before(delivery.log)
    if first and task.finished_at is not None:
        acknowledged_at = result.sent_at + result.seconds
        WEBHOOK_END_TO_END.add(acknowledged_at - max(task.finished_at, task.submitted_at))
