"""Pure: what is said about a tracked task that ended, or about an endpoint, and under which name.

The same bytes at every try, but for `results_expired`, which only a late one says.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cavendish.model import State, TrackedTask, compact

#: Bytes of the largest body that is sent; a record that makes it larger stays in the store.
LARGEST = 256 * 1024


def event_id(*parts: str) -> str:
    """The name of an event.

    A hash of what it is about, so a receiver can tell repeats at no cost.
    """
    return "msg_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def webhook_id(task: TrackedTask) -> str:
    """The name of this webhook: a hash of what ended and how."""
    return event_id(task.account, task.service, task.id, task.state.value, repr(task.submitted_at))


def body(
    task: TrackedTask, *, now: float | None = None, result_lifetime: float | None = None
) -> bytes:
    """The JSON that is sent.

    `result_lifetime`: seconds after its finish at which the API forgets the results of the task.
    """
    data = {
        "id": task.id,
        "service": task.service,
        "account": task.account,
        "state": task.state.value,
        "reason": task.reason,
        "submitted_at": task.submitted_at,
        "finished_at": task.finished_at,
        "settled_at": task.settled_at,
        "polls": task.polls,
        "metadata": task.metadata,
        "task": task.record,
    }
    ended = task.settled_at if task.finished_at is None else task.finished_at
    if result_lifetime is not None and ended is not None and task.state is State.SUCCEEDED:
        data["results_expire_at"] = ended + result_lifetime
        if now is not None and now >= ended + result_lifetime:
            data["results_expired"] = True
    kind, at = f"task.{task.state.value}", task.settled_at or 0.0
    whole = _event(kind, data, at)
    return whole if len(whole) <= LARGEST else _event(kind, data | _left_out(task), at)


def endpoint_event(kind: str, data: Mapping[str, Any], at: float) -> bytes:
    """The JSON of an event in the life of an endpoint, such as `endpoint.disabled` or
    `endpoint.test`.
    """
    return _event(kind, data, at)


def _event(kind: str, data: Mapping[str, Any], at: float) -> bytes:
    """Standard Webhooks layout: type, timestamp, data."""
    timestamp = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    return compact({"type": kind, "timestamp": timestamp, "data": dict(data)}).encode()


def _left_out(task: TrackedTask) -> dict[str, Any]:
    """What is said in place of a record that is too large.

    The id came from outside, and people paste commands into shells.
    """
    end_of_options = ["--"] if task.id.startswith("-") else []
    fetch = [
        "cavendish",
        "show",
        "--service",
        task.service,
        "--account",
        task.account,
        *end_of_options,
        task.id,
    ]
    return {"task": None, "truncated": True, "fetch": shlex.join(fetch)}
