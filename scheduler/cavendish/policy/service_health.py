"""Pure: the health of a service: whether its API works, and how many ids a call may carry.

Server errors and timeouts say nothing about the rate limit of the account; they delay the calls to
this one service. A service that the API does not serve at all is paused: now and then one call
about one id finds out whether it is served by now, and the other ids cost nothing.

No limit of a call is published, and the vendor's clients ask about 50 ids at most. So the first
calls do too, and they may carry twice as many as were once answered, each of them, in one call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cavendish.policy.backoff import exponential
from cavendish.stored_json import compact, read

#: Ids in a call to a service of which nothing is known.
FIRST_BATCH = 50
#: Seconds that calls wait after a first failure, and at most.
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
#: The same for a service that the API does not serve.
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0
#: Seconds for which all other calls wait for the answer of a probe.
PROBE_FOR = 5.0


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """The health of one lane. Times are in seconds since the epoch.

    `batch_limit` is the most ids that the API takes in a call (0: not known yet), `answered` the
    most about which it told in one call, if these are enough to ask about more. After `failures`
    in a row since `failing_since` no call is sent before `down_until`. `paused_since`: when the API
    first said that it does not serve this service (0: it is served).
    """

    batch_limit: int = 0
    failures: int = 0
    failed_at: float = 0.0
    down_until: float = 0.0
    reason: str = ""
    paused_since: float = 0.0
    failing_since: float = 0.0
    answered: int = 0

    @classmethod
    def from_json(cls, text: object) -> ServiceHealth:
        """Read what `to_json` wrote; anything unreadable is a service without known failures."""
        return read(cls, text) or cls()

    def to_json(self) -> str:
        """The JSON text that is stored."""
        return compact(self)

    def batch_size(self, wanted: int) -> int:
        """How many of the `wanted` ids the next call may carry."""
        if self.paused_since:
            return 1
        return min(wanted, self._tried, self.batch_limit or wanted)

    @property
    def _tried(self) -> int:
        return max(FIRST_BATCH, 2 * self.answered)


def failed(
    health: ServiceHealth, reason: str, sent_at: float, now: float, chance: float
) -> ServiceHealth:
    """A call failed. A call that was sent before the last failure counts as part of that one.

    A paused service stays paused: a failure does not say that it is served. What was answered is
    forgotten: it may be that calls about many ids take too long.
    """
    if sent_at < health.failed_at:
        return health
    failures = health.failures + 1
    first, longest = (
        (FIRST_PAUSE, LONGEST_PAUSE) if health.paused_since else (FIRST_WAIT, LONGEST_WAIT)
    )
    until = now + exponential(failures, first, longest, chance)
    return replace(
        health,
        failures=failures,
        failed_at=now,
        down_until=until,
        reason=reason,
        failing_since=health.failing_since or now,
        answered=0,
    )


def not_served(
    health: ServiceHealth, reason: str, sent_at: float, now: float, chance: float
) -> ServiceHealth:
    """The API said that it does not serve this service. As `failed`, with longer waits."""
    if sent_at < health.failed_at:
        return health
    failures = health.failures + 1 if health.paused_since else 1
    until = now + exponential(failures, FIRST_PAUSE, LONGEST_PAUSE, chance)
    since = health.paused_since or now
    return replace(
        health,
        failures=failures,
        failed_at=now,
        down_until=until,
        reason=reason,
        paused_since=since,
        failing_since=health.failing_since or now,
    )


def probing(health: ServiceHealth, now: float) -> ServiceHealth:
    """A call is sent to a service that failed: all others wait PROBE_FOR seconds for its answer."""
    return replace(health, down_until=now + PROBE_FOR) if health.failures else health


def worked(health: ServiceHealth, asked: int = 0, told: int = 0) -> ServiceHealth:
    """A call about so many ids was answered, and told of so many of them.

    Where some are missing in a large answer, the API may have cut it short: calls begin anew.
    """
    if health.failures:
        health = ServiceHealth(health.batch_limit, failed_at=health.failed_at)
    if told < asked:
        return replace(health, answered=0) if asked > FIRST_BATCH else health
    return replace(health, answered=asked) if asked >= health._tried else health


def too_many(health: ServiceHealth, limit: int) -> ServiceHealth:
    """Remember that batches of more than `limit` ids are too large."""
    return replace(health, batch_limit=min(health.batch_limit or limit, limit))
