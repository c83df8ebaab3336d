"""What a receiver's answer means for a delivery and for its endpoint."""

from __future__ import annotations

import json
from email.utils import formatdate

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.policy.backoff import WEBHOOK_WINDOW
from cavendish.policy.circuit import REST
from cavendish_worker.webhooks.attempt_result import (
    ANSWER_KEPT,
    ATTEMPTS_KEPT,
    AttemptResult,
    ResultKind,
    classified,
    excerpt,
    log_with,
)

T = 1_700_000_000.0
OVERLOADED = (429, 502, 504)


def answered(status: int, **headers: str) -> AttemptResult:
    """Judge an answer with headers as they come over the wire; `_` stands for `-`."""
    return classified(
        status, httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()})
    )


def test_2xx_pays_410_waits_for_the_operator_and_anything_else_is_tried_later() -> None:
    for status in range(100, 600):
        result = answered(status)
        expected = (
            ResultKind.DELIVERED
            if 200 <= status < 300
            else ResultKind.OUR_FAULT
            if status == 410
            else ResultKind.RETRY
        )
        assert (result.kind, result.outcome, result.status) == (expected, f"HTTP {status}", status)
        assert result.disable == ("410 Gone" if status == 410 else "")
        assert result.rest == (REST if status in OVERLOADED else None)
        assert result.retry_after is None


# --- Retry-After


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        (formatdate(T + 90, usegmt=True), 90.0),
        (formatdate(T - 90, usegmt=True), 0.0),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e300", None),
        ("Thu, 99 Foo 2023", None),
    ],
)
def test_retry_after_is_read_in_both_its_forms_against_the_clock_of_the_receiver(
    said: str, seconds: float | None
) -> None:
    result = answered(500, Retry_After=said, Date=formatdate(T, usegmt=True))
    assert (result.kind, result.retry_after, result.rest) == (ResultKind.RETRY, seconds, None)


@pytest.mark.parametrize("status", OVERLOADED)
@pytest.mark.parametrize(
    ("said", "rest"),
    [("0", REST), ("0.2", REST), ("30", 30.0), ("99999999", WEBHOOK_WINDOW), ("x", REST)],
)
def test_an_overloaded_endpoint_rests_as_long_as_it_says_within_reason(
    status: int, said: str, rest: float
) -> None:
    assert answered(status, retry_after=said).rest == rest


def test_503_rests_only_where_it_says_for_how_long() -> None:
    assert answered(503).rest is None
    assert answered(503, retry_after="0").rest is None
    assert answered(503, retry_after="60").rest == 60.0
    assert answered(500, retry_after="60").rest is None


def test_what_pays_rests_nobody_whatever_its_headers_say() -> None:
    result = answered(200, retry_after="60")
    assert (result.kind, result.rest, result.retry_after) == (ResultKind.DELIVERED, None, None)


# --- webhook-delivery


@pytest.mark.parametrize("name", ["webhook-delivery", "Webhook-Delivery", "WEBHOOK-DELIVERY"])
@pytest.mark.parametrize("wish", ["disable", "Disable", "DISABLE", "  disable  "])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, ResultKind.DELIVERED),
        (204, ResultKind.DELIVERED),
        (302, ResultKind.OUR_FAULT),
        (429, ResultKind.OUR_FAULT),
        (500, ResultKind.OUR_FAULT),
    ],
)
def test_a_receiver_that_wants_no_more_is_heard_in_any_case_and_with_any_status(
    name: str, wish: str, status: int, kind: ResultKind
) -> None:
    result = classified(status, httpx.Headers({name: wish}))
    assert (result.kind, result.disable) == (kind, "webhook-delivery: disable")


@pytest.mark.parametrize("wish", ["abort-message", "Abort-Message", " ABORT-MESSAGE "])
@pytest.mark.parametrize("status", [301, 400, 404, 422, 429, 500, 503])
def test_an_aborted_message_is_refused_and_its_endpoint_not_blamed(wish: str, status: int) -> None:
    result = classified(status, httpx.Headers({"Webhook-Delivery": wish}))
    assert (result.kind, result.outcome) == (
        ResultKind.REJECTED,
        f"HTTP {status}; the receiver aborts the message",
    )
    assert (result.disable, result.rest, result.status) == ("", None, status)


