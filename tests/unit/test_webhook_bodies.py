"""The published schema of webhook bodies: it names each kind, and what is sent fits it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from jsonschema import Draft202012Validator

import bodies
from cavendish.endpoints.webhook_events import KINDS
from cavendish.model import State, TrackedTask
from cavendish_worker.webhooks.payload import LARGEST, body, operations_event

SCHEMA = json.loads(bodies.SCHEMA.read_text())
TASK = TrackedTask(
    id="a",
    service="nano-banana",
    account="default",
    state=State.SUCCEEDED,
    submitted_at=1_769_262_700.5,
    deadline_at=1_769_266_300.5,
    polls=3,
    finished_at=1_769_262_721.823,
    settled_at=1_769_262_722.25,
    metadata={"order": 7},
    record_json='{"id":"a","response":{"success":true}}',
)
GROUP = {
    "group": "order-7",
    "account": "default",
    "size": 3,
    "counts": {"succeeded": 2, "cancelled": 1},
    "completed_at": 1_769_262_722.25,
    "first_submitted_at": 1_769_262_700.5,
}


def test_the_schema_names_every_kind_that_can_be_chosen_and_the_test_webhook() -> None:
    kinds = set[str]()
    for name, definition in SCHEMA["$defs"].items():
        kind = definition.get("properties", {}).get("type", {})
        kinds |= {*kind.get("enum", []), *filter(None, [kind.get("const")])}
        if "properties" in definition:
            assert {"$ref": f"#/$defs/{name}"} in SCHEMA["oneOf"]
    assert kinds == {*KINDS, "endpoint.test"}


@pytest.mark.parametrize("state", [state for state in State if state.terminal])
def test_the_body_of_each_end_fits(state: State) -> None:
    ended = replace(TASK, state=state)
    bare = replace(ended, finished_at=None, metadata=None, record_json=None)
    large = replace(ended, record_json=f'"{"x" * LARGEST}"')
    for task in (ended, bare, large, replace(ended, record_json="NaN")):
        for lifetime in (None, 10.0):
            assert bodies.complaint(body(task, now=9e9, result_lifetime=lifetime)) is None


def test_the_body_of_a_completed_group_fits() -> None:
    assert bodies.complaint(operations_event("group.completed", GROUP, 1.0)) is None


@pytest.mark.parametrize(
    "sent",
    [
        b'{"type":"task.done","timestamp":"2026-01-24T13:52:02Z","data":{}}',
        body(TASK).replace(b'"polls":3,', b""),
        body(TASK).replace(b'"polls":3', b'"polls":3,"looks":3'),
        body(TASK).replace(b"13:52:02.250000Z", b"13:52:02"),
        operations_event("group.completed", GROUP | {"counts": {"pending": 1}}, 1.0),
    ],
)
def test_another_body_does_not_fit(sent: bytes) -> None:
    assert bodies.complaint(sent)


def test_the_published_schema_takes_fields_of_later_versions() -> None:
    later = json.loads(body(TASK).replace(b'"polls":3', b'"polls":3,"later":3'))
    assert Draft202012Validator(SCHEMA).is_valid(later)
    assert re.search("ignores", SCHEMA["description"])
