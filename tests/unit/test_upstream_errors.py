"""Why the remote API did not answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.model import Quota, UpstreamError, UpstreamErrorKind
from cavendish_worker.polling.upstream_errors import (
    NOT_FOUND,
    error_code,
    quota,
    retry_after,
    upstream_error,
)

RATE, ACCOUNT, FORBIDDEN, TOO_MANY, DOWN, NOT_SERVED = (
    UpstreamErrorKind.RATE,
    UpstreamErrorKind.ACCOUNT,
    UpstreamErrorKind.FORBIDDEN,
    UpstreamErrorKind.TOO_MANY,
    UpstreamErrorKind.DOWN,
    UpstreamErrorKind.NOT_SERVED,
)

CODES = [
    # verified
    ("bad_request", 400, UpstreamErrorKind.BAD),
    ("no_token", 400, ACCOUNT),
    ("invalid_token", 401, ACCOUNT),
    ("token_expired", 401, ACCOUNT),
    ("token_mismatched", 401, ACCOUNT),
    ("token_mismatched", 400, ACCOUNT),
    ("disabled", 403, ACCOUNT),
    ("disabled", 400, ACCOUNT),
    ("used_up", 403, ACCOUNT),
    ("forbidden", 403, FORBIDDEN),
    ("no_api", 404, NOT_SERVED),
    ("api_not_implemented", 400, NOT_SERVED),
    ("request_too_large", 413, TOO_MANY),
    ("too_many_requests", 429, RATE),
    ("api_error", 500, DOWN),
    ("timeout", 504, DOWN),
    # others seen
    ("invalid_request", 400, UpstreamErrorKind.BAD),
    ("not_found", 404, DOWN),
    ("content_too_large", 413, TOO_MANY),
    ("busy", 503, DOWN),
    ("duplication", 400, DOWN),
    ("canceled", 500, DOWN),
    ("not_applied", 403, DOWN),
    ("unknown", 500, DOWN),
    ("1026", 200, DOWN),
    ("invalid_402", 402, ACCOUNT),
    ("402", 402, ACCOUNT),
    # withdrawn
    ("unauthorized", 401, ACCOUNT),
    ("insufficient_balance", 402, ACCOUNT),
    ("rate_limited", 429, RATE),
    ("upstream_error", 502, DOWN),
    ("upstream_timeout", 504, DOWN),
    ("content_moderation", 403, FORBIDDEN),
    ("task_not_found", 404, DOWN),
    ("task_failed", 200, DOWN),
]


@pytest.mark.parametrize(("code", "status", "why"), CODES)
def test_every_code_that_was_ever_seen_is_understood(
    code: str, status: int, why: UpstreamErrorKind
) -> None:
    for body in (
        {"error": {"code": code, "message": "m"}, "trace_id": "t"},
        {"code": code, "detail": "m"},
    ):
        assert upstream_error(status, {}, body) == UpstreamError(why, f"HTTP {status} {code} m")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("used_up", ACCOUNT),
        ("disabled", ACCOUNT),
        ("forbidden", FORBIDDEN),
        ("", DOWN),
        ("waf", DOWN),
    ],
)
def test_a_403_is_whatever_its_code_says_and_without_one_it_blames_nobody(
    code: str, why: UpstreamErrorKind
) -> None:
    assert upstream_error(403, {}, {"error": {"code": code}}).why is why


@pytest.mark.parametrize(
    ("status", "why"),
    [(401, ACCOUNT), (402, ACCOUNT), (413, TOO_MANY), (429, RATE), (404, NOT_SERVED)]
    + [(501, NOT_SERVED)]
    + [
        (status, DOWN) for status in (0, 200, 301, 400, 403, 405, 408, 418, 500, 502, 503, 504, 520)
    ],
)
@pytest.mark.parametrize(
    "body", [None, {}, [], "<html>", 5, {"error": None}, {"error": []}, {"detail": "x"}]
)
def test_the_status_speaks_where_the_body_has_no_code(
    status: int, why: UpstreamErrorKind, body: Any
) -> None:
    blames = status == 400 and body == {
        "detail": "x"
    }  # a 400 that says something blames what was asked
    assert upstream_error(status, {}, body).why is (UpstreamErrorKind.BAD if blames else why)


#: Codes that are not known by name: their status speaks for them.
NAMELESS = {
    "bad_request",
    "invalid_request",
    "duplication",
    "canceled",
    "not_applied",
    "unknown",
    "1026",
    "invalid_402",
    "402",
}
NAMELESS |= NOT_FOUND | {"task_failed"}


@pytest.mark.parametrize(
    ("code", "why"), sorted({(code, why) for code, _, why in CODES if code not in NAMELESS})
)
@pytest.mark.parametrize("status", [200, 401, 418, 429])
def test_a_code_that_is_known_by_name_needs_no_status(
    code: str, why: UpstreamErrorKind, status: int
) -> None:
    assert upstream_error(status, {}, {"error": {"code": code}}).why is why


def test_too_many_ids_is_known_by_name() -> None:
    assert upstream_error(422, {}, {"error": {"code": "too_many_ids"}}).why is TOO_MANY


@pytest.mark.parametrize("status", [200, 400, 403, 404, 500, 503])
@pytest.mark.parametrize(
    ("code", "why"), [("too_many_requests", RATE), ("used_up", ACCOUNT), ("api_error", DOWN)]
)
def test_a_code_is_believed_before_the_status(
    status: int, code: str, why: UpstreamErrorKind
) -> None:
    assert upstream_error(status, {}, {"success": False, "error": {"code": code}}).why is why


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ({"error": {"code": "c", "message": "m"}, "trace_id": "t"}, ("c", "m")),
        ({"success": False, "error": {"code": "c", "message": "m"}, "trace_id": "t"}, ("c", "m")),
        ({"code": "c", "detail": "m"}, ("c", "m")),
        ({"detail": "m", "code": "c", "success": False, "status": "failed"}, ("c", "m")),
        ({"error": "m"}, ("", "m")),
        ({"error": "m", "code": "c"}, ("c", "m")),
        ({"error": None}, ("", "")),
        ({"error": [{"code": "c"}]}, ("", "")),
        ({"error": {}}, ("", "")),
        ({"error": {"code": 1026, "message": "m"}}, ("1026", "m")),
        ({"error": {"code": None, "message": None}}, ("", "")),
        ({"message": "m"}, ("", "m")),
        ({"success": False}, ("", "")),
        *((nothing, ("", "")) for nothing in (None, [], "text", 5, True, {})),
    ],
)
def test_code_and_message_are_found_in_every_envelope(body: Any, read: tuple[str, str]) -> None:
    assert error_code(body) == read


@pytest.mark.parametrize(
    "message",
    [
        "too many ids",
        "ids: at most 20 are allowed",
        "the number of ids exceeds 50",
        "maximum length is 50",
        "max number of ids is 50",
        "Maximum number of ids is 50",
        "the list is too long",
        "limit must not be larger than 20",
    ],
)
@pytest.mark.parametrize(
    "envelope", [lambda m: {"error": {"code": "bad_request", "message": m}}, lambda m: {"error": m}]
)
def test_a_400_that_complains_of_the_number_of_ids_is_too_many(message: str, envelope: Any) -> None:
    assert upstream_error(400, {}, envelope(message)).why is TOO_MANY


@pytest.mark.parametrize(
    "message", ["", "ids is required", "invalid json", "unknown action", "unknown field foo"]
)
def test_a_plain_400_is_not_too_many(message: str) -> None:
    assert (
        upstream_error(400, {}, {"error": {"code": "bad_request", "message": message}}).why
        is not TOO_MANY
    )


@pytest.mark.parametrize(
    ("status", "code", "why"),
    [
        (500, "bad_request", DOWN),
        (400, "api_not_implemented", NOT_SERVED),
        (400, "no_token", ACCOUNT),
    ],
)
def test_only_a_400_without_a_known_code_is_searched_for_too_many(
    status: int, code: str, why: UpstreamErrorKind
) -> None:
    assert (
        upstream_error(status, {}, {"error": {"code": code, "message": "too many ids"}}).why is why
    )


def test_codes_for_an_unknown_id_are_no_refusal_codes_of_another_kind() -> None:
    assert {"not_found", "task_not_found"} == NOT_FOUND
    assert all(why is DOWN for code, _, why in CODES if code in NOT_FOUND)


@pytest.mark.parametrize(
    "body",
    [
        None,
        {"message": "no Route matched with those values"},
        {"detail": "Not Found"},
        {"error": {"code": "no_api", "message": "the task API is not there"}},
    ],
)
def test_a_404_for_a_whole_call_says_that_the_service_is_not_served(body: Any) -> None:
    assert upstream_error(404, {}, body).why is NOT_SERVED


@pytest.mark.parametrize(
    "body",
    [
        {"message": "task not found"},
        {"detail": "no such id"},
        {"error": "No record matches these IDs"},
        {"error": {"code": "not_found", "message": "nothing here"}},
    ],
)
def test_a_404_that_speaks_of_the_ids_says_nothing_of_the_service(body: Any) -> None:
    assert upstream_error(404, {}, body).why is DOWN


def test_a_404_about_one_id_alone_says_that_the_service_is_not_served_only_by_its_code() -> None:
    assert upstream_error(404, {}, None, alone=True).why is DOWN
    assert upstream_error(404, {}, {"error": {"code": "no_api"}}, alone=True).why is NOT_SERVED


def test_the_detail_is_one_short_printable_line() -> None:
    detail = upstream_error(
        500, {}, {"error": {"code": "x\n" * 100, "message": "y\x00\ud800" * 200}}
    ).detail
    assert len(detail) == 200
    assert detail.isprintable()


# --- Retry-After

DATE = "Wed, 21 Oct 2026 07:27:00 GMT"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("30", 30.0),
        (" 30 ", 30.0),
        ("2.5", 2.5),
        ("-3", 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 60.0),
        ("Wed, 21 Oct 2026 07:28:00 -0000", 60.0),
        ("Wed, 21 Oct 2026 09:28:00 +0200", 60.0),
        ("Wed, 21 Oct 2026 07:20:00 GMT", 0.0),
        *(
            (garbage, None)
            for garbage in (
                "",
                " ",
                "soon",
                "inf",
                "-inf-",
                "nan",
                "1e300",
                "5;x",
                "5, 6",
                "2026-10-21",
                "Wed",
            )
        ),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date_by_the_servers_own_clock(
    text: str, seconds: float | None
) -> None:
    assert retry_after({"retry-after": text, "date": DATE}) == seconds
    assert upstream_error(429, {"retry-after": text, "date": DATE}, None).retry_after == seconds


@pytest.mark.parametrize("headers", [{}, {"date": "garbage"}, {"date": ""}])
def test_a_date_without_a_servers_clock_is_read_by_our_own(headers: dict[str, str]) -> None:
    assert retry_after({**headers, "retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert (retry_after({**headers, "retry-after": "Wed, 21 Oct 2045 07:28:00 GMT"}) or 0) > 86400


def test_no_retry_after_is_none_and_every_refusal_may_carry_one() -> None:
    assert retry_after({}) is None
    assert upstream_error(503, {"retry-after": "7"}, None) == UpstreamError(DOWN, "HTTP 503", 7.0)


# --- RateLimit


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"ratelimit": '"default";r=50;t=30'}, Quota(50.0, 30.0)),
        ({"ratelimit": "r=0, t=1"}, Quota(0.0, 1.0)),
        ({"ratelimit-remaining": "7", "ratelimit-reset": "12"}, Quota(7.0, 12.0)),
        ({"x-ratelimit-remaining": "7", "x-ratelimit-reset": "1.5"}, Quota(7.0, 1.5)),
        (
            {"x-ratelimit-remaining": "7", "x-ratelimit-reset": "1792567680", "date": DATE},
            Quota(7.0, 60.0),
        ),
        *(
            ({"ratelimit-remaining": remaining, "ratelimit-reset": reset, "date": DATE}, None)
            for remaining, reset in [
                ("7", ""),
                ("", "12"),
                ("many", "12"),
                ("7", "soon"),
                ("-1", "12"),
                ("nan", "12"),
                ("7", "nan"),
                ("inf", "12"),
                ("7", "0"),
                ("7", "-5"),
                ("7", "86400"),
                ("7", "1792567620"),
                ("7", "1792567680000"),
            ]
        ),
        ({"ratelimit": "r=50"}, None),
        ({"ratelimit": "limit=100"}, None),
        ({}, None),
    ],
)
def test_the_rate_limit_headers_are_read_in_all_their_spellings(
    headers: dict[str, str], expected: Quota | None
) -> None:
    assert quota(headers) == upstream_error(429, headers, None).quota == expected


@given(st.text(max_size=30))
def test_any_short_text_can_stand_in_retry_after(text: str) -> None:
    seconds = retry_after({"retry-after": text, "date": DATE})
    assert seconds is None or 0 <= seconds < 1e9
