"""Answers in JSON, in the spelling of the store and of webhooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import Response

from cavendish import TrackedTask
from cavendish.record_json import valid
from cavendish.stored_json import compact


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The answer with a plain value or a dataclass."""
    return Response(compact(value), status, headers, media_type="application/json")


def task_answer(task: TrackedTask) -> Response:
    """The answer with one task."""
    return Response(_text(task), media_type="application/json")


def tasks_answer(tasks: Iterable[TrackedTask], **more: object) -> Response:
    """The answer with several tasks as `items`, and what else it says."""
    items = ",".join(map(_text, tasks))
    return Response(f'{{"items":[{items}],{compact(more)[1:]}', media_type="application/json")


def _text(task: TrackedTask) -> str:
    """The upstream record stands in it as it came, but valid."""
    plain = task.to_json()
    del plain["record"]
    return f'{compact(plain)[:-1]},"record":{valid(task.record_json or "null")}}}'
