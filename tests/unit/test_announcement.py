"""What is said about a tracked task that ended, and under which name."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from scheduler.tracking import State, TrackedTask
from worker.announcement import body, webhook_id

TASK = TrackedTask(
    id="4d320ead-4af4-4a55-8f3e-f2afebdf4fd0",
    service="nano-banana",
    account="default",
    state=State.SUCCEEDED,
    submitted_at=1_769_262_700.5,
    deadline_at=1_769_266_300.5,
    looks=3,
    finished_at=1_769_262_721.823,
    settled_at=1_769_262_722.25,
    metadata={"order": 7, "größe": "XL"},
    webhooks=("0123456789abcdef",),
    record={"id": "4d320ead-4af4-4a55-8f3e-f2afebdf4fd0", "response": {"success": True, "data": []}},
)
ENDED = [state for state in State if state.terminal]


def said(**changed: Any) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(body(replace(TASK, **changed)))
    return read


def test_the_same_task_is_announced_in_the_same_bytes_each_time() -> None:
    again = replace(TASK, metadata=dict(TASK.metadata or {}), record=json.loads(json.dumps(TASK.record)))
    assert body(TASK) == body(again)
    assert webhook_id(TASK) == webhook_id(again)


@pytest.mark.parametrize(
    "changed",
    [
        {"state": State.FAILED},
        {"state": State.EXPIRED},
        {"state": State.UNKNOWN},
        {"submitted_at": 1.0},
        {"account": "second"},
        {"service": "flux"},
        {"id": "another"},
    ],
)
def test_the_name_differs_by_what_ended_and_how(changed: dict[str, Any]) -> None:
    assert webhook_id(replace(TASK, **changed)) != webhook_id(TASK)


@pytest.mark.parametrize(
    "changed",
    [
        {"looks": 9},
        {"settled_at": 1.0},
        {"record": None},
        {"metadata": None},
        {"reason": "x"},
        {"webhooks": ()},
        {"deadline_at": 1.0},
    ],
)
def test_the_name_does_not_depend_on_anything_else(changed: dict[str, Any]) -> None:
    assert webhook_id(replace(TASK, **changed)) == webhook_id(TASK)


def test_the_parts_of_a_name_do_not_run_into_each_other() -> None:
    names = {
        webhook_id(replace(TASK, account=a, service=s, id=i))
        for a, s, i in [("ab", "c", "d"), ("a", "bc", "d"), ("a", "b", "cd")]
    }
    assert len(names) == 3


@pytest.mark.parametrize("task_id", ["a.b", "🍌", "x" * 200, "a b:c/d"])
@pytest.mark.parametrize("state", ENDED)
def test_a_name_is_short_plain_and_has_no_dot(task_id: str, state: State) -> None:
    assert re.fullmatch(r"msg_[0-9a-f]{32}", webhook_id(replace(TASK, id=task_id, state=state)))


def test_the_body_has_the_published_fields() -> None:
    assert said() == {
        "type": "task.succeeded",
        "timestamp": "2026-01-24T13:52:02.250000Z",
        "data": {
            "id": TASK.id,
            "service": "nano-banana",
            "account": "default",
            "state": "succeeded",
            "reason": "",
            "submitted_at": 1_769_262_700.5,
            "finished_at": 1_769_262_721.823,
            "settled_at": 1_769_262_722.25,
            "looks": 3,
            "metadata": {"order": 7, "größe": "XL"},
            "task": TASK.record,
        },
    }


@pytest.mark.parametrize("state", ENDED)
def test_each_end_has_its_type(state: State) -> None:
    assert said(state=state)["type"] == f"task.{state.value}"
    assert said(state=state)["data"]["state"] == state.value


def test_what_is_not_known_is_null() -> None:
    data = said(state=State.UNKNOWN, record=None, metadata=None, finished_at=None)["data"]
    assert (data["task"], data["metadata"], data["finished_at"]) == (None, None, None)


def test_a_whole_second_is_written_without_a_fraction() -> None:
    assert said(settled_at=1_769_262_722.0)["timestamp"] == "2026-01-24T13:52:02Z"


def test_broken_unicode_in_a_record_is_announced_as_it_came() -> None:
    assert said(record={"prompt": "\ud800 größe"})["data"]["task"] == {"prompt": "\ud800 größe"}


def test_the_body_is_compact_utf_8() -> None:
    assert "größe".encode() in body(TASK)
    assert b'": ' not in body(TASK)
    assert b"\n" not in body(TASK)
