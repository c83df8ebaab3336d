"""Pure: what is said about a tracked task that ended, and under which name. The same bytes at every try."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from scheduler.tracking import TrackedTask, compact


def webhook_id(task: TrackedTask) -> str:
    """The name of this announcement: a hash of what ended and how, so a receiver can tell repeats at no cost."""
    parts = (task.account, task.service, task.id, task.state.value, repr(task.submitted_at))
    return "msg_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def body(task: TrackedTask) -> bytes:
    """The JSON that is sent, Standard Webhooks layout: type, timestamp, data."""
    return compact(
        {
            "type": f"task.{task.state.value}",
            "timestamp": datetime.fromtimestamp(task.settled_at or 0.0, UTC).isoformat().replace("+00:00", "Z"),
            "data": {
                "id": task.id,
                "service": task.service,
                "account": task.account,
                "state": task.state.value,
                "reason": task.reason,
                "submitted_at": task.submitted_at,
                "finished_at": task.finished_at,
                "settled_at": task.settled_at,
                "looks": task.looks,
                "metadata": task.metadata,
                "task": task.record,
            },
        }
    ).encode()
