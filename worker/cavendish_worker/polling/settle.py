"""Reads the tracked tasks of a claimed batch, and writes back what was found.

Each id ends, or gets the time of its next poll; what the polls taught about durations is shared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cavendish.clock import Clock
from cavendish.model import Lane, TrackedTask
from cavendish.policy.durations import Observation
from cavendish.policy.verdicts import (
    ABSENT,
    SEEING,
    AbsencePolicy,
    Outcome,
    Reading,
    Verdict,
    decide,
)
from cavendish.policy.visibility import Visibility, missed, saw, used
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish.store.tracked_tasks import Settled
from cavendish_worker.polling.classify import SOON, Classified
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.metrics import recorded
from cavendish_worker.telemetry.tracing import Polls

#: Seconds after a submit in which the gateway announces what it adopts; that is no callback.
_ADOPTED = 1.0
_TEACHING = (Verdict.PENDING, Verdict.SUCCEEDED, Verdict.FAILED)


def load_claimed(
    store: Store, lane: Lane, ids: Sequence[str], token: str
) -> dict[str, TrackedTask]:
    """The tasks that were leased under `token` and were pending then, by id.

    Records that cannot be read are quarantined. Raises StoreUnavailable.
    """
    loaded = store.tasks.claimed(lane, ids, token)
    if loaded.unreadable:
        store.tasks.quarantine(lane, loaded.unreadable)
        recorded.quarantine(lane.service, len(loaded.unreadable))
        why = next(iter(loaded.unreadable.values()))
        logger().error("task.quarantined", lane=str(lane), ids=len(loaded.unreadable), why=why)
    return {name: task for name, task in loaded.tasks.items() if not task.state.terminal}


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes outcomes to one lane, under the token of the leases.

    `retention`: seconds for which an ended task is kept; `events_kept`: length of the event stream.
    """

    store: Store
    lane: Lane
    token: str
    traced: Polls
    retention: float
    events_kept: int

    def write(
        self, outcomes: Sequence[tuple[Outcome, float]], now: float, calls: int = 0
    ) -> list[Settled]:
        """Write outcomes, each with the time of its next poll, in one step; they took `calls`.

        Raises StoreUnavailable.
        """
        settled = self.store.tasks.settle(
            self.lane, self.token, now, outcomes, self.retention, self.events_kept, calls
        )
        written = [outcome for outcome, _ in outcomes]
        recorded.settled(self.lane.service, settled, written, now)
        self.traced.settled(settled, written)
        return settled


