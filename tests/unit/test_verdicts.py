"""What an answer of the remote API means, and what follows from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.model import State, TrackedTask
from cavendish.policy.verdicts import (
    RUNNING,
    SUCCESSFUL,
    UNSUCCESSFUL,
    AbsencePolicy,
    Reading,
    Verdict,
    classify,
    decide,
    match,
    response_of,
    timestamp,
)

IMAGE = {"image_url": "https://cdn.example/a.png"}
ERROR = {"code": "api_error", "message": "it broke"}
AT = 1_720_364_637.404
GOLDEN = [
    json.loads(path.read_text())
    for path in sorted((Path(__file__).parents[1] / "golden").glob("*.json"))
]
#: Items of published batch answers that a person would not call succeeded.
PLAINLY_NOT = {("headshots", "5213468b-6b96-4ad4-9c6a-657bd438d299"): "pending"}


def record(response: Any, **top: Any) -> dict[str, Any]:
    return {
        "id": "a",
        "created_at": AT - 11,
        "request": {"action": "generate"},
        "response": response,
        **top,
    }


# --- upstream.md 2.3: the bodies about which the official clients disagree

TABLE = {
    "A": ({"id": "a", "request": {}}, "pending"),
    "B": ({"id": "a", "request": {"callback_url": "https://hook.example/x"}}, "pending"),
    "C": (record(None), "pending"),
    "D": (record({"success": True, "task_id": "a"}), "pending"),
    "E": (record({"success": True, "data": [IMAGE]}), "succeeded"),
    "F": (record({"success": True, "data": []}, finished_at=AT), "succeeded"),
    "G": (record({"success": False, "error": ERROR}), "failed"),
    "H": (record({"success": False, "error": "temporary"}), "pending"),
    "H finished": (record({"success": False, "error": "temporary"}, finished_at=AT), "failed"),
    "I": (record({"success": False, "error": ERROR}, finished_at=AT), "failed"),
    "J": (record({"data": [IMAGE]}), "succeeded"),
    "J2": (record({"data": [IMAGE]}, finished_at=AT), "succeeded"),
    "K": (record({"error": ERROR}), "failed"),
    "K as a text": (record({"error": "it broke"}), "failed"),
    "L": ({}, "absent"),
    "L as null": (None, "absent"),
}


@pytest.mark.parametrize(("body", "expected"), TABLE.values(), ids=TABLE.keys())
def test_every_disputed_body_has_the_defensible_verdict(body: Any, expected: str) -> None:
    assert classify(body).verdict == expected


@pytest.mark.parametrize(
    "body",
    [
        {"id": "a"},
        {"id": "a", "request": {"prompt": "x"}, "state": ""},
        record(None, finished_at=None),
        record({}),
        record({"task_id": "a"}),
        record({"task_id": "a", "trace_id": "t"}),
        record({"success": True, "task_id": "a"}),
        record({"success": True, "data": []}),
        record({"success": True, "data": None}),
        record({"data": []}),
        record({"success": False}),
        record({"success": False, "error": {}}),
        record({"success": False, "error": "temporary", "data": [IMAGE]}),
        record({"success": False, "data": [IMAGE]}),
        record({"success": True, "error": None, "data": []}),
        record({"task_id": "a", "callback_url": "https://hook.example/x"}),
        record({"task_id": "a", "trace_id": "t", "id": "a", "success": None}, finished_at=AT),
        record({"success": True, "request_url": "https://cdn.example/sent-in.png"}),
        record(
            {
                "success": True,
                "input": IMAGE,
                "reference_image_urls": ["https://cdn.example/sent-in.png"],
            }
        ),
        record({"success": True, "data": [{"image_url": ""}, {"image_url": "not yet"}]}),
    ],
)
def test_an_acknowledgement_without_a_result_is_pending(body: Any) -> None:
    assert classify(body).verdict == "pending"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (record({"success": False, "error": ERROR}), "api_error: it broke"),
        (record({"success": False, "error": ERROR, "data": [IMAGE]}), "api_error: it broke"),
        (record({"success": False, "error": {"code": "1026"}}), "1026"),
        (record({"success": False, "error": {"message": "no"}}), "no"),
        (record({"success": False, "error": {"detail": "no"}}), "no"),
        (
            record({"success": False, "error": {}}, finished_at=AT),
            "the API gives no reason for the failure",
        ),
        (
            record({"success": False, "data": [IMAGE]}, finished_at=AT),
            "the API gives no reason for the failure",
        ),
        (record({"success": False, "message": "no"}, finished_at=AT), "no"),
        (record({"success": False}, error=ERROR), "api_error: it broke"),
        (record({"error": "legacy"}), "legacy"),
        (record({"task_id": "a"}, error=ERROR), "api_error: it broke"),
        ({"id": "a", "success": False, "error": ERROR}, "api_error: it broke"),
    ],
)
def test_a_failure_that_is_spelt_out_wins_and_says_why(body: Any, reason: str) -> None:
    assert classify(body) == replace(classify(body), verdict=Verdict.FAILED, reason=reason)


@pytest.mark.parametrize("status", [400, 402, 451, 500, 599])
def test_the_bare_status_and_message_of_fish_is_a_failure(status: int) -> None:
    assert classify(record({"status": status, "message": "refused"})) == Reading(
        Verdict.FAILED, f"{status}: refused"
    )


@pytest.mark.parametrize(
    "response",
    [
        {"status": 200, "message": "ok"},
        {"status": True, "message": "x"},
        {"status": 402, "success": True},
        {"status": 99},
        {"status": 600},
    ],
)
def test_other_numbers_under_status_are_no_failure(response: Any) -> None:
    assert classify(record(response)).verdict == "pending"


@pytest.mark.parametrize(
    "response",
    [
        IMAGE,
        {"video_url": "http://cdn.example/a.mp4"},
        {"data": {"video_url": "https://cdn.example/a.mp4"}},
        {"data": [{"images": [{"url": "https://cdn.example/a.png"}]}]},
        {"success": True, "data": [IMAGE, {"error": "the second was refused"}]},
        {"data": {"urls": ["https://cdn.example/a.png"]}},
        {"data": [{"image_url": "data:image/png;base64,AAAA"}]},
        {"error": "only a warning", "data": [IMAGE]},
    ],
)
def test_a_result_is_found_wherever_a_service_keeps_it(response: Any) -> None:
    assert classify(record(response)).verdict == "succeeded"
    assert classify({"id": "a", "success": True, "data": response}).verdict == "succeeded"


# --- words, progress, notices


@pytest.mark.parametrize("word", sorted(RUNNING))
@pytest.mark.parametrize("key", ["state", "status"])
def test_a_running_word_makes_preview_media_pending(word: str, key: str) -> None:
    for body in (
        record({key: word, **IMAGE}),
        record({"data": {key: word, **IMAGE}}),
        record({"data": [{key: word, **IMAGE}]}),
        record(IMAGE, **{key: word}),
    ):
        assert classify(body) == Reading(Verdict.PENDING)


@pytest.mark.parametrize("word", sorted(SUCCESSFUL))
def test_a_successful_word_without_media_succeeds_and_is_noticed(word: str) -> None:
    assert classify(record({"state": word})).verdict == "succeeded"
    assert classify(record({"state": word})).notice == "finished without any media"
    assert classify(record({"state": word, **IMAGE})).notice == ""


@pytest.mark.parametrize("word", sorted(UNSUCCESSFUL))
def test_an_unsuccessful_word_wins_over_a_success_flag_and_media(word: str) -> None:
    assert classify(record({"success": True, "state": word, **IMAGE})).verdict == "failed"


@pytest.mark.parametrize("word", ["In Progress", "in-progress", "IN_PROGRESS", " in progress "])
def test_words_are_read_without_regard_to_their_spelling(word: str) -> None:
    assert classify(record({"state": word, **IMAGE})) == Reading(Verdict.PENDING)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["succeeded", "running"], "pending"),
        (["failed", "running"], "pending"),
        (["succeeded", "failed"], "succeeded"),
        (["failed", "dead"], "failed"),
        (["complete", "complete"], "succeeded"),
    ],
)
def test_a_job_of_several_parts_ends_with_its_last_and_fails_only_if_all_do(
    words: list[str], expected: str
) -> None:
    parts = [{"state": word} | ({} if word in UNSUCCESSFUL else IMAGE) for word in words]
    assert classify(record({"data": parts})).verdict == expected


def test_a_finish_time_wins_over_a_running_word_that_was_left_behind() -> None:
    assert classify(record({"state": "running", **IMAGE}, finished_at=AT)).verdict == "succeeded"


def test_an_unknown_status_word_is_pending_with_a_notice() -> None:
    reading = classify(record({"state": "Marinating", **IMAGE}))
    assert (reading.verdict, reading.notice) == ("pending", "unknown status word 'marinating'")


@pytest.mark.parametrize("odd", [[], [1], "text", 5, 0, True, 1.5])
def test_a_response_of_a_strange_shape_is_pending_with_a_notice(odd: Any) -> None:
    assert classify(record(odd)).verdict == "pending"
    assert classify(record(odd)).notice == f"the response is a {type(odd).__name__}"


@pytest.mark.parametrize("progress", [0, 50, 99.9, "50", "50%", " 99% "])
def test_a_preview_below_100_percent_is_pending_until_it_is_finished(progress: Any) -> None:
    for response in ({"progress": progress, **IMAGE}, {"data": [{"progress": progress, **IMAGE}]}):
        assert classify(record(response)).verdict == "pending"
        assert classify(record(response, finished_at=AT)).verdict == "succeeded"


@pytest.mark.parametrize(
    "progress",
    [
        100,
        100.0,
        "100",
        "100%",
        None,
        "soon",
        "",
        True,
        False,
        -1,
        101,
        [],
        {},
        float("nan"),
        10**400,
    ],
)
def test_progress_that_is_full_or_no_percentage_holds_nothing_up(progress: Any) -> None:
    assert classify(record({"progress": progress, **IMAGE})).verdict == "succeeded"


def test_success_without_media_is_noticed_once_it_is_finished() -> None:
    assert (
        classify(record({"success": True, "data": []}, finished_at=AT)).notice
        == "finished without any media"
    )


def test_a_finished_text_without_any_flag_or_media_succeeds_and_is_noticed() -> None:
    reading = classify(record({"task_id": "a", "data": [{"text": "la la la"}]}, finished_at=AT))
    assert (reading.verdict, reading.notice) == ("succeeded", "finished without any media")


def test_an_endlessly_deep_response_is_judged() -> None:
    deep: Any = IMAGE
    for _ in range(5000):
        deep = {"data": [deep]}
    assert classify(record(deep)).verdict == "pending"


@pytest.mark.parametrize("finished_at", [None, "", 0, False])
def test_an_empty_finish_time_is_none(finished_at: Any) -> None:
    assert classify(record({"success": True}, finished_at=finished_at)).verdict == "pending"


def test_what_is_said_is_printable_and_short() -> None:
    reading = classify(record({"error": {"code": "x", "message": "a\nb\x00\ud800" + "c" * 1000}}))
    assert reading.reason.startswith("x: a b  cc")
    assert reading.reason.isprintable()
    assert len(reading.reason) == 500


@pytest.mark.parametrize(
    ("model", "read"),
    [("nano-banana-2", "nano-banana-2"), ("m" * 101, "m" * 100), ("a\nb", ""), (5, ""), (None, "")],
)
def test_the_model_is_taken_from_the_request_where_it_is_a_plain_text(
    model: Any, read: str
) -> None:
    assert classify({"id": "a", "request": {"model": model}}).model == read


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"response": {"a": 1}, "success": True}, {"a": 1}),
        ({"success": True}, {"success": True}),
        ({"data": []}, {"data": []}),
        ({"error": "x"}, {"error": "x"}),
        ({"request": {}, "data": []}, None),
        ({"id": "a"}, None),
    ],
)
def test_a_record_is_its_own_response_only_when_it_has_neither_request_nor_response(
    body: Any, expected: Any
) -> None:
    assert response_of(body) == expected


# --- times


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_769_262_721.823, 1_769_262_721.823),
        (1_769_262_721, 1_769_262_721.0),
        (1_769_262_721_823, 1_769_262_721.823),
        ("2026-01-24T13:52:01.823Z", 1_769_262_721.823),
        ("2026-01-24T13:52:01.823+00:00", 1_769_262_721.823),
        ("2026-01-24T21:52:01.823+08:00", 1_769_262_721.823),
        ("2026-01-24T13:52:01.823", 1_769_262_721.823),
        ("2026-01-24 13:52:01.823", 1_769_262_721.823),
        *(
            (odd, None)
            for odd in (
                None,
                True,
                False,
                0,
                -5,
                "",
                "soon",
                [],
                {},
                float("nan"),
                float("inf"),
                10**400,
                "0001-01-01",
            )
        ),
    ],
)
def test_a_time_is_read_as_seconds_milliseconds_or_iso_text(
    value: Any, seconds: float | None
) -> None:
    assert timestamp(value) == seconds
    assert classify({"id": "a", "finished_at": value, "created_at": value}) == Reading(
        Verdict.PENDING, finished_at=seconds
    )


# --- match


def test_items_are_matched_by_id_and_never_by_place_or_count() -> None:
    a, b, stranger = record(IMAGE, id="a"), record(None, id="b"), record(IMAGE, id="z")
    for items in ([stranger, b, a], [a, stranger, b], [b, a]):
        found = match(items, ["a", "b", "c"])
        assert {name: reading.verdict for name, (reading, _) in found.items()} == {
            "a": "succeeded",
            "b": "pending",
        }
        assert found["a"][1] is a


def test_an_item_is_also_known_by_its_task_id() -> None:
    assert set(match([{"task_id": "a"}, {"id": "", "task_id": "b"}], ["a", "b"])) == {"a", "b"}


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"id": None},
        {"id": 5},
        {"id": ["a"]},
        {"id": {"a": 1}},
        {"_id": "a"},
        {"response": {"task_id": "a"}},
    ],
)
def test_an_item_without_an_id_of_its_own_is_passed_over(item: Any) -> None:
    assert match([item], ["a", "5"]) == {}


def test_of_duplicates_the_first_that_ended_counts_else_the_first() -> None:
    waiting, also, done, failed = record(None), record({}), record(IMAGE), record({"error": ERROR})
    assert match([waiting, done, failed], ["a", "a"])["a"][1] is done
    assert match([failed, done, waiting], ["a"])["a"][1] is failed
    assert match([waiting, also], ["a"])["a"][1] is waiting


def test_nothing_is_found_in_an_empty_answer_or_for_no_ids() -> None:
    assert match([], ["a"]) == match([record(IMAGE)], []) == {}


# --- decide

POLICY = AbsencePolicy(grace=15.0, polls=3, over=60.0)
TASK = TrackedTask(
    "a", "nano-banana", "default", State.PENDING, submitted_at=1000.0, deadline_at=4600.0
)
ABSENT, FORBIDDEN = Reading(Verdict.ABSENT), Reading(Verdict.FORBIDDEN, "HTTP 403 forbidden")
DONE, BROKEN = (
    Reading(Verdict.SUCCEEDED, finished_at=1010.0),
    Reading(Verdict.FAILED, "it broke", finished_at=1010.0),
)
PENDING = Reading(Verdict.PENDING)


def polls(reading: Reading, *times: float, task: TrackedTask = TASK) -> list[State]:
    """The states that follow when each poll finds the same."""
    states = []
    for now in times:
        outcome = decide(task, reading, None, now, POLICY)
        states.append(outcome.state)
        task = replace(task, absences=outcome.absences, absent_since=outcome.absent_since)
    return states


def test_an_end_is_written_back_with_its_record_reason_and_time() -> None:
    body = record(IMAGE)
    done, broken = (
        decide(TASK, DONE, body, 1020.0, POLICY),
        decide(TASK, BROKEN, body, 1020.0, POLICY),
    )
    assert (done.state, done.record, done.finished_at, done.reason) == (
        "succeeded",
        body,
        1010.0,
        "",
    )
    assert (broken.state, broken.record, broken.finished_at, broken.reason) == (
        "failed",
        body,
        1010.0,
        "it broke",
    )


def test_a_pending_id_stays_pending_until_its_deadline_and_is_then_expired() -> None:
    assert polls(PENDING, 1000.0, 4599.9, 4600.0) == ["pending", "pending", "expired"]
    assert decide(TASK, PENDING, {"id": "a"}, 4600.0, POLICY).record == {"id": "a"}


@pytest.mark.parametrize("reading", [DONE, BROKEN, PENDING])
@pytest.mark.parametrize("now", [1020.0, 4600.0])
def test_the_model_that_a_record_names_is_written_back(reading: Reading, now: float) -> None:
    assert (
        decide(TASK, replace(reading, model="nano-banana-2"), record(None), now, POLICY).model
        == "nano-banana-2"
    )


@pytest.mark.parametrize(("reading", "state"), [(DONE, "succeeded"), (BROKEN, "failed")])
def test_an_end_that_is_found_at_or_after_the_deadline_still_wins(
    reading: Reading, state: str
) -> None:
    assert polls(reading, 4600.0) == polls(reading, 9999.0) == [state]


@pytest.mark.parametrize("reading", [ABSENT, FORBIDDEN])
def test_an_absence_soon_after_the_submit_is_not_counted(reading: Reading) -> None:
    assert polls(reading, 1000.0, 1005.0, 1014.9) == ["pending"] * 3
    assert decide(TASK, reading, None, 1014.9, POLICY).absences == 0
    assert decide(TASK, reading, None, 1015.0, POLICY).absences == 1


@pytest.mark.parametrize(("reading", "state"), [(ABSENT, "unknown"), (FORBIDDEN, "failed")])
def test_absences_end_an_id_when_they_are_enough_and_span_enough_time(
    reading: Reading, state: str
) -> None:
    assert polls(reading, 1020.0, 1050.0, 1080.0) == ["pending", "pending", state]
    assert polls(reading, 1020.0, 1080.0, 1081.0) == ["pending", "pending", state]
    assert polls(reading, 1020.0, 1021.0, 1022.0, 1079.9, 1080.0) == ["pending"] * 4 + [state]


def test_an_absence_says_how_long_and_a_refusal_says_why() -> None:
    task = replace(TASK, absences=2, absent_since=1020.0)
    assert (
        decide(task, ABSENT, None, 1090.0, POLICY).reason
        == "the API reported the id as not found in 3 polls over 70 s"
    )
    assert decide(task, FORBIDDEN, None, 1090.0, POLICY).reason == "HTTP 403 forbidden"


def test_one_answer_in_between_makes_absences_begin_anew() -> None:
    outcome = decide(
        replace(TASK, absences=2, absent_since=1020.0), PENDING, record(None), 1090.0, POLICY
    )
    assert (outcome.state, outcome.absences, outcome.absent_since) == ("pending", 0, None)


def test_an_absent_id_is_unknown_at_its_deadline_only_after_enough_absences() -> None:
    assert polls(ABSENT, 4600.0, task=replace(TASK, absences=2, absent_since=4000.0)) == ["unknown"]
    assert polls(ABSENT, 4600.0, task=replace(TASK, absences=1, absent_since=4000.0)) == ["expired"]
    assert (
        decide(TASK, ABSENT, None, 4600.0, POLICY).reason
        == "the deadline passed; the last poll found it absent"
    )


@pytest.mark.parametrize("verdict", list(Verdict))
@given(
    now=st.floats(4600, 1e9),
    submitted=st.floats(0, 4600),
    absences=st.integers(0, 9),
    since=st.none() | st.floats(0, 5000),
)
def test_after_the_deadline_every_poll_ends_the_id(
    verdict: Verdict, now: float, submitted: float, absences: int, since: float | None
) -> None:
    task = replace(TASK, submitted_at=submitted, absences=absences, absent_since=since)
    assert decide(task, Reading(verdict), None, now, POLICY).state.terminal


# --- anything at all

_KEYS = (
    "id task_id request response success error data state status progress finished_at created_at "
    "message code detail "
    "image_url urls callback_url model duration"
).split()
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [
            "a",
            "b",
            "running",
            "failed",
            "succeeded",
            "50%",
            "https://x.example/y",
            "2026-01-01T00:00:00Z",
            "\ud800",
        ]
    ),
    st.sampled_from([0, 50, 100, 402, AT, 10**18, 10**400, float("nan"), float("inf")]),
)


def _nested(depth: int) -> st.SearchStrategy[Any]:
    if not depth:
        return _SCALARS
    inner = st.deferred(lambda: _nested(depth - 1))
    return _SCALARS | st.lists(inner, max_size=3) | _objects(inner)


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=4), inner, max_size=4)


@given(_objects(_nested(5)))
def test_any_record_can_be_judged(body: dict[str, Any]) -> None:
    for one in (
        body,
        {"id": "a", "response": body},
        {"id": "a", "response": {"data": [body], "error": body}, "finished_at": 1.0},
    ):
        reading = classify(one)
        assert isinstance(reading, Reading)
        assert reading.reason.isprintable()
        assert reading.notice.isprintable()


@given(st.lists(_objects(_nested(5)), max_size=4), st.lists(st.sampled_from("abc")))
def test_any_items_can_be_matched_and_only_asked_ids_are_found(
    items: list[dict[str, Any]], ids: list[str]
) -> None:
    found = match(items, ids)
    assert set(found) <= set(ids)
    assert all(
        isinstance(reading, Reading) and reading == classify(body)
        for reading, body in found.values()
    )


# --- golden: what the vendor's own guides show

_RECORDS = [
    (g["service"], r["what"], r["record"], r["expected"]) for g in GOLDEN for r in g["records"]
]
_ITEMS = [
    (g["service"], g["batch"]["items"], item)
    for g in GOLDEN
    if g["batch"]
    for item in g["batch"]["items"]
]


@pytest.mark.parametrize(
    ("service", "what", "body", "expected"),
    _RECORDS,
    ids=[f"{r[0]}: {r[1][:60]}" for r in _RECORDS],
)
def test_every_published_record_is_judged_as_its_guide_tells_it(
    service: str, what: str, body: Any, expected: str
) -> None:
    assert classify(body).verdict == expected


@pytest.mark.parametrize(
    ("service", "items", "item"), _ITEMS, ids=[f"{i[0]}-{i[2]['id']}" for i in _ITEMS]
)
def test_every_item_of_a_published_batch_is_found_by_its_id_and_judged(
    service: str, items: list[Any], item: Any
) -> None:
    reading, body = match(items, [item["id"]])[item["id"]]
    assert body["id"] == item["id"]
    assert (
        reading.verdict
        == classify(item).verdict
        == PLAINLY_NOT.get((service, item["id"]), "succeeded")
    )


@pytest.mark.parametrize(
    "never", ["0001-01-01T00:00:00Z", "0", 0, "0.0", "soon", -1.0, {}, [], True, "1e999"]
)
@pytest.mark.parametrize("place", ["record", "response"])
def test_a_finish_time_that_is_no_time_does_not_end_a_task(never: Any, place: str) -> None:
    """A zero date stands for none: an acknowledgement beside it is not a success."""
    body = record({"success": True, "task_id": "a"}, finished_at=never)
    if place == "response":
        body = record({"success": True, "task_id": "a", "finished_at": never})
    assert classify(body).verdict is Verdict.PENDING
    assert classify(body).finished_at is None


@pytest.mark.parametrize("at", [1769262721.8, "1769262721.8", "2026-01-24T13:52:01.800000Z"])
def test_a_finish_time_may_stand_in_the_response_and_ends_a_task_that_did_not_succeed(
    at: Any,
) -> None:
    """The official SDK's own tests call this failed."""
    reading = classify(record({"success": False, "finished_at": at}))
    assert reading.verdict is Verdict.FAILED
    assert reading.finished_at == pytest.approx(1769262721.8)
