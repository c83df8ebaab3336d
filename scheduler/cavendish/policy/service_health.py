"""Pure: the health of a service: whether its API works, and how many ids a call may carry.

Server errors and timeouts say nothing about the rate limit of the account; they delay the calls to
this one service.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cavendish.policy.backoff import exponential
from cavendish.stored_json import compact, read

#: Seconds that calls wait after a first failure, and at most.
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
#: Seconds for which all other calls wait for the answer of a probe.
PROBE_FOR = 5.0


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """The health of one lane. Times are in seconds since the epoch.

    `batch_limit` is the most ids that the API takes in a call (0: not known yet). After `failures`
    in a row no call is sent before `down_until`.
    """

    batch_limit: int = 0
    failures: int = 0
    failed_at: float = 0.0
    down_until: float = 0.0
    reason: str = ""

    @classmethod
    def from_json(cls, text: object) -> ServiceHealth:
        """Read what `to_json` wrote; anything unreadable is a service without known failures."""
        return read(cls, text) or cls()

    def to_json(self) -> str:
        """The JSON text that is stored."""
        return compact(self)

    def batch_size(self, wanted: int) -> int:
        """How many of the `wanted` ids the next call may carry."""
        return min(wanted, self.batch_limit) if self.batch_limit else wanted


def failed(
    health: ServiceHealth, reason: str, sent_at: float, now: float, chance: float
) -> ServiceHealth:
    """A call failed. A call that was sent before the last failure counts as part of that one."""
    if sent_at < health.failed_at:
        return health
    failures = health.failures + 1
    until = now + exponential(failures, FIRST_WAIT, LONGEST_WAIT, chance)
    return replace(health, failures=failures, failed_at=now, down_until=until, reason=reason)


def probing(health: ServiceHealth, now: float) -> ServiceHealth:
    """A call is sent to a service that failed: all others wait PROBE_FOR seconds for its answer."""
    return replace(health, down_until=now + PROBE_FOR) if health.failures else health


def worked(health: ServiceHealth) -> ServiceHealth:
    """A call was answered."""
    return replace(health, failures=0, down_until=0.0, reason="") if health.failures else health


def too_many(health: ServiceHealth, limit: int) -> ServiceHealth:
    """Remember that batches of more than `limit` ids are too large."""
    return replace(health, batch_limit=min(health.batch_limit or limit, limit))
