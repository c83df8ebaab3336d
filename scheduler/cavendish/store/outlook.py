"""What one id waits for: its next poll, the next attempt of each of its deliveries, and what may
keep either from coming.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cavendish.endpoints.webhook_endpoint import Disabled, Endpoint, endpoint_in
from cavendish.model import Lane, TrackedTask
from cavendish.policy.circuit import Circuit
from cavendish.policy.operator_controls import Controls
from cavendish.policy.rate_limit import RateLimit
from cavendish.policy.service_health import ServiceHealth
from cavendish.policy.visibility import Visibility
from cavendish.store import keys
from cavendish.store.connection import Connection
from cavendish.store.controls import controls_in
from cavendish.store.keys import LaneKeys


@dataclass(frozen=True, slots=True)
class Receiver:
    """An endpoint as a delivery meets it, and `next_at`, when the delivery is due there.

    `registered` and `disabled` are None where it is not.
    """

    registered: Endpoint | None
    disabled: Disabled | None
    circuit: Circuit
    next_at: float | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """- `poll_at`: when the next poll is due, or when the `asked` one is given up; None: no poll is
      due;
    - `receivers` by the name of the delivery;
    - `health`, `visibility`, `limit` and `controls`: what may keep the API from being asked.
    """

    poll_at: float | None
    asked: bool
    receivers: Mapping[str, Receiver]
    health: ServiceHealth
    visibility: Visibility
    limit: RateLimit
    controls: Controls


def outlook(
    connection: Connection, lane: Lane, task: TrackedTask, deliveries: Sequence[str]
) -> Outlook:
    """Read all of it in one round trip; damaged keys read as absent. Raises StoreUnavailable."""
    of, pipe = LaneKeys(lane), connection.pipeline()
    pipe.zscore(of.due(task.producer), task.id)
    pipe.hexists(of.leases, task.id)
    pipe.hget(of.service_health, "value")
    pipe.hget(keys.visibility(lane), "value")
    pipe.hget(keys.rate_limit(lane.account), "value")
    pipe.hgetall(keys.CONTROLS)
    for name in deliveries:
        endpoint = endpoint_in(name)
        pipe.zscore(of.queue(endpoint), name)
        pipe.zscore(of.retries(endpoint), name)
        pipe.hget(keys.ENDPOINTS, endpoint)
        pipe.hget(keys.DISABLED, endpoint)
        pipe.hget(keys.circuit(endpoint), "value")
    poll_at, asked, health, visibility, limit, controls, *rows = connection.answers(pipe)
    return Outlook(
        _time(poll_at),
        asked is True,
        {
            name: _receiver(endpoint_in(name), *rows[5 * number : 5 * number + 5])
            for number, name in enumerate(deliveries)
        },
        ServiceHealth.from_json(health),
        Visibility.from_json(visibility),
        RateLimit.from_json(limit),
        controls_in(controls if isinstance(controls, dict) else {}),
    )


def _receiver(
    name: str, queued: Any, retried: Any, registered: Any, disabled: Any, circuit: Any
) -> Receiver:
    times = [at for at in map(_time, (queued, retried)) if at is not None]
    return Receiver(
        (Endpoint.from_json(name, registered) or Endpoint(name, "", 0.0)) if registered else None,
        Disabled.from_json(disabled) if disabled else None,
        Circuit.from_json(circuit),
        min(times, default=None),
    )


def _time(answer: Any) -> float | None:
    return answer if isinstance(answer, float) else None
