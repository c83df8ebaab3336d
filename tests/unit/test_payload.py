"""What is said about a tracked task that ended, or about an endpoint, and under which name."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from typing import Any

import pytest

from cavendish.model import State, TrackedTask
from cavendish.stored_json import compact
from cavendish.submission import METADATA_BYTES
from cavendish_worker.webhooks.payload import LARGEST, body, event_id, operations_event, webhook_id

TASK = TrackedTask(
    id="4d320ead-4af4-4a55-8f3e-f2afebdf4fd0",
    service="nano-banana",
    account="default",
    state=State.SUCCEEDED,
    submitted_at=1_769_262_700.5,
    deadline_at=1_769_266_300.5,
    polls=3,
    finished_at=1_769_262_721.823,
    settled_at=1_769_262_722.25,
    metadata={"order": 7, "größe": "XL"},
    webhooks=("0123456789abcdef",),
    record_json='{"id":"4d320ead-4af4-4a55-8f3e-f2afebdf4fd0",'
    '"response":{"success":true,"data":[]}}',
)
#: What was sent for it before webhooks spoke of lifetimes, and its name.
GOLDEN = (
    '{"type":"task.succeeded","timestamp":"2026-01-24T13:52:02.250000Z","data":{"id":"4d320ead-'
    '4af4-4a55-8f3e-f2afebdf4fd0",'
    '"service":"nano-banana","account":"default","state":"succeeded","reason":"",'
    '"submitted_at":1769262700.5,'
    '"finished_at":1769262721.823,"settled_at":1769262722.25,"polls":3,"metadata":{"order":7,'
    '"größe":"XL"},'
    '"task":{"id":"4d320ead-4af4-4a55-8f3e-f2afebdf4fd0","response":{"success":true,"data":[]}}}}'
).encode()
GOLDEN_NAME = "msg_61cd216d0391e3ad8ab5fbfe6524ef6e"
ENDED = [state for state in State if state.terminal]


def said(
    *, now: float | None = None, result_lifetime: float | None = None, **changed: Any
) -> dict[str, Any]:
    if "record" in changed:
        changed["record_json"] = compact(changed["record"]) if changed["record"] else None
    read: dict[str, Any] = json.loads(
        body(replace(TASK, **changed), now=now, result_lifetime=result_lifetime)
    )
    return read


def test_the_bytes_and_the_name_are_those_that_receivers_know() -> None:
    assert body(TASK) == body(TASK, now=9e9) == GOLDEN
    assert webhook_id(TASK) == GOLDEN_NAME


def test_the_same_task_is_announced_in_the_same_bytes_each_time() -> None:
    again = replace(TASK, metadata=dict(TASK.metadata or {}))
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
        {"polls": 9},
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
            "polls": 3,
            "metadata": {"order": 7, "größe": "XL"},
            "task": {"id": TASK.id, "response": {"success": True, "data": []}},
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


def test_when_the_results_expire_is_said_at_every_attempt_and_that_they_did_only_after() -> None:
    ends = 1_769_262_721.823 + 3600
    for now in (None, 0.0, ends - 0.1):
        data = said(now=now, result_lifetime=3600.0)["data"]
        assert data["results_expire_at"] == ends
        assert "results_expired" not in data
    for now in (ends, ends + 1e6):
        data = said(now=now, result_lifetime=3600.0)["data"]
        assert (data["results_expire_at"], data["results_expired"]) == (ends, True)


def test_of_an_unknown_finish_the_results_expire_counted_from_when_it_was_settled() -> None:
    data = said(finished_at=None, result_lifetime=60.0, now=1_769_262_783.0)["data"]
    assert (data["results_expire_at"], data["results_expired"]) == (1_769_262_782.25, True)
    assert (
        "results_expire_at"
        not in said(finished_at=None, settled_at=None, result_lifetime=60.0, now=9e9)["data"]
    )


def test_what_is_said_of_expiry_comes_behind_all_that_was_said_before() -> None:
    late = body(TASK, now=9e9, result_lifetime=60.0)
    assert late == GOLDEN[:-2] + b',"results_expire_at":1769262781.823,"results_expired":true}}'


def test_too_large_a_record_stays_in_the_store_and_the_body_says_how_to_get_it() -> None:
    data = said(record={"image": "x" * LARGEST}, result_lifetime=60.0)["data"]
    assert (data["task"], data["truncated"]) == (None, True)
    assert data["fetch"] == f"cavendish show --service nano-banana --account default {TASK.id}"
    assert (data["metadata"], data["results_expire_at"]) == (TASK.metadata, 1_769_262_781.823)


def test_a_body_of_exactly_the_largest_size_is_sent_whole() -> None:
    room = LARGEST - len(body(replace(TASK, record_json='{"image":""}')))
    assert len(body(replace(TASK, record_json=compact({"image": "x" * room})))) == LARGEST
    assert "truncated" not in said(record={"image": "x" * room})["data"]
    assert said(record={"image": "x" * (room + 1)})["data"]["truncated"] is True
    assert said(record={"image": "ñ" * (room // 2 + 1)})["data"]["truncated"] is True


def test_the_largest_submit_with_the_largest_record_is_within_the_limit() -> None:
    metadata = {"k": "ñ" * (METADATA_BYTES // 2 - 10)}
    record = {"broken": "\ud800", "image": "x" * 16 * LARGEST}
    for text in ("🍌", "'", "\\"):
        task = replace(TASK, id=text * 200, reason=text * 500, metadata=metadata, record=record)
        assert len(body(task, now=9e9, result_lifetime=60.0)) < LARGEST / 8


@pytest.mark.parametrize("task_id", ["x; rm -rf ~", "$(id)", "it's", "a b", "--help", "-", "🍌"])
def test_the_command_that_fetches_a_record_is_safe_to_paste_into_a_shell(task_id: str) -> None:
    words = shlex.split(said(id=task_id, record={"image": "x" * LARGEST})["data"]["fetch"])
    options = ["cavendish", "show", "--service", "nano-banana", "--account", "default"]
    assert words == options + (["--"] if task_id.startswith("-") else []) + [task_id]


def test_an_event_of_an_endpoint_has_the_same_layout() -> None:
    sent = operations_event("endpoint.disabled", {"name": "größe", "since": 1.5}, 1_769_262_722.25)
    assert sent == (
        (
            '{"type":"endpoint.disabled","timestamp":"2026-01-24T13:52:02.250000Z",'
            '"data":{"name":"größe","since":1.5}}'
        ).encode()
    )
    assert (
        operations_event("endpoint.test", {}, 0)
        == b'{"type":"endpoint.test","timestamp":"1970-01-01T00:00:00Z","data":{}}'
    )


def test_the_name_of_an_event_depends_on_its_kind_and_each_part() -> None:
    parts = [
        ("endpoint.test", "a", "1"),
        ("endpoint.test", "a1"),
        ("endpoint.test", "a", "2"),
        ("endpoint.disabled", "a", "1"),
    ]
    names = [event_id(*each) for each in parts]
    assert len(set(names)) == len(parts)
    assert all(re.fullmatch(r"msg_[0-9a-f]{32}", name) for name in names)
    assert event_id("endpoint.test", "a", "1") == names[0]


def test_a_trace_changes_nothing_of_what_is_signed() -> None:
    traced = replace(TASK, trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert (body(traced), webhook_id(traced)) == (GOLDEN, GOLDEN_NAME)
