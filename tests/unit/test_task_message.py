"""What Celery gets of a message: its task, its id and its arguments."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kombu.message import Message

from cavendish.task_names import DELIVER, DISPATCH, RETRIEVE, SUBMIT
from cavendish_worker.celeryapp.task_message import prepare

IDS = [["a", "b"]]
OPTIONS = {"service": "nano-banana"}


def message(body: Any, **headers: Any) -> Any:
    return Message(
        json.dumps(body).encode(),
        content_type="application/json",
        content_encoding="utf-8",
        headers={"task": SUBMIT, "id": "1"} | headers,
        accept=["application/json"],
    )


def test_what_celery_would_act_on_is_left_out_and_the_rest_stays() -> None:
    after = {"callbacks": [5], "errbacks": [{}], "chain": [{"task": "x"}], "chord": {"task": "y"}}
    odd = {"eta": "2999-01-01", "expires": "soon", "timelimit": "ab", "shadow": [1], "group": 7}
    said = message([IDS, OPTIONS, after], **odd, argsrepr="x", origin=[1], traceparent="00-x")
    assert prepare(said) is None
    assert said.headers == {
        "lang": "py", "task": SUBMIT, "id": "1", "root_id": "1", "retries": 0,
        "argsrepr": "x", "traceparent": "00-x",
    }  # fmt: skip
    assert json.loads(said.body) == [IDS, OPTIONS, {}]
    assert said.payload == [IDS, OPTIONS, {}]


def test_urls_in_what_a_monitor_shows_are_cut_to_their_host() -> None:
    said = message([IDS, OPTIONS, {}], kwargsrepr="{'webhook': 'https://a.example/secret'}")
    assert prepare(said) is None
    assert said.headers["kwargsrepr"] == "{'webhook': 'https://a.example/…'}"


def test_a_message_of_the_first_protocol_becomes_one_of_the_second() -> None:
    said = message({"task": SUBMIT, "id": "old", "args": IDS, "kwargs": OPTIONS, "eta": "soon"})
    said.headers = None
    assert prepare(said) is None
    assert (said.headers["task"], said.headers["id"]) == (SUBMIT, "old")
    assert said.payload == [IDS, OPTIONS, {}]


REFUSED: dict[str, tuple[Any, dict[str, Any]]] = {
    "it names no task": ([IDS, OPTIONS, {}], {"task": None}),
    "it calls 'celery.chord_unlock', which is no task of Cavendish": (
        [IDS, OPTIONS, {}],
        {"task": "celery.chord_unlock"},
    ),
    "it calls \"['cavendish.submit']\", which is no task of Cavendish": (
        [IDS, OPTIONS, {}],
        {"task": [SUBMIT]},
    ),
    "it has no id, or its id is no text": ([IDS, OPTIONS, {}], {"id": [1]}),
    "its body does not have three parts": ([IDS, OPTIONS], {}),
    "its arguments are no list": ([{"a": 1}, OPTIONS, {}], {}),
    "its keywords are no JSON object": ([IDS, [1], {}], {}),
    "it names its ids twice": ([IDS, OPTIONS | {"ids": ["c"]}, {}], {}),
    "its arguments do not fit cavendish.deliver": ([[1], {}, {}], {"task": DELIVER}),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_celery_would_trip_over_is_refused_in_a_few_words(why: str) -> None:
    body, headers = REFUSED[why]
    assert prepare(message(body, **headers)) == why


GOOD = ("default/nano-banana/0", ["a"], "token", 1.5)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        GOOD[:3],
        ("nano-banana", *GOOD[1:]),
        ("a/b/٣", *GOOD[1:]),
        (GOOD[0], "a", *GOOD[2:]),
        (GOOD[0], [1], *GOOD[2:]),
        (*GOOD[:2], 7, 1.5),
        (*GOOD[:3], "soon"),
        (*GOOD[:3], float("inf")),
    ],
)
def test_a_batch_that_no_dispatch_has_sent_is_refused(arguments: tuple[Any, ...]) -> None:
    assert prepare(message([GOOD, {}, {}], task=RETRIEVE)) is None
    said = message([arguments, {}, {}], task=RETRIEVE)
    assert prepare(said) == "its arguments do not fit cavendish.retrieve"
    assert prepare(message([GOOD, {"x": 1}, {}], task=RETRIEVE)) is not None


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [((), True), ((["a", "b"],), True), (([],), True), (("a",), False), (([1],), False),
     ((["a"], 2), False), ((None,), False)],
)  # fmt: skip
def test_a_dispatch_is_for_all_accounts_or_for_some_by_name(
    arguments: tuple[Any, ...], taken: bool
) -> None:
    refused = prepare(message([arguments, {}, {}], task=DISPATCH))
    assert refused == (None if taken else "its arguments do not fit cavendish.dispatch")
