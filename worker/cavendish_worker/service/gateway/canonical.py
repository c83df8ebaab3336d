"""Pure: the one shape of a record that all official clients of the API read alike.

They disagree about 8 of 13 published shapes: one takes a failure for a success, another one waits
for ever. So the record is told as the API told it, and what Cavendish knows is added: nothing that
came is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cavendish.model import State, TrackedTask
from cavendish.policy.verdicts import response_of

#: What each end without a verdict of the API is called in an `error`.
_CODES = {State.EXPIRED: "timeout", State.UNKNOWN: "not_found", State.CANCELLED: "canceled"}
#: Status words that the vendor's SDK takes for an end. It looks for them at any depth, so where
#: others stand (a preview that is "pending", "done") it needs one of these.
_DONE = frozenset("succeed succeeded success completed complete finished".split())
_FAILED = frozenset("failed failure error cancelled canceled rejected".split())
_DEPTH = 6
#: What stands in a response, also where a record is its own response.
_RESULT = frozenset("success data error".split())


def pending(task_id: str) -> dict[str, object]:
    """An id of which no end is known. Without the `response` the SDK may take it for a success."""
    return {"id": task_id, "response": {}}


def canonical(task: TrackedTask, callbacks: str = "") -> dict[str, object]:
    """The record of a tracked task, to be sent as JSON. `task` must have its record.

    `callbacks`: the URL below which our own callbacks lie; none of them is told.
    """
    if not task.state.terminal:
        return pending(task.id)
    record = dict(task.record or {})
    found = response_of(record)
    response = dict(found) if isinstance(found, Mapping) else {}
    if found is record:  # the vendor's CLI would take its `data` for other records
        record = {name: record[name] for name in record if name not in _RESULT}
    if task.state is State.SUCCEEDED:
        response["success"] = True
        _add_word(response, "succeeded", _DONE)
    else:
        response["success"] = False
        response["error"] = _error(task, response.get("error") or record.get("error"), response)
        response.setdefault("task_id", task.id)
        _add_word(response, "failed", _FAILED)
        record["state"] = "failed"
    if record.get("finished_at") is None:
        record["finished_at"] = task.finished_at or task.settled_at
    record.setdefault("id", task.id)
    return _without_ours(record, callbacks) | {"response": response}


def _error(task: TrackedTask, error: Any, response: Mapping[str, Any]) -> dict[str, object]:
    """An object with code and message: a text in its place makes the vendor's MCP server crash."""
    told = dict(error) if isinstance(error, Mapping) else {}
    status = response.get("status")
    native = str(status) if isinstance(status, int) and not isinstance(status, bool) else ""
    code = told.get("code") or _CODES.get(task.state) or native or "api_error"
    message = told.get("message") or told.get("detail")
    if isinstance(error, str):
        message = error
    return told | {"code": str(code), "message": str(message or task.reason or "Task failed.")}


def _add_word(response: dict[str, Any], word: str, known: frozenset[str]) -> None:
    words = set(_words(response))
    if words and not words & known:
        response["verdict"] = {"state": word}


def _words(node: Any, depth: int = 0) -> Iterator[str]:
    if depth > _DEPTH:
        return
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if key in ("state", "status") and isinstance(value, str):
            yield value.lower()
        else:
            yield from _words(value, depth + 1)
    for value in node if isinstance(node, list) else ():
        yield from _words(value, depth + 1)


def _without_ours(record: dict[str, object], callbacks: str) -> dict[str, object]:
    request = record.get("request")
    if not callbacks or not isinstance(request, Mapping):
        return record
    url = request.get("callback_url")
    if not isinstance(url, str) or not url.startswith(callbacks):
        return record
    return record | {"request": {key: request[key] for key in request if key != "callback_url"}}