def test_a_message_that_was_taken_is_delivered_even_if_the_receiver_aborts_it() -> None:
    assert answered(200, webhook_delivery="abort-message").kind is ResultKind.DELIVERED


def test_410_ends_the_sending_whatever_else_is_said() -> None:
    assert answered(410, webhook_delivery="abort-message").disable == "410 Gone"
    assert answered(410, webhook_delivery="disable").disable == "410 Gone"


@pytest.mark.parametrize("wish", ["", "disabled", "disable, abort-message", "please", "enable"])
def test_a_wish_that_nobody_knows_is_passed_over(wish: str) -> None:
    assert answered(500, webhook_delivery=wish) == answered(500)
    assert answered(200, webhook_delivery=wish) == answered(200)


@given(
    st.integers(100, 599),
    st.dictionaries(
        st.sampled_from(["retry-after", "webhook-delivery", "date"]),
        st.text("disableabort-mesg0123456789., "),
    ),
)
def test_no_answer_whatever_it_says_breaks_the_judgement(
    status: int, headers: dict[str, str]
) -> None:
    result = classified(status, headers)
    assert (result.kind is ResultKind.DELIVERED) == (200 <= status < 300)
    assert result.rest is None or REST <= result.rest <= WEBHOOK_WINDOW
    assert result.retry_after is None or 0 <= result.retry_after < 1e9


# --- the log


def test_an_entry_is_one_line_of_json_and_says_nothing_that_is_not_so() -> None:
    result = AttemptResult(
        ResultKind.RETRY,
        "HTTP 500",
        500,
        sent_at=T + 0.12345,
        seconds=0.98765,
        address="203.0.113.7",
        answer='a "ñ"',
    )
    assert json.loads(result.entry()) == {
        "at": T + 0.123,
        "outcome": "HTTP 500",
        "seconds": 0.988,
        "status": 500,
        "address": "203.0.113.7",
        "answer": 'a "ñ"',
    }
    assert json.loads(AttemptResult(ResultKind.RETRY, "no answer within 15 s").entry()) == {
        "at": 0.0,
        "outcome": "no answer within 15 s",
        "seconds": 0.0,
    }


@given(st.text(), st.binary(max_size=5000))
def test_whatever_happens_at_an_attempt_it_is_one_line_of_the_log_that_can_be_written(
    outcome: str, answer: bytes
) -> None:
    log = log_with(
        log_with("", AttemptResult(ResultKind.RETRY, outcome, answer=excerpt(answer))),
        AttemptResult(ResultKind.DELIVERED, "HTTP 200", 200),
    )
    assert len(log.splitlines()) == 2
    assert [json.loads(line)["outcome"] for line in log.splitlines()][1] == "HTTP 200"
    assert log.encode()


def test_the_log_keeps_the_last_attempts_and_a_short_part_of_each_answer() -> None:
    log = ""
    for number in range(100):
        log = log_with(
            log,
            AttemptResult(
                ResultKind.RETRY, f"HTTP {number}", 500, sent_at=T, answer=excerpt(b"x" * 70_000)
            ),
        )
    entries = [json.loads(line) for line in log.splitlines()]
    assert [entry["outcome"] for entry in entries] == [
        f"HTTP {number}" for number in range(100 - ATTEMPTS_KEPT, 100)
    ]
    assert ATTEMPTS_KEPT == 16
    assert {len(entry["answer"]) for entry in entries} == {ANSWER_KEPT} == {1024}
    assert len(log) < ATTEMPTS_KEPT * (ANSWER_KEPT + 200)


@given(st.binary(max_size=6000))
def test_of_binary_junk_a_bounded_printable_text_is_kept(answer: bytes) -> None:
    kept = excerpt(answer)
    assert len(kept) <= ANSWER_KEPT
    assert kept.isprintable()
    assert kept.encode().decode() == kept


def test_an_answer_is_shown_as_it_is_and_a_cut_character_breaks_nothing() -> None:
    assert excerpt(b"") == ""
    assert excerpt("ñ🍌 done\r\n".encode()) == "ñ🍌 done  "
    assert excerpt("🍌".encode() * 2000) == "🍌" * ANSWER_KEPT
    assert excerpt(b"\x00\xff\x1b[31m\xed\xa0\x80") == " \ufffd [31m\ufffd\ufffd\ufffd"
