"""A tracked task as a Redis hash: how it is read, and how an outcome is written."""

from __future__ import annotations

import math
from typing import Any

from cavendish.endpoints.webhook_endpoint import is_of_group, subscription_of_group
from cavendish.model import Candidate, Lane, Record, State, TrackedTask
from cavendish.operator_act import OperatorAct
from cavendish.policy.verdicts import Outcome
from cavendish.record_json import KeptRecord, encodable, read_record
from cavendish.stored_json import (
    DEEPEST,
    compact,
    may_be_too_deep,
    parse,
    read_lines,
    too_deep,
)


def fields_of(row: Any) -> Any:
    """The fields of a hash from a flat answer; an error of Redis as it is."""
    return dict(zip(row[::2], row[1::2], strict=True)) if isinstance(row, list) else row


def candidate(producer: str, task_id: str, due: float, fields: Any) -> Candidate:
    """A pending id with the fields that its next poll is weighed by.

    An unreadable record is a candidate too: the process that claims it quarantines it.
    """
    try:
        times = float(fields["submitted_at"]), float(fields["deadline_at"])
        polled_at, announced_at = _time(fields.get("polled_at")), _time(fields.get("announced_at"))
    except (TypeError, ValueError, KeyError):
        return Candidate(task_id, producer, due, due, due, None, "")
    model = fields.get("model") or ""
    return Candidate(task_id, producer, due, *times, polled_at, model, announced_at)


def tracked_task(task_id: str, lane: Lane, fields: Any, record: Any) -> TrackedTask | str | None:
    """The task of a hash and of its upstream record; None for an empty hash.

    Either may be an error of Redis, or damaged: then the answer is a text that says why.
    """
    for answer in (fields, record):
        if isinstance(answer, Exception):
            return _why(answer)
    try:
        return _tracked_task(task_id, lane, fields, record) if fields else None
    except (ValueError, TypeError, KeyError) as error:
        return _why(error)


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _tracked_task(task_id: str, lane: Lane, fields: dict[str, str], record: Any) -> TrackedTask:
    metadata, subscriptions = fields.get("metadata"), fields.get("webhooks", "").split()
    return TrackedTask(
        id=task_id,
        service=lane.service,
        account=lane.account,
        state=State(fields.get("state", State.PENDING)),
        submitted_at=_moment(fields["submitted_at"]),
        deadline_at=_moment(fields["deadline_at"]),
        restarts=int(fields.get("restarts") or 0),
        polls=int(fields.get("polls") or 0),
        polled_at=_time(fields.get("polled_at")),
        absences=int(fields.get("absences") or 0),
        absent_since=_time(fields.get("absent_since")),
        finished_at=_time(fields.get("finished_at")),
        settled_at=_time(fields.get("settled_at")),
        reason=fields.get("reason", ""),
        model=fields.get("model", ""),
        producer=fields.get("producer", ""),
        metadata=parse(metadata) if metadata else None,
        webhooks=tuple(one for one in subscriptions if not is_of_group(one)),
        record=read_record(record) if record else None,
        record_json=record or None,
        trace=fields.get("trace", ""),
        key=fields.get("key", ""),
        groups=tuple(fields.get(f"to:{one}", "") for one in subscriptions if is_of_group(one)),
        announced_at=_time(fields.get("announced_at")),
        acts=tuple(read_lines(OperatorAct, fields["acts"])) if "acts" in fields else (),
    )


def settle_args(outcome: Outcome, next_poll_at: float, now: float, record: str) -> list[Any]:
    """The arguments of `settle.lua` for one outcome, and the JSON text of its record."""
    task = outcome.task
    changed = {"webhooks": _told_to_groups(task)} if outcome.silent else {}  # this one first
    if outcome.polled:
        changed |= {"polls": str(task.polls + 1), "polled_at": repr(now)}
    if outcome.absences or task.absences:
        changed["absences"] = str(outcome.absences)
        changed["absent_since"] = _text(outcome.absent_since)
    if outcome.model and outcome.model != task.model:
        changed["model"] = outcome.model
    if outcome.state.terminal:
        changed |= {"state": outcome.state.value, "settled_at": repr(now)}
        changed |= {"finished_at": _text(outcome.finished_at), "reason": outcome.reason}
    words = [word for pair in changed.items() for word in pair]
    return [
        task.id,
        task.producer,
        outcome.state.value,
        task.deadline_at if outcome.state is State.EXPIRED else next_poll_at,
        record,
        _delay(outcome, now),
        len(words),
        *words,
    ]


def _told_to_groups(task: TrackedTask) -> str:
    """The subscriptions that a silent end is told to."""
    return " ".join(map(subscription_of_group, task.groups))


def _delay(outcome: Outcome, now: float) -> str:
    """Seconds from the finish at the API, or from a later submit, to now; "" if it is unknown."""
    if outcome.finished_at is None:
        return ""
    return f"{max(now - max(outcome.finished_at, outcome.task.submitted_at), 0.0):.3f}"


def stored(record: Record | None) -> str:
    """The JSON text of a record as it came; a short note instead if it is nested too deep."""
    if record is None:
        return ""
    text = encodable(record.text) if isinstance(record, KeptRecord) else None
    if (text is None or may_be_too_deep(text)) and too_deep(record):
        note = f"the record is nested more than {DEEPEST} deep and was not kept"
        return compact({"cavendish": note})
    return compact(record) if text is None else text


def _text(time: float | None) -> str:
    return "" if time is None else repr(time)


def _time(text: str | None) -> float | None:
    return float(text) if text else None


def _moment(text: str) -> float:
    """Raises ValueError for what is no moment: every record has these."""
    if not math.isfinite(at := float(text)):
        raise ValueError(f"{text} is no time")
    return at
