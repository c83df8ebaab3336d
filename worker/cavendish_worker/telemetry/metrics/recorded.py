"""What this worker process has done since it began. One process is one registry: workers run
threads, whatever `-P` says.

Labels have few values: services, and words of ours; never ids, URLs or what a stranger wrote.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from cavendish.model import Answer, State, TrackedTask, UpstreamError
from cavendish.policy.verdicts import Outcome, Reading
from cavendish.store.deliveries import Delivery
from cavendish.store.tasks import Settled
from cavendish_worker.telemetry.metrics.families import Counter, Histogram
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind, delivered_before

#: Seconds, from a twentieth to an hour: how late a poll or a webhook is.
DELAYS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 15, 30, 60, 120, 300, 900, 3600)
#: Seconds that a call takes: those of the API end at CAVENDISH_CALL_TIMEOUT, webhooks at
#: CAVENDISH_WEBHOOK_TIMEOUT.
CALLS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60)
#: Ids in one call.
FILL = (1, 2, 5, 10, 20, 30, 40, 50, 75, 100, 200, 500, 1000)
#: Seconds that a task itself may take, and then until it was announced.
LIVES = (0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 24 * 3600, 76 * 3600)

POLLS = Counter(
    "cavendish_polls", "Polls at one id each, by what they said of it.", ("service", "verdict")
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
    "From the finish that the remote API stamped on a task (or its submit, if that was later) to the settle that saw it.",
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
QUARANTINED = Counter(
    "cavendish_messages_quarantined", "Messages kept aside, since workers died with them in hand."
)
WEBHOOK_ATTEMPTS = Counter(
    "cavendish_webhook_attempts",
    "Tries to deliver a webhook, by what became of the delivery: delivered, later, refused (now dead), ours (our fault), unsent.",
    ("outcome",),
)
WEBHOOK_DURATION = Histogram(
    "cavendish_webhook_duration_seconds",
    "Length of a webhook call, name, connect and answer included.",
    CALLS,
    ("outcome",),
)
WEBHOOK_DELAY = Histogram(
    "cavendish_webhook_delay_seconds",
    "From the settle of an id to the first try of its webhook on the wire.",
    DELAYS,
)
WEBHOOK_END_TO_END = Histogram(
    "cavendish_webhook_end_to_end_seconds",
    "From the finish that the remote API stamped on a task (or its submit, if that was later) to the receiver's acknowledgement.",
    LIVES,
)

REGISTRY = CollectorRegistry(auto_describe=False)
for one in (
    POLLS,
    POLL_LAG,
    CALLS_MADE,
    CALL_DURATION,
    CALL_IDS,
    DETECTION_DELAY,
    ABSENCES,
    EXPIRED,
    QUARANTINED,
    QUARANTINED,
):
    REGISTRY.register(one)
for one in (WEBHOOK_ATTEMPTS, WEBHOOK_DURATION, WEBHOOK_DELAY, WEBHOOK_END_TO_END):
    REGISTRY.register(one)
ProcessCollector(
    registry=REGISTRY
)  # CPU, memory and open files, under the names that every dashboard knows
GCCollector(registry=REGISTRY)
for kind in ResultKind:  # there from the first scrape on, so that the first of each is an increase
    WEBHOOK_ATTEMPTS.add(kind.value, by=0)


def claimed(service: str, dues: Sequence[float], now: float) -> None:
    """Ids were claimed. Those that only filled the batch up were not due yet, and say nothing."""
    for due in dues:
        if due <= now:
            POLL_LAG.add(now - due, service)


def called(service: str, answer: Answer, seconds: float, ids: int | None) -> None:
    """A call ended.

    `ids` is None for a poll at one id alone, which says nothing about how full batches are.
    """
    outcome = answer.why.name.lower() if isinstance(answer, UpstreamError) else "answered"
    CALLS_MADE.add(service, outcome)
    CALL_DURATION.add(seconds, service, outcome)
    if ids is not None:
        CALL_IDS.add(ids, service)


def polled(service: str, readings: Sequence[tuple[TrackedTask, Reading, Outcome]]) -> None:
    """Answers were judged."""
    for task, reading, outcome in readings:
        POLLS.add(service, reading.verdict.value)
        if outcome.absences > task.absences:
            ABSENCES.add(service)


def settled(
    service: str, written: Sequence[Settled], outcomes: Sequence[Outcome], now: float
) -> None:
    """Outcomes were written down; those that came too late say nothing."""
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
    """A webhook was tried, or was not: then it took no time."""
    outcome, sent = result.kind.value, result.seconds > 0
    WEBHOOK_ATTEMPTS.add(outcome)
    if sent:
        WEBHOOK_DURATION.add(result.seconds, outcome)
    if (
        task is None or not sent or result.kind is ResultKind.UNSENT
    ):  # who ends and cuts its call short leaves the try to another
        return
    if (
        not delivery.log and task.settled_at is not None
    ):  # a replay, too, begins with what was tried before
        WEBHOOK_DELAY.add(result.sent_at - task.settled_at)
    if (
        result.kind is ResultKind.DELIVERED
        and not delivered_before(delivery.log)
        and task.finished_at is not None
    ):
        WEBHOOK_END_TO_END.add(
            result.sent_at + result.seconds - max(task.finished_at, task.submitted_at)
        )
