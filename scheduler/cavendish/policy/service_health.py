"""Pure: the condition of a lane: how many ids a call may carry, and whether its service is out of
order.

Server errors and timeouts say nothing about the rate limit of the account; they back this one
service off.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from cavendish.policy.backoff import exponential

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
PROBE_FOR = 5.0


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """`batch_limit` 0 means that none was met yet.

    `failures` in a row; nobody asks before `down_until`.
    """

    batch_limit: int = 0
    failures: int = 0
    failed_at: float = 0.0
    down_until: float = 0.0
    reason: str = ""

    @classmethod
    def from_json(cls, text: str | None) -> ServiceHealth:
        """Read what `to_json` wrote; anything unreadable is a new condition."""
        try:
            known = json.loads(text) if text else {}
            sound = all(
                isinstance(value, str if name == "reason" else (int, float))
                for name, value in known.items()
            )
            return cls(**known) if sound else cls()
        except (TypeError, ValueError, AttributeError):
            return cls()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def batch_size(self, wanted: int) -> int:
        """Ids in the next call."""
        return min(wanted, self.batch_limit) if self.batch_limit else wanted


def failed(
    service_health: ServiceHealth, reason: str, sent_at: float, now: float, chance: float
) -> ServiceHealth:
    """A call failed. Calls that were under way when an earlier failure was noted count with it."""
    if sent_at < service_health.failed_at:
        return service_health
    failures = service_health.failures + 1
    until = now + exponential(failures, FIRST_WAIT, LONGEST_WAIT, chance)
    return replace(
        service_health, failures=failures, failed_at=now, down_until=until, reason=reason
    )


def probing(service_health: ServiceHealth, now: float) -> ServiceHealth:
    """A call goes out to a service that failed.

    It goes alone, and the next one waits for what comes of it.
    """
    return (
        replace(service_health, down_until=now + PROBE_FOR)
        if service_health.failures
        else service_health
    )


def worked(service_health: ServiceHealth) -> ServiceHealth:
    """A call was answered."""
    return (
        replace(service_health, failures=0, down_until=0.0, reason="")
        if service_health.failures
        else service_health
    )


def too_many(service_health: ServiceHealth, limit: int) -> ServiceHealth:
    """Batches of more than `limit` ids were too large: remember."""
    return replace(service_health, batch_limit=min(service_health.batch_limit or limit, limit))
