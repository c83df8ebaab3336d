"""Pure: the health of a service: whether its API works, and how many ids a call may carry.

Server errors and timeouts say nothing about the rate limit of the account; they delay the calls to
this one service. A service that the API does not serve at all is paused: now and then one call
about one id finds out whether it is served by now, and the other ids cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cavendish.policy.backoff import exponential
from cavendish.stored_json import compact, read

#: Seconds that calls wait after a first failure, and at most.
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
#: The same for a service that the API does not serve.
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0
#: Seconds for which all other calls wait for the answer of a probe.
PROBE_FOR = 5.0


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """The health of one lane. Times are in seconds since the epoch.

    `batch_limit` is the most ids that the API takes in a call (0: not known yet). After `failures`
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
        return min(wanted, self.batch_limit) if self.batch_limit else wanted


def failed(
    health: ServiceHealth, reason: str, sent_at: float, now: float, chance: float
) -> ServiceHealth:
    """A call failed. A call that was sent before the last failure counts as part of that one.

    A paused service stays paused: a failure does not say that it is served.
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


def worked(health: ServiceHealth) -> ServiceHealth:
    """A call was answered."""
    if not health.failures:
        return health
    return ServiceHealth(health.batch_limit, failed_at=health.failed_at)


def too_many(health: ServiceHealth, limit: int) -> ServiceHealth:
    """Remember that batches of more than `limit` ids are too large."""
    return replace(health, batch_limit=min(health.batch_limit or limit, limit))
