"""Asks the remote API about ids of one lane, and reports to the whole fleet how it answers.

Every call is taken from the rate limit of the account. A batch that the API refuses for its size,
or for one of its ids, is cut in two until its parts are answered.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from cavendish.clock import Clock
from cavendish.model import Answer, Answered, Lane, UpstreamError, UpstreamErrorKind
from cavendish.policy import rate_limit
from cavendish.policy import service_health as health
from cavendish.policy.rate_limit import RateLimit
from cavendish.store import Store
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.polling.upstream import Upstream
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.metrics import recorded
from cavendish_worker.telemetry.tracing import Polls

#: Batches that are cut before anything was answered; after that, no single id can be the cause.
CUTS = 8
_CUT = (UpstreamErrorKind.TOO_MANY, UpstreamErrorKind.FORBIDDEN, UpstreamErrorKind.BAD)
#: Why ids are given back by a process that shuts down.
SHUTDOWN = "this worker shuts down"
#: What to do about a service that the API does not serve.
NOT_SERVED = (
    "check the name of the service, CAVENDISH_API_URL and what the account may use; "
    "its ids wait until it is served, or for their deadline"
)


@dataclass(slots=True)
class Asked:
    """What came of the calls about some ids.

    `answers`: the ids of each answered call, with the answer. `forbidden` and `rejected`: ids that
    the API refuses even alone, with its words. `put_back`: ids about which nothing was learned, and
    when each may be claimed again (seconds since the epoch; None: at its old due time). `failure`:
    why the API answers nothing at the moment. `cut`: sizes of the batches that were cut. `token`:
    the fingerprint of the token of the last call.
    """

    answers: list[tuple[list[str], Answered]] = field(default_factory=list)
    forbidden: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    put_back: dict[str, float | None] = field(default_factory=dict)
    failure: str = ""
    calls: int = 0
    cut: list[int] = field(default_factory=list)
    too_many: str = ""
    token: str = ""

    @property
    def largest_answered(self) -> int:
        """The number of ids in the largest call that was answered."""
        return max([len(self.forbidden) and 1, *(len(ids) for ids, _ in self.answers)])


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks about ids of one lane. Every method raises StoreUnavailable.

    `ceiling`: the calls per second that the settings allow (0: any number), if no operator has set
    another ceiling; `timeout`: the longest call, in seconds; `last_start`: when the last call may
    begin, in seconds since the epoch.
    """

    store: Store
    upstream: Upstream
    loop: LoopThread
    clock: Clock
    lane: Lane
    traced: Polls
    ceiling: float
    timeout: float
    last_start: float

    def ask_batch(self, ids: Sequence[str]) -> Asked:
        """Ask about a batch, for whose first call the dispatcher has used the rate limit already.

        Once the API has failed, the rest of a batch that was cut is put back without a call.
        """
        asked, waiting = Asked(), [list(ids)]
        while waiting:
            part = waiting.pop()
            if asked.failure or (asked.calls and not self.take_call()):
                asked.put_back |= dict.fromkeys(part)
                continue
            answer, sent_at = self._call(asked, part)
            if isinstance(answer, Answered):
                asked.answers.append((part, answer))
            elif len(part) > 1 and answer.why in _CUT and _worth_cutting(asked):
                asked.cut.append(len(part))
                if answer.why is UpstreamErrorKind.TOO_MANY:
                    asked.too_many = asked.too_many or answer.detail
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
            elif len(part) == 1 and answer.why is UpstreamErrorKind.FORBIDDEN:
                asked.forbidden[part[0]] = answer.detail
            elif len(part) == 1 and answer.why in _CUT and asked.cut:
                asked.cut.append(1)
                asked.rejected[part[0]] = answer.detail
            else:
                self._fail(asked, part, answer, sent_at)
        self._explain_cuts(asked)
        return asked

    def ask_alone(self, ids: Iterable[str]) -> Asked:
        """Ask about each of a few ids in a call of its own."""
        asked = Asked()
        for task_id in ids:
            if not self.take_call():
                asked.put_back[task_id] = None
                continue
            answer, sent_at = self._call(asked, [task_id], alone=True)
            if isinstance(answer, Answered):
                asked.answers.append(([task_id], answer))
            elif answer.why is UpstreamErrorKind.FORBIDDEN:
                asked.forbidden[task_id] = answer.detail
            elif answer.why is UpstreamErrorKind.BAD:
                asked.rejected[task_id] = answer.detail
            else:
                self._fail(asked, [task_id], answer, sent_at)
        return asked

    def take_call(self) -> bool:
        """Wait until the rate limit allows a call.

        False if it does not before `last_start`, or if an operator pauses the account or service.
        """
        stopping = self.upstream.stopping
        account, service = self.lane.account, self.lane.service
        while (now := self.clock.now()) < self.last_start and not stopping.is_set():
            controls = self.store.controls.known()
            if controls.pause_of(account, service, now):
                return False
            ceiling = controls.ceiling_of(account, self.ceiling)
            wait = self.store.shared_state.change_rate_limit(
                account, partial(rate_limit.acquire, now=now, ceiling=ceiling)
            )
            if wait == 0:
                return True
            if now + wait > self.last_start:
                return False
            stopping.wait(wait)
        return False

    def send(self, ids: list[str], *, alone: bool = False) -> tuple[Answer, float]:
        """Make one call, and report nothing; returns the answer, and when the call was sent."""
        sent_at = self.clock.now()
        call = (
            self.upstream.retrieve(self.lane, ids[0])
            if alone
            else self.upstream.retrieve_batch(self.lane, ids)
        )
        with self.traced.call(ids) as told:
            answer = self.loop.run(call, timeout=self.timeout + 5)
            told(answer)
        return answer, sent_at

    def _call(self, asked: Asked, ids: list[str], *, alone: bool = False) -> tuple[Answer, float]:
        asked.token = self.upstream.token_fingerprint(self.lane.account)
        answer, sent_at = self.send(ids, alone=alone)
        asked.calls += 1
        seconds = self.clock.now() - sent_at
        recorded.called(self.lane.service, answer, seconds, None if alone else len(ids))
        why = None if isinstance(answer, Answered) else answer.why
        self.store.tasks.tally(self.lane, rate_refused=int(why is UpstreamErrorKind.RATE))
        if why in (None, UpstreamErrorKind.FORBIDDEN):
            self.report_answer(answer, sent_at)
            told = len(answer.items) if isinstance(answer, Answered) else 0
            failures = self.store.shared_state.change_service_health(
                self.lane, lambda known: (health.worked(known, len(ids), told), known.failures)
            )
            if failures:
                logger().info("service.back", lane=str(self.lane), failures=failures)
        return answer, sent_at

    def report_answer(self, answer: Answer, sent_at: float) -> None:
        """Tell the rate limit of the account that a call was answered."""
        now, account_pause = self.clock.now(), UpstreamErrorKind.ACCOUNT

        def step(known: RateLimit) -> tuple[RateLimit, bool]:
            after = rate_limit.report_answer(known, sent_at, now, answer.quota)
            return after, known.pause_kind == account_pause and not after.pause_kind

        if self.store.shared_state.change_rate_limit(self.lane.account, step):
            logger().warning("account.resumed", lane=str(self.lane), account=self.lane.account)

    def report_pause(self, error: UpstreamError, sent_at: float, token: str = "") -> None:
        """Tell the rate limit of the account that the API refuses it for now: RATE or ACCOUNT.

        `token`: the fingerprint of the one that was sent.
        """
        now, chance, account = self.clock.now(), random.random(), self.lane.account
        said = error.why, error.detail, error.retry_after, sent_at, now, chance, error.quota, token

        def step(known: RateLimit) -> tuple[RateLimit, tuple[RateLimit, RateLimit]]:
            after = rate_limit.report_error(known, *said)
            return after, (known, after)

        before, after = self.store.shared_state.change_rate_limit(account, step)
        self._log_pause(before, after, error, now)

    def _log_pause(
        self, before: RateLimit, after: RateLimit, error: UpstreamError, now: float
    ) -> None:
        """A line for each new reason of a refusal; the pause itself goes on growing silently."""
        log = logger().bind(lane=str(self.lane), account=self.lane.account)
        if error.why is UpstreamErrorKind.RATE:
            log.info("account.slowed", rate=round(after.rate, 2), outcome=error.detail)
        elif after.paused_until > before.paused_until and (
            (before.pause_kind, before.pause_reason, before.token)
            != (after.pause_kind, after.pause_reason, after.token)
        ):
            seconds = round(after.paused_until - now, 1)
            log.error("account.paused", seconds=seconds, outcome=error.detail)

    def _fail(self, asked: Asked, ids: Sequence[str], error: UpstreamError, sent_at: float) -> None:
        """The call taught nothing about the ids: put them back, and report who must wait."""
        asked.failure, not_before = error.detail, None
        if error.why is UpstreamErrorKind.DOWN and self.upstream.stopping.is_set():
            asked.failure = SHUTDOWN  # it was this process that did not wait for the answer
        elif error.why is UpstreamErrorKind.RATE:
            self.report_pause(error, sent_at)
        elif error.why is UpstreamErrorKind.ACCOUNT:
            if asked.token == self.upstream.token_fingerprint(self.lane.account):
                self.report_pause(error, sent_at, asked.token)  # else there is a new one by now
        else:
            not_before = self._report_failure(error, len(ids), sent_at)
        asked.put_back |= dict.fromkeys(ids, not_before)

    def _report_failure(self, error: UpstreamError, ids: int, sent_at: float) -> float:
        """Tell the service health that a call about so many ids failed; when to ask again."""
        now, chance, lane = self.clock.now(), random.random(), str(self.lane)
        is_paused = error.why is UpstreamErrorKind.NOT_SERVED
        change = health.not_served if is_paused else health.failed

        def step(known: health.ServiceHealth) -> tuple[health.ServiceHealth, tuple[float, bool]]:
            after = change(known, error.detail, sent_at, now, chance)
            return after, (after.down_until, bool(after.paused_since and not known.paused_since))

        down_until, newly = self.store.shared_state.change_service_health(self.lane, step)
        if newly:
            logger().error("service.paused", lane=lane, outcome=error.detail, advice=NOT_SERVED)
        else:
            logger().warning("service.failed", lane=lane, ids=ids, outcome=error.detail)
        return max(down_until, now)

    def _explain_cuts(self, asked: Asked) -> None:
        """Find out why batches were cut: for their size, for some ids, or for the call as such."""
        largest = asked.largest_answered
        if asked.too_many and 0 < largest < min(asked.cut):
            self.store.shared_state.change_service_health(
                self.lane, lambda known: (health.too_many(known, largest), None)
            )
            logger().warning(
                "batch.too_large", lane=str(self.lane), ids=min(asked.cut), outcome=asked.too_many
            )
        if asked.rejected and not largest:
            rejected, asked.rejected = asked.rejected, {}
            if asked.failure:
                asked.put_back |= dict.fromkeys(rejected)
            else:
                error = UpstreamError(UpstreamErrorKind.DOWN, next(iter(rejected.values())))
                self._fail(asked, list(rejected), error, self.clock.now())


def _worth_cutting(asked: Asked) -> bool:
    return bool(asked.largest_answered) or len(asked.cut) < CUTS
