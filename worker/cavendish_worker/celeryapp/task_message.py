"""What Celery gets of a message: a task of ours, its id, and its checked arguments; nothing else.

Anybody may have sent the message, and Celery acts on much of what it says: it would keep the
message back, throw it away, or call other tasks after it; and where it cannot, it logs a traceback
or ends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from kombu.utils.json import dumps

from cavendish.task_names import DISPATCH, QUEUES, RETRIEVE, SUBMIT
from cavendish_worker.wording.hosts_only import hosts_only

#: What a monitor of Celery shows, and the header of a trace; all else in the headers is left out.
_TEXTS = ("argsrepr", "kwargsrepr", "origin", "traceparent")
_LANE = re.compile(r"[a-z0-9_-]{1,40}/[a-z0-9-]{1,40}/[0-9]{1,3}")


def prepare(message: Any) -> str | None:
    """Reduce a message to what Celery may act on, in place; returns why it is refused, if so.

    Raises what Kombu raises for a body that is not JSON.
    """
    headers = message.headers if isinstance(message.headers, dict) else {}
    payload = message.payload
    said = payload if isinstance(payload, dict) else {}  # protocol 1: all of it is in the body
    task, name = (headers.get(key, said.get(key)) for key in ("task", "id"))
    if task is None:
        return "it names no task"
    if not isinstance(task, str) or task not in QUEUES:
        return f"it calls {str(task)[:60]!r}, which is no task of Cavendish"
    if not isinstance(name, str) or not name:
        return "it has no id, or its id is no text"
    if isinstance(payload, dict):
        parts: Sequence[Any] = (payload.get("args", []), payload.get("kwargs", {}), None)
    elif isinstance(payload, list | tuple) and len(payload) == 3:
        parts = payload
    else:
        return "its body does not have three parts"
    args, options, after = parts
    if complaint := _arguments_complaint(task, args, options):
        return complaint
    message.headers = _headers(task, name, said | headers)
    if after != {} or isinstance(payload, dict):
        _write(message, [args, options, {}])
    return None


def _headers(task: str, name: str, said: dict[str, Any]) -> dict[str, Any]:
    kept = {key: said[key] for key in _TEXTS if isinstance(said.get(key), str)}
    kept |= {key: hosts_only(kept[key]) for key in kept if key != "traceparent"}
    return {"lang": "py", "task": task, "id": name, "root_id": name, "retries": 0} | kept


def _write(message: Any, body: list[Any]) -> None:
    message.body = dumps(body).encode()
    message.content_type, message.content_encoding = "application/json", "utf-8"
    message._decoded_cache = body


def _arguments_complaint(task: str, args: Any, options: Any) -> str | None:
    """Why a task cannot be called so; what a submit says is checked when it runs."""
    if not isinstance(args, list | tuple):
        return "its arguments are no list"
    if not isinstance(options, dict):
        return "its keywords are no JSON object"
    if task == SUBMIT:
        return "it names its ids twice" if args and "ids" in options else None
    fits = not args
    if task == RETRIEVE:
        fits = len(args) == 4 and _names_a_batch(*args)
    elif task == DISPATCH and args:
        fits = len(args) == 1 and isinstance(args[0], list) and all(map(_is_text, args[0]))
    return None if fits and not options else f"its arguments do not fit {task}"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _names_a_batch(lane: Any, ids: Any, token: Any, until: Any) -> bool:
    return (
        all(map(_is_text, (lane, token)))
        and _LANE.fullmatch(lane) is not None
        and isinstance(ids, list)
        and all(map(_is_text, ids))
        and isinstance(until, int | float)
        and math.isfinite(until)
    )
