"""Ask about one claimed batch, judge what came, and write it back.

Whatever was not answered is released.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cavendish.clock import Clock
from cavendish.model import (
    Answer,
    Answered,
    Lane,
    Record,
    State,
    TrackedTask,
    UpstreamError,
    UpstreamErrorKind,
)
from cavendish.policy import durations, rate_limit
from cavendish.policy import service_health as health
from cavendish.policy.verdicts import (
    ABSENT,
    Outcome,
    Patience,
    Reading,
    Verdict,
    classify,
    decide,
    match,
)
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish.store.tasks import Settled
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.polling.upstream import Upstream
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.metrics import recorded
from cavendish_worker.telemetry.tracing import traces

#: Absences that one run confirms by a call of their own; the others wait for the next run.
CONFIRMATIONS = 2
#: Batches that are cut in two before anything was answered; after so many it is not one of the ids.
CUTS = 8
_CUT = (UpstreamErrorKind.TOO_MANY, UpstreamErrorKind.FORBIDDEN, UpstreamErrorKind.BAD)
#: Seconds until an id is asked again that the API refuses as such, while it answers about others.
#: Its deadline ends it.
MUCH_LATER = 60.0
#: Why ids are given back by a process that is to end.
ENDS = "this worker ends"
#: Seconds until an id is asked again that was missing from a batch and could not be confirmed yet.
SOON = 2.0


@dataclass(frozen=True, slots=True)
class Config:
    """What a retrieve needs of the settings; seconds and numbers."""

    lease: float
    call_timeout: float
    rate: float
    patience: Patience
    retention: float
    events_kept: int


@dataclass(slots=True)
class Retrieved:
    """What came of one batch, in numbers, and the deliveries that are pending now."""

    asked: int = 0
    calls: int = 0
    settled: int = 0
    pending: int = 0
    stale: int = 0
    released: int = 0
    refused: str = ""
    deliveries: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.asked} asked", f"{self.settled} settled", f"{self.pending} pending"]
        parts += [
            f"{count} {word}"
            for count, word in ((self.stale, "stale"), (self.released, "released"))
            if count
        ]
        return " · ".join(parts) + (f" · {self.refused}" if self.refused else "")


@dataclass(frozen=True, slots=True)
class Desk:
    """What a retrieval works with."""

    store: Store
    forecasts: Forecasts
    upstream: Upstream
    loop: LoopThread
    config: Config


class Retrieval:
    """One run about one claimed batch.

    Raises BookUnavailable; then the leases run out and the ids are due again.
    """

    def __init__(self, desk: Desk, clock: Clock, lane: Lane, token: str) -> None:
        self._store, self._forecasts, self._upstream, self._loop = (
            desk.store,
            desk.forecasts,
            desk.upstream,
            desk.loop,
        )
        self._config = config = desk.config
        self._clock, self._lane, self._token = clock, lane, token
        self._last_start = clock.now() + config.lease - 2 * config.call_timeout
        self._tasks: dict[str, TrackedTask] = {}
        self._readings: dict[str, tuple[Reading, Record | None]] = {}
        self._missing: list[str] = []
        self._cut: list[
            int
        ] = []  # sizes of the batches that were refused for their size or for an id
        self._answered = 0  # size of the largest batch that was answered
        self._too_many = ""
        self._bad: dict[str, str] = {}  # ids that the API refuses even alone
        self._did = Retrieved()
        self._traced = traces().polls(lane)
        self._log = logger().bind(lane=str(lane))

    def run(self, ids: Sequence[str], until: float = math.inf) -> Retrieved:
        """Ask, judge, settle.

        After `until`, when the leases have run out, nothing: others may be asking about the ids.
        """
        if self._clock.now() >= until:
            self._did.stale = len(ids)
            return self._did
        self._last_start = min(self._last_start, until - 2 * self._config.call_timeout)
        if self._upstream.stopping.is_set():
            return self.give_back(ids)
        loaded = self._store.tasks.load(self._lane, ids, token=self._token)
        if loaded.unreadable:
            self._store.tasks.quarantine(self._lane, loaded.unreadable)
            recorded.quarantine(self._lane.service, len(loaded.unreadable))
            self._log.error(
                "task.quarantined",
                ids=len(loaded.unreadable),
                why=next(iter(loaded.unreadable.values())),
            )
        self._tasks = tasks = {
            name: task for name, task in loaded.tasks.items() if not task.state.terminal
        }
        self._did.asked, self._did.stale = len(tasks), len(ids) - len(tasks)
        if tasks:
            self._ask_batch(list(tasks), turn_taken=True)
            self._part_with_bad()
            # Before the calls for absent ids: nobody who has finished waits for those.
            self._settle()
            self._confirm([tasks[name] for name in self._missing])
            self._settle()
        self._log.info("batch.retrieved", ids=len(ids), outcome=str(self._did))
        return self._did

    def give_back(self, ids: Sequence[str]) -> Retrieved:
        """Nobody here has time for these ids.

        Let them be claimed again in a moment, or at once if this process is to end.
        """
        self._tasks = self._store.tasks.load(self._lane, ids, token=self._token).tasks
        ends = self._upstream.stopping.is_set()
        self._release(list(self._tasks), None if ends else self._clock.now() + SOON)
        self._did.refused = ENDS if ends else "all concurrency limits are taken"
        return self._did

    def _ask_batch(self, ids: list[str], *, turn_taken: bool) -> None:
        """Ask about ids in one call.

        A batch that is too large, or that holds a forbidden id, is cut in two.
        """
        if (
            self._did.refused
        ):  # by now the API answers nobody: the rest of a batch that was cut need not try
            self._release(ids, None)
            return
        answer, sent_at = self._call(ids, turn_taken=turn_taken)
        if answer is None:
            return
        if isinstance(answer, Answered):
            self._answered = max(self._answered, len(ids))
            found = match(answer.items, ids)
            self._readings |= found
            self._missing += [task_id for task_id in ids if task_id not in found]
        elif answer.why in _CUT and len(ids) > 1 and (self._answered or len(self._cut) < CUTS):
            self._cut.append(len(ids))
            self._too_many = self._too_many or (
                answer.detail if answer.why is UpstreamErrorKind.TOO_MANY else ""
            )
            middle = len(ids) // 2
            self._ask_batch(ids[:middle], turn_taken=False)
            self._ask_batch(ids[middle:], turn_taken=False)
        elif (
            answer.why in (UpstreamErrorKind.TOO_MANY, UpstreamErrorKind.BAD)
            and self._cut
            and len(ids) == 1
        ):
            self._cut.append(1)
            self._bad[ids[0]] = answer.detail
        elif answer.why is UpstreamErrorKind.FORBIDDEN and len(ids) == 1:
            self._answered = max(self._answered, 1)
            self._readings[ids[0]] = (Reading(Verdict.FORBIDDEN, answer.detail), None)
        else:
            self._refused(answer, ids, sent_at)

    def _part_with_bad(self) -> None:
        """After batches were cut: was it their size, one of their ids, or the question as such?"""
        if self._too_many and self._answered and self._answered < min(self._cut):
            limit = self._answered
            self._store.shared_state.change_service_health(
                self._lane, lambda known: (health.too_many(known, limit), None)
            )
            self._log.warning("batch.too_large", ids=min(self._cut), outcome=self._too_many)
        if self._bad and self._answered:
            self._log.warning(
                "id.refused",
                ids=len(self._bad),
                first=next(iter(self._bad)),
                outcome=next(iter(self._bad.values())),
            )
            self._release(list(self._bad), self._clock.now() + MUCH_LATER)
        elif self._bad and self._did.refused:
            self._release(list(self._bad), None)
        elif self._bad:
            self._refused(
                UpstreamError(UpstreamErrorKind.DOWN, next(iter(self._bad.values()))),
                list(self._bad),
                self._clock.now(),
            )

    def _confirm(self, tasks: Sequence[TrackedTask]) -> None:
        """An id missing from a batch is not gone: past its grace, it is asked about alone."""
        now = self._clock.now()
        late = [task for task in tasks if not self._config.patience.too_early(task, now)]
        self._readings |= {
            task.id: (ABSENT, None) for task in tasks if self._config.patience.too_early(task, now)
        }
        for task in late[:CONFIRMATIONS]:
            answer, sent_at = self._call([task.id], turn_taken=False, alone=True)
            if isinstance(answer, Answered):
                record = answer.items[0] if answer.items else None
                self._readings[task.id] = (classify(record), record)
            elif answer is not None and answer.why is UpstreamErrorKind.FORBIDDEN:
                self._readings[task.id] = (Reading(Verdict.FORBIDDEN, answer.detail), None)
            elif answer is not None and answer.why is UpstreamErrorKind.BAD:
                self._release([task.id], now + MUCH_LATER)
            elif answer is not None:
                self._refused(answer, [task.id], sent_at)
        self._release([task.id for task in late[CONFIRMATIONS:]], now + SOON)

    def _call(
        self, ids: list[str], *, turn_taken: bool, alone: bool = False
    ) -> tuple[Answer | None, float]:
        """One call to the API when it is our turn, and when it was sent.

        None if no turn came: then the ids are released.
        """
        if not turn_taken and not self._take_turn():
            self._release(ids, None)
            return None, 0.0
        sent_at = self._clock.now()
        self._did.calls += 1
        work = (
            self._upstream.retrieve(self._lane, ids[0])
            if alone
            else self._upstream.retrieve_batch(self._lane, ids)
        )
        with self._traced.call(ids) as told:
            answer = self._loop.run(work, timeout=self._config.call_timeout + 5)
            told(answer)
        recorded.called(
            self._lane.service, answer, self._clock.now() - sent_at, None if alone else len(ids)
        )
        rate_refused = isinstance(answer, UpstreamError) and answer.why is UpstreamErrorKind.RATE
        self._store.tasks.tally(self._lane, calls=1, rate_refused=int(rate_refused))
        if isinstance(answer, Answered) or answer.why is UpstreamErrorKind.FORBIDDEN:
            self._worked(answer, sent_at)
        return answer, sent_at

    def _take_turn(self) -> bool:
        """Wait for the rate limit, as long as the lease allows it and this process lives on."""
        while (
            now := self._clock.now()
        ) < self._last_start and not self._upstream.stopping.is_set():
            wait = self._store.shared_state.change_rate_limit(
                self._lane.account, lambda known: rate_limit.acquire(known, now, self._config.rate)
            )
            if wait == 0:
                return True
            if now + wait > self._last_start:
                return False
            self._upstream.stopping.wait(wait)
        return False

    def _worked(self, answer: Answer, sent_at: float) -> None:
        now = self._clock.now()

        def step(known: rate_limit.RateLimit) -> tuple[rate_limit.RateLimit, str]:
            heard = rate_limit.report_answer(known, sent_at, now, answer.quota)
            return (
                heard,
                known.pause_kind
                if known.pause_kind == UpstreamErrorKind.ACCOUNT and not heard.pause_kind
                else "",
            )

        if self._store.shared_state.change_rate_limit(self._lane.account, step):
            self._log.warning("account.resumed", account=self._lane.account)
        resumed = self._store.shared_state.change_service_health(
            self._lane, lambda known: (health.worked(known), known.failures)
        )
        if resumed:
            self._log.info("service.back", failures=resumed)

    def _refused(self, answer: UpstreamError, ids: Sequence[str], sent_at: float) -> None:
        """Nothing was learned about the ids.

        They go back uncharged, and whoever must wait is told.
        """
        if (
            answer.why is UpstreamErrorKind.DOWN and self._upstream.stopping.is_set()
        ):  # it was we who did not wait
            self._did.refused = ENDS
            self._release(ids, None)
            return
        self._did.refused = answer.detail
        now, chance = self._clock.now(), random.random()
        if answer.why in (UpstreamErrorKind.RATE, UpstreamErrorKind.ACCOUNT):
            self._pause(answer, sent_at, now, chance)
            self._release(ids, None)
            return
        reason = answer.detail
        down_until = self._store.shared_state.change_service_health(
            self._lane,
            lambda known: (
                (after := health.failed(known, reason, sent_at, now, chance)),
                after.down_until,
            ),
        )
        self._log.warning("service.failed", ids=len(ids), outcome=reason)
        self._release(ids, max(down_until, now))

    def _pause(self, answer: UpstreamError, sent_at: float, now: float, chance: float) -> None:
        def step(
            known: rate_limit.RateLimit,
        ) -> tuple[rate_limit.RateLimit, tuple[bool, rate_limit.RateLimit]]:
            after = rate_limit.report_error(
                known,
                answer.why,
                answer.detail,
                answer.retry_after,
                sent_at,
                now,
                chance,
                answer.quota,
            )
            fresh = after.paused_until > known.paused_until and (
                known.pause_kind,
                known.pause_reason,
            ) != (
                after.pause_kind,
                after.pause_reason,
            )
            return after, (fresh, after)

        fresh, after = self._store.shared_state.change_rate_limit(self._lane.account, step)
        if (
            answer.why is UpstreamErrorKind.ACCOUNT and fresh
        ):  # once for each reason, loudly; the hold itself goes on growing
            self._log.error(
                "account.paused",
                account=self._lane.account,
                seconds=round(after.paused_until - now, 1),
                outcome=answer.detail,
            )
        elif answer.why is UpstreamErrorKind.RATE:
            self._log.info(
                "account.slowed",
                account=self._lane.account,
                rate=round(after.rate, 2),
                outcome=answer.detail,
            )

    def _release(self, ids: Sequence[str], not_before: float | None) -> None:
        tasks = [self._tasks[task_id] for task_id in ids]
        self._did.released += self._store.tasks.release(self._lane, self._token, tasks, not_before)

    def _settle(self) -> None:
        now, outcomes, classified = self._clock.now(), [], []
        polls: dict[str, list[durations.Observation]] = defaultdict(list)
        readings, self._readings = self._readings, {}
        for task_id, (reading, record) in readings.items():
            task = self._tasks[task_id]
            outcome = decide(task, reading, record, now, self._config.patience)
            outcomes.append((outcome, self._next_poll(task, outcome, now)))
            classified.append((task, reading, outcome))
            if reading.verdict in (Verdict.PENDING, Verdict.SUCCEEDED, Verdict.FAILED):
                polls[outcome.model or task.model].append(_observation(task, reading, now))
            if reading.notice:
                self._log.warning(
                    "record.odd", id=task_id, why=reading.notice, outcome=outcome.state.value
                )
        recorded.polled(self._lane.service, classified)
        settled = self._store.tasks.settle(
            self._lane, self._token, now, outcomes, self._config.retention, self._config.events_kept
        )
        recorded.settled(self._lane.service, settled, [outcome for outcome, _ in outcomes], now)
        self._traced.settled(settled, [outcome for outcome, _ in outcomes])
        self.note(settled)
        self._forecasts.learn(self._lane, polls, now)

    def _next_poll(self, task: TrackedTask, outcome: Outcome, now: float) -> float:
        """When an id that is still pending is worth its next poll.

        At the latest at its deadline.
        """
        forecast = self._forecasts.forecast(self._lane, outcome.model or task.model, now)
        at = task.submitted_at + forecast.next_age(now - task.submitted_at)
        if outcome.absences:  # the duration model says nothing of ids that are gone
            at = min(
                at, now + max(self._config.patience.over / self._config.patience.attempts, SOON)
            )
        return min(at, task.deadline_at) if now < task.deadline_at else at

    def note(self, settled: Iterable[Settled]) -> None:
        """Count what was written back."""
        for one in settled:
            self._did.deliveries += one.deliveries
            if one.ended:
                self._did.settled += 1
                self._log.info("task.settled", id=one.id, outcome=one.verdict)
            elif one.verdict == State.PENDING:
                self._did.pending += 1
            else:
                self._did.stale += 1


def _observation(task: TrackedTask, reading: Reading, now: float) -> durations.Observation:
    """What this look taught about how long tasks take.

    The server's own stamps give the exact duration.
    """
    last_age = max((task.polled_at or task.submitted_at) - task.submitted_at, 0.0)
    finished = reading.verdict is not Verdict.PENDING
    stamped = finished and reading.finished_at is not None and reading.created_at is not None
    duration = reading.finished_at - reading.created_at if stamped else None  # type: ignore[operator]
    return durations.Observation(last_age, now - task.submitted_at, finished, duration)
