"""What deploy/PRODUCERS.md tells producers in other languages is what a real worker takes and
refuses.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from acceptance.conftest import SERVICE, Stack, wait_until
from cavendish import Client, TrackedTask
from programs import need

DEPLOY = Path(__file__).parents[2] / "deploy"
PAGE = (DEPLOY / "PRODUCERS.md").read_text()
AS_CELERY, ITS_BODY, LEAST = (
    json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """One stack for all that producers may send."""
    running = Stack("--no-flower", "--median", "1", "--rate", "20")
    yield running
    running.close()


@pytest.fixture
def broker(stack: Stack) -> Iterator[redis.Redis]:
    """The broker as a program without Celery sees it."""
    with redis.Redis(unix_socket_path=str(stack.folder / "data" / "redis.sock"), db=1) as raw:
        yield raw


def tracked(stack: Stack, task_id: str) -> TrackedTask | None:
    """What the store knows of the id by now."""
    with Client(stack.facts["store"]) as client:
        return client.get(task_id, service=SERVICE)


def test_the_message_of_the_page_has_the_shape_that_celery_gives_it_and_the_body_shown(
    stack: Stack, broker: redis.Redis
) -> None:
    assert json.loads(base64.b64decode(AS_CELERY["body"])) == ITS_BODY
    # Beside the queue, where no worker takes it away.
    with Celery(broker=stack.facts["broker"], set_as_current=False) as producer:
        producer.send_task(
            "cavendish.submit", args=ITS_BODY[0], kwargs=ITS_BODY[1], queue="a-shelf"
        )
    sent = json.loads(broker.lpop("a-shelf"))  # type: ignore[arg-type]
    assert json.loads(base64.b64decode(sent["body"])) == ITS_BODY
    assert sent["properties"].pop("delivery_info") == {"exchange": "", "routing_key": "a-shelf"}
    assert AS_CELERY["properties"]["delivery_info"] == {
        "exchange": "",
        "routing_key": "cavendish.submit",
    }
    own = {"id", "root_id", "origin", "correlation_id", "reply_to", "delivery_tag"}
    for part in ("headers", "properties"):
        shown = {name: value for name, value in AS_CELERY[part].items() if name != "delivery_info"}
        assert {**shown, **dict.fromkeys(own & set(shown))} == {
            **sent[part],
            **dict.fromkeys(own & set(sent[part])),
        }
    assert {name for name in AS_CELERY if name not in ("headers", "properties")} == {
        "body",
        "content-type",
        "content-encoding",
    }
    assert all(AS_CELERY[name] == sent[name] for name in ("content-type", "content-encoding"))


def test_both_messages_of_the_page_are_taken_as_they_stand(
    stack: Stack, broker: redis.Redis
) -> None:
    for message in (AS_CELERY, LEAST):
        broker.lpush("cavendish.submit", json.dumps(message))
    ids = [*ITS_BODY[0][0], *json.loads(LEAST["body"])[0][0]]
    first, second, least = (
        wait_until(lambda one=one: tracked(stack, one), 60, f"{one} is tracked") for one in ids
    )
    assert first.metadata == second.metadata == {"order": 7}
    assert first.deadline_at - first.submitted_at == 900
    assert (least.service, least.account) == (SERVICE, "default")


def test_what_the_page_says_is_refused_is_refused_with_a_reason_and_the_worker_lives_on(
    stack: Stack, broker: redis.Redis
) -> None:
    def but(*gone: str, **changed: Any) -> str:
        message = json.loads(json.dumps(LEAST)) | changed
        for name in gone:
            message.pop(name, None)
            message.get("headers", {}).pop(name, None)
        return json.dumps(message)

    worker = stack.pids()["worker"]
    wrong = {
        "message.refused": [
            "hello",
            b"\xff\xfe",
            "[" * 100_000,
            "[]",
            "7",
            but(properties=7),
            but(body=7),
            but("body"),
            but(body="hello"),
            but("task"),
            but("headers"),
        ],
        "submit.refused": [
            but(body=json.dumps([[["x"]], options, {}]))
            for options in ({}, {"service": "veo", "webhok": ""})
        ],
    }
    wrong["message.refused"] += [
        json.dumps({"__type__": odd, "__value__": "odd"})
        for odd in ("uuid", "decimal", "datetime", [])
    ]
    wrong["message.refused"] += [but(headers={"task": "cavendish.nothing", "id": "1"})]
    wrong["message.refused"] += [but("id"), but(body=json.dumps([[["x"]], {"service": "veo"}]))]
    in_base64 = {"body_encoding": "base64", "delivery_tag": ["odd"], "delivery_info": "odd"}
    wrong["message.refused"] += [
        but(body="!", properties=in_base64),
        but(properties={"body_encoding": "rot13"}),
    ]
    for said, messages in wrong.items():
        for message in messages:
            before = stack.lines().count(said)
            broker.lpush("cavendish.submit", message)
            wait_until(
                lambda said=said, before=before: stack.lines().count(said) > before,
                60,
                f"{said}: {message[:80]!r}",
            )
    assert stack.pids()["worker"] == worker
    assert "restoring" not in stack.lines().lower()
    assert "Connection to broker lost" not in stack.lines()


def test_a_program_in_node_runtime_ids_over_and_their_webhooks_arrive(stack: Stack) -> None:
    need("node")
    ids = stack.create(3)
    hook = stack.facts["receiver"]
    command = ["node", str(DEPLOY / "producer.mjs"), stack.facts["broker"], SERVICE, hook, *ids]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    wait_until(lambda: set(stack.ledger()["states"]) >= set(ids), 60, "all were announced")
    assert {
        task.metadata["from"]
        for task in map(partial(tracked, stack), ids)
        if task and task.metadata
    } == {"node"}


def test_the_page_shows_the_program_as_it_is() -> None:
    programs = re.findall(r"```js\n(.*?)```", PAGE, re.DOTALL)
    assert (DEPLOY / "producer.mjs").read_text() in programs
