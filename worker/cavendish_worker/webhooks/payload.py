"""Pure: the body and the webhook-id of a webhook, about a task that ended or for operators.

Every attempt sends the same bytes, except for `results_expired`, which only a late attempt has.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cavendish.model import OPERATIONS, Lane, State, TrackedTask
from cavendish.record_json import valid
from cavendish.stored_json import compact, read

#: Bytes of the largest body that is sent; a record that makes it larger stays in the store.
LARGEST = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Typed:
    type: str = ""


def kind_of(lane: Lane, task: TrackedTask) -> str:
    """The `type` of the webhook about what ended; an operator alert is stored as a body."""
    if lane.has_ids:
        return f"task.{task.state.value}"
    if lane != OPERATIONS:
        return "group.completed"
    alert = read(_Typed, task.record_json)
    return alert.type if alert else ""


def event_id(*parts: str) -> str:
    """The webhook-id of an event: a hash of what it is about, so that receivers notice repeats."""
    return "msg_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def webhook_id(task: TrackedTask) -> str:
    """The webhook-id of a task that ended: a hash of the task and of its state."""
    return event_id(task.account, task.service, task.id, task.state.value, repr(task.submitted_at))


def body(
    task: TrackedTask, *, now: float | None = None, result_lifetime: float | None = None
) -> bytes:
    """The JSON that is sent, at most LARGEST bytes. The record stands in it as it came, but valid.

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
    }
    data |= {"key": task.key} if task.key else {}
    data |= {"group": task.group} if task.group else {}
    more: dict[str, Any] = {}
    ended = task.settled_at if task.finished_at is None else task.finished_at
    if result_lifetime is not None and ended is not None and task.state is State.SUCCEEDED:
        more["results_expire_at"] = ended + result_lifetime
        if now is not None and now >= ended + result_lifetime:
            more["results_expired"] = True
    kind, at = kind_of(Lane(task.account, task.service), task), task.settled_at or 0.0
    whole = _event(kind, data, at, task.record_json or "null", more)
    if len(whole) <= LARGEST:
        return whole
    return _event(kind, data, at, "null", more | _left_out(task))


def group_id(group: TrackedTask) -> str:
    """The webhook-id of a group that is complete: a hash of the group and of its first submit."""
    kind = kind_of(Lane(group.account, group.service), group)
    return event_id(kind, group.account, group.id, repr(group.submitted_at))


def group_body(group: TrackedTask) -> bytes:
    """The JSON that is sent about a group that is complete."""
    found: Any = group.record or {}
    counts = found.get("counts") or {}
    data = {
        "group": group.id,
        "account": group.account,
        "size": found.get("size"),
        "counts": {state.value: counts[state.value] for state in State if state.value in counts},
        "first_submitted_at": group.submitted_at,
        "completed_at": group.settled_at,
    }
    kind = kind_of(Lane(group.account, group.service), group)
    return _event(kind, data, group.settled_at or 0.0)


def operations_event(kind: str, data: Mapping[str, Any], at: float) -> bytes:
    """The JSON of an event about no task, such as `endpoint.disabled` or `account.blind`."""
    return _event(kind, data, at)


def _event(
    kind: str,
    data: Mapping[str, Any],
    at: float,
    record: str = "",
    more: Mapping[str, Any] | None = None,
) -> bytes:
    """The layout of Standard Webhooks: type, timestamp, data.

    `record` is a JSON text, which becomes `task` behind the data; `more` data follows it.
    """
    text = compact({"type": kind, "timestamp": _timestamp(at), "data": dict(data)})
    if record:
        rest = f",{compact(more)[1:-1]}" if more else ""
        text = f'{text[:-2]},"task":{valid(record)}{rest}}}}}'
    return text.encode()


@lru_cache(64)
def _timestamp(at: float) -> str:
    """A time in ISO 8601. All ids of a batch end at the same time."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _left_out(task: TrackedTask) -> dict[str, Any]:
    """What takes the place of a record that is too large: the command that shows the record.

    It is quoted, since the id came from outside, and people paste commands into shells.
    """
    end_of_options = ["--"] if task.id.startswith("-") else []
    lane = ["--service", task.service, "--account", task.account]
    fetch = ["cavendish", "show", *lane, *end_of_options, task.id]
    return {"truncated": True, "fetch": shlex.join(fetch)}
