"""The way of one claimed batch: ask about it, classify the answers, settle what was found.

Ids about which nothing was learned are put back. A batch that is lost on the way costs only time:
its leases run out, and its ids are due again.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cavendish.clock import Clock
from cavendish.model import Lane, State, TrackedTask
from cavendish.policy.verdicts import AbsencePolicy
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish.store.tracked_tasks import Settled
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.polling.ask import SHUTDOWN, Asker
from cavendish_worker.polling.classify import (
    CONFIRMATIONS,
    SOON,
    Classified,
    classify_batch,
    confirm_absent,
)
from cavendish_worker.polling.settle import Settler, Writer, load_claimed
from cavendish_worker.polling.upstream import Upstream
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.tracing import traces


@dataclass(frozen=True, slots=True)
class RetrieveConfig:
    """The settings of a retrieve: times in seconds, `rate` in calls per second (0: no ceiling)."""

    lease: float
    call_timeout: float
    rate: float
    absence_policy: AbsencePolicy
    retention: float
    events_kept: int


class Obstacle(NamedTuple):
    """Why a batch is given back, and for how many seconds its ids may not be claimed then.

    None: they are due when they were before.
    """

    why: str
    wait: float | None = None


BUSY = Obstacle("skipped: the concurrency limit is reached", SOON)


@dataclass(slots=True)
class Retrieved:
    """What came of one batch, in numbers of ids, and the deliveries that are pending now.

    `stale`: ids whose lease was no longer ours; `failure`: why the API did not answer.
    """

    asked: int = 0
    calls: int = 0
    settled: int = 0
    pending: int = 0
    stale: int = 0
    released: int = 0
    failure: str = ""
    deliveries: list[str] = field(default_factory=list)

    def add(self, found: Classified, written: Iterable[Settled], released: int) -> None:
        """Add the calls about some ids, and what was written back."""
        self.calls += found.asked.calls
        self.failure = found.asked.failure or self.failure
        self.released += released
        for one in written:
            self.deliveries += one.deliveries
            self.settled += one.ended
            self.pending += one.verdict == State.PENDING
            self.stale += not one.ended and one.verdict != State.PENDING

    def __str__(self) -> str:
        """What Flower shows."""
        always = [f"{self.asked} asked", f"{self.settled} settled", f"{self.pending} pending"]
        rest = [f"{self.stale} stale"] * bool(self.stale)
        rest += [f"{self.released} released"] * bool(self.released)
        return " · ".join([*always, *rest, *([self.failure] * bool(self.failure))])


@dataclass(frozen=True, slots=True)
class Retriever:
    """Retrieves batches for one worker process. Every method raises StoreUnavailable.

    `charge`: told the account and the producer of each call beyond the one that the dispatch made;
    `confirming`: by account, held by the batch whose missing ids are asked about alone.
    """

    store: Store
    forecasts: Forecasts
    upstream: Upstream
    loop: LoopThread
    config: RetrieveConfig
    charge: Callable[[str, str], None] = lambda _account, _producer: None
    confirming: dict[str, threading.Lock] = field(default_factory=dict)

    def retrieve(
        self, clock: Clock, lane: Lane, ids: Sequence[str], token: str, until: float = math.inf
    ) -> Retrieved:
        """Ask about a batch that was claimed under `token`, and write back what was found.

        Does nothing after `until`, when the leases have run out: another worker may be asking.
        """
        now, config, traced = clock.now(), self.config, traces().polls(lane)
        if now >= until:
            return Retrieved(stale=len(ids))
        if obstacle := self._obstacle(lane, now):
            return self.give_back(clock, lane, ids, token, obstacle)
        tasks = load_claimed(self.store, lane, ids, token)
        did = Retrieved(asked=len(tasks), stale=len(ids) - len(tasks))
        last_start = min(now + config.lease, until) - 2 * config.call_timeout
        parts = (self.store, self.upstream, self.loop, clock, lane, traced)
        asker = Asker(*parts, config.rate, config.call_timeout, last_start)
        writer = Writer(self.store, lane, token, traced, config.retention, config.events_kept)
        fingerprint = self.upstream.fingerprint(lane)
        settler = Settler(fingerprint, writer, self.forecasts, clock, config.absence_policy, tasks)
        if tasks:
            found = classify_batch(asker.ask_batch(list(tasks)), clock.now())
            settler.see(found)
            did.add(found, *settler.settle(found))
            # Now, since tasks that have ended must not wait for the calls about missing ids.
            missing = [tasks[task_id] for task_id in found.missing]
            found = self._confirm(asker, missing)
            did.add(found, *settler.settle(found, settler.see(found)))
        logger().info("batch.retrieved", lane=str(lane), ids=len(ids), outcome=str(did))
        return did

    def _confirm(self, asker: Asker, missing: Sequence[TrackedTask]) -> Classified:
        """Ask alone about missing ids, for one batch of an account at a time.

        Each waits for the rate limit, so a crowd of them would take the calls of all others, and
        the threads of this worker. The producers are charged for the calls.
        """
        account = asker.lane.account
        turn = self.confirming.setdefault(account, threading.Lock())
        free = bool(missing) and turn.acquire(blocking=False)
        try:
            at_most = CONFIRMATIONS if free else 0
            found = confirm_absent(asker, missing, self.config.absence_policy, at_most)
        finally:
            if free:
                turn.release()
        for task in missing[: found.asked.calls]:
            self.charge(account, task.producer)
        return found

    def _obstacle(self, lane: Lane, now: float) -> Obstacle | None:
        """Why this process may not ask about a lane; None if it may."""
        if self.upstream.stopping.is_set():
            return Obstacle(SHUTDOWN)
        if pause := self.store.controls.known().pause_of(lane.account, lane.service, now):
            return Obstacle(f"skipped: {pause.told}")
        if lane.account not in self.upstream.accounts:  # the token was removed meanwhile
            return Obstacle("skipped: this worker has no token for the account", SOON)
        return None

    def give_back(
        self,
        clock: Clock,
        lane: Lane,
        ids: Sequence[str],
        token: str,
        obstacle: Obstacle | None = None,
    ) -> Retrieved:
        """Release a batch that this process does not ask about: it has an obstacle, or no time."""
        tasks, now = self.store.tasks.claimed(lane, ids, token).tasks, clock.now()
        why, wait = obstacle or self._obstacle(lane, now) or BUSY
        not_before = None if wait is None else now + wait
        released = self.store.tasks.release(lane, token, list(tasks.values()), now, not_before)
        return Retrieved(released=released, failure=why)
