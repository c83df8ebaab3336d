"""One shape of a record for all clients: what the vendor's SDK takes our answers for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from acedatacloud._runtime.tasks import failure_reason, task_status

from cavendish.model import State, TrackedTask
from cavendish.policy.verdicts import classify
from cavendish_worker.service.gateway.canonical import canonical, pending

ID = "0af76519-16cd-43dd-8448-eb211c80319c"
URL = "https://cdn.example.com/a.png"
ERROR = {"code": "api_error", "message": "no channel"}
FINISHED = {"finished_at": 1_780_000_000.5}

PUBLISHED = [
    (f"{path.stem}: {one['what']}", one["record"])
    for path in sorted((Path(__file__).parents[1] / "golden").glob("*.json"))
    for one in json.loads(path.read_text())["records"]
]
#: Failures as they were seen: each is told otherwise by some client of the vendor.
FAILURES: dict[str, dict[str, Any]] = {
    "flag and error, without a time": {"response": {"success": False, "error": ERROR}},
    "flag and text": {"response": {"success": False, "error": "refused"}, **FINISHED},
    "error alone": {"response": {"error": ERROR}},
    "text alone": {"response": {"error": "refused"}},
    "the documented one": {"response": {"success": False, "error": ERROR}, **FINISHED},
    "with media": {"response": {"success": False, "error": ERROR, "data": [{"image_url": URL}]}},
    "of a provider": {"response": {"status": 422, "message": "bad voice"}},
    "with a word that means running": {
        "response": {"success": False, "error": ERROR, "data": [{"state": "pending"}]},
        **FINISHED,
    },
    "with a word of its own": {"response": {"state": "dead", "message": "gone"}},
    "an error beside the response": {"error": ERROR, "response": {}},
}
#: Successes that some client waits for in vain.
SUCCESSES: dict[str, dict[str, Any]] = {
    "without a flag": {"response": {"data": [{"image_url": URL}]}, **FINISHED},
    "without a time": {"response": {"success": True, "data": [{"image_url": URL}]}},
    "with a word of its own": {"response": {"data": {"status": "done", "video_url": URL}}},
    "without media": {"response": {"success": True, "data": []}, **FINISHED},
    "its own response": {"success": True, "data": [{"image_url": URL}]},
}


def ended(record: dict[str, Any] | None, state: State, reason: str = "") -> TrackedTask:
    return TrackedTask(
        ID, "nano-banana", "default", state, 1.0, 2.0, settled_at=1.5, reason=reason, record=record
    )


def test_a_pending_id_is_pending_whatever_is_in_its_request() -> None:
    """Without a response the SDK looks for URLs in all of the record, and finds the callback."""
    assert task_status(pending(ID)) == ""
    task = TrackedTask(ID, "nano-banana", "default", State.PENDING, 1.0, 2.0)
    assert canonical(task) == {"id": ID, "response": {}}


@pytest.mark.parametrize(
    "record", [record for _, record in PUBLISHED], ids=[what for what, _ in PUBLISHED]
)
def test_the_sdk_reads_every_published_record_as_cavendish_does(record: dict[str, Any]) -> None:
    reading = classify(record)
    if reading.verdict.value not in ("succeeded", "failed"):
        pytest.skip("it has not ended")
    task = ended(record, State(reading.verdict.value), reading.reason)
    told = json.loads(json.dumps(canonical(task)))
    assert task_status(told) == reading.verdict.value


@pytest.mark.parametrize("record", FAILURES.values(), ids=list(FAILURES))
def test_a_failure_is_a_failure_in_the_form_that_no_client_crashes_on(
    record: dict[str, Any],
) -> None:
    """An error is an object with code and message; a time and a word stand beside it."""
    reading = classify(record)
    assert reading.verdict.value == "failed"
    told = canonical(ended(record, State.FAILED, reading.reason))
    assert task_status(told) == "failed"
    assert told["state"] == "failed"
    assert told["finished_at"] == record.get("finished_at", 1.5)
    response: Any = told["response"]
    assert response["success"] is False
    assert response["task_id"] == ID
    assert all(isinstance(response["error"][name], str) for name in ("code", "message"))
    assert failure_reason(told) == response["error"]["message"] != ""


@pytest.mark.parametrize("record", SUCCESSES.values(), ids=list(SUCCESSES))
def test_a_success_is_a_success(record: dict[str, Any]) -> None:
    assert classify(record).verdict.value == "succeeded"
    told = canonical(ended(record, State.SUCCEEDED))
    assert task_status(told) == "succeeded"
    response: Any = told["response"]
    assert response["success"] is True
    assert told["finished_at"] == record.get("finished_at", 1.5)


@pytest.mark.parametrize(
    ("state", "code"),
    [(State.EXPIRED, "timeout"), (State.UNKNOWN, "not_found"), (State.CANCELLED, "canceled")],
)
def test_an_end_without_a_verdict_of_the_api_is_a_failure_with_its_reason(
    state: State, code: str
) -> None:
    told = canonical(ended(None, state, "the deadline passed"))
    assert task_status(told) == "failed"
    response: Any = told["response"]
    assert response["error"] == {"code": code, "message": "the deadline passed"}


@pytest.mark.parametrize(
    "record", [record for _, record in PUBLISHED], ids=[what for what, _ in PUBLISHED]
)
def test_nothing_that_the_api_told_is_left_out(record: dict[str, Any]) -> None:
    for state in (State.SUCCEEDED, State.FAILED):
        told = canonical(ended(record, state))
        for name, value in record.items():
            if name == "response" and isinstance(value, dict):
                response: Any = told["response"]
                assert value.keys() <= response.keys()
            elif value is not None and name != "state":
                response = told["response"]  # a record that is its own response is put into one
                assert value in (told.get(name), response.get(name)) or name == "success"


def test_our_own_callback_is_not_told_and_that_of_a_caller_is() -> None:
    ours, theirs = "https://us.example/callbacks/a/b/c", "https://them.example/hook"
    for url, told in ((ours, False), (theirs, True)):
        record = {"request": {"prompt": "p", "callback_url": url}, "response": {"success": True}}
        shown = canonical(ended(record, State.SUCCEEDED), "https://us.example/callbacks/")
        request: Any = shown["request"]
        assert ("callback_url" in request) is told
        assert request["prompt"] == "p"