@dataclass(frozen=True, slots=True)
class Settler:
    """Settles the `tasks` of one claimed batch; `fingerprint`: that of the token of the calls."""

    fingerprint: str
    writer: Writer
    forecasts: Forecasts
    clock: Clock
    absence_policy: AbsencePolicy
    tasks: Mapping[str, TrackedTask]

    def see(self, found: Classified) -> Visibility:
        """Tell the fleet whether the token sees ids; what is known of that now.

        Unconfirmed absences count only if the token is blind. Raises StoreUnavailable.
        """
        if not found.asked.answers and not found.unconfirmed:
            return SEEING  # nothing is absent
        lane, now = self.writer.lane, self.clock.now()
        known = any(reading.verdict in _TEACHING for reading, _ in found.readings.values())
        absent = [name for name, (reading, _) in found.readings.items() if reading == ABSENT]

        def step(before: Visibility) -> tuple[Visibility, tuple[Visibility, Visibility]]:
            after = used(before, self.fingerprint, now)
            after = saw(after, now) if known else self._missed(after, absent, now)
            if after.blind:
                after = self._missed(after, found.unconfirmed, now)
            return after, (before, after)

        before, after = self.writer.store.shared_state.change_visibility(lane, step)
        if after.alarming and not before.alarming:
            advice = (
                "compare the token with the one that made the ids; they wait for their deadline"
            )
            logger().warning("account.blind", lane=str(lane), why=after.reason, advice=advice)
        elif before.alarming and not after.blind:
            logger().info("account.blind_ended", lane=str(lane))
        return after

    def _missed(self, before: Visibility, absent: Sequence[str], now: float) -> Visibility:
        some = [self.tasks[name] for name in absent]
        late = [task for task in some if not self.absence_policy.too_early(task, now)]
        return missed(before, sum(map(before.first_absence, late)), now) if late else before

    def settle(
        self, found: Classified, visibility: Visibility = SEEING
    ) -> tuple[list[Settled], int]:
        """Write what follows from each reading, and release the ids that are to be put back.

        Returns what was written, and how many ids were released. Raises StoreUnavailable.
        """
        store, lane, token = self.writer.store, self.writer.lane, self.writer.token
        released, now = 0, self.clock.now()
        if visibility.blind:  # a single call would prove nothing
            found.readings |= dict.fromkeys(found.unconfirmed, (ABSENT, None))
        else:
            found.put_back |= dict.fromkeys(found.unconfirmed, now + SOON)
        for not_before in set(found.put_back.values()):
            some = [self.tasks[name] for name, at in found.put_back.items() if at == not_before]
            released += store.tasks.release(lane, token, some, now, not_before)
        policy = self.absence_policy
        decided = [
            (decide(self.tasks[name], reading, record, now, policy, visibility), reading)
            for name, (reading, record) in found.readings.items()
        ]
        polls: dict[str, list[Observation]] = defaultdict(list)
        for outcome, reading in decided:
            if reading.verdict in _TEACHING:
                polls[outcome.model or outcome.task.model].append(
                    _observation(outcome.task, reading, now)
                )
        recorded.polled(lane.service, [(each.task, reading, each) for each, reading in decided])
        settled = self.writer.write(
            [
                (each, now if each.state.terminal else self._next_poll(each, now, visibility))
                for each, _ in decided
            ],
            now,
            found.asked.calls,
        )
        _log(lane, decided, settled)
        self.forecasts.learn(lane, polls, now)
        return settled, released

    def _next_poll(self, outcome: Outcome, now: float, visibility: Visibility) -> float:
        """When a pending id is worth its next poll; at the latest at its deadline."""
        task, absence_policy = outcome.task, self.absence_policy
        forecast = self.forecasts.forecast(self.writer.lane, outcome.model or task.model, now)
        price = forecast.price
        if task.announced_at is not None:  # too early: no other callback will come
            price *= forecast.silent
        at = task.submitted_at + forecast.next_age(now - task.submitted_at, price)
        if outcome.absences:  # the duration model says nothing of ids that are gone
            first = max(absence_policy.over / absence_policy.polls, SOON)
            wait = visibility.wait(outcome.absences, first)
            at = now + wait if visibility.blind else min(at, now + wait)
        return min(at, task.deadline_at) if now < task.deadline_at else at


def _log(
    lane: Lane, decided: Sequence[tuple[Outcome, Reading]], settled: Sequence[Settled]
) -> None:
    log = logger().bind(lane=str(lane))
    for outcome, reading in decided:
        if reading.notice:
            state = outcome.state.value
            log.warning("record.odd", id=outcome.task.id, why=reading.notice, outcome=state)
    for one in settled:
        if one.ended:
            log.info("task.settled", id=one.id, outcome=one.verdict)


def _observation(task: TrackedTask, reading: Reading, now: float) -> Observation:
    """What this poll taught about how long tasks take.

    The time stamp of the API tells when it finished. It counts from the submit, as ages do: an id
    that is submitted late ends the sooner.
    """
    last_age = max((task.polled_at or task.submitted_at) - task.submitted_at, 0.0)
    finished, duration = reading.verdict is not Verdict.PENDING, None
    if finished and reading.finished_at is not None:
        duration = reading.finished_at - task.submitted_at
    announced = task.is_announced and (
        task.polls > 0 or (task.announced_at or 0.0) - task.submitted_at > _ADOPTED
    )
    return Observation(last_age, now - task.submitted_at, finished, duration, announced)
