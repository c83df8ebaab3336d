"""What an operator may say of an endpoint: kinds of webhooks, headers, a rate, retries."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.endpoints.endpoint_options import EndpointOptions, shown
from cavendish.endpoints.webhook_endpoint import Endpoint, Header
from cavendish.endpoints.webhook_events import KINDS, TO_OPERATORS, chosen, events_complaint
from cavendish.endpoints.webhook_headers import (
    LONGEST_VALUE,
    MOST,
    header_complaint,
    headers_complaint,
)
from cavendish.model import State
from cavendish.policy.backoff import (
    FIRST_WAIT,
    LONGEST_WINDOW,
    MOST_RETRIES,
    WEBHOOK_WAITS,
    RetrySchedule,
    webhook,
)

SHOP = Endpoint(
    "shop",
    "https://shop.example/x",
    1.0,
    rate=60.0,
    events=("task.failed",),
    headers=(Header("X-Tenant", "7 for shop, X-Tenant"), Header("X-Old", "old")),
    schedule=RetrySchedule(4, 3600.0),
)


def sealed(name: str, value: str, header: str) -> str:
    return f"{value} for {name}, {header}"


# --- kinds of webhooks


def test_every_terminal_state_has_a_kind_that_can_be_chosen() -> None:
    assert {f"task.{state.value}" for state in State if state.terminal} < {*KINDS}
    assert len(KINDS) == len({*KINDS})
    assert {"group.completed", *TO_OPERATORS} < {*KINDS}


@pytest.mark.parametrize(
    ("events", "kind", "gets"),
    [
        ((), "task.failed", True),
        (("task.failed",), "task.failed", True),
        (("task.failed",), "task.succeeded", False),
        (("task.*",), "task.cancelled", True),
        (("task.*",), "group.completed", False),
        (("service.*", "task.failed"), "service.back", True),
    ],
)
def test_an_endpoint_gets_what_it_chooses(events: tuple[str, ...], kind: str, gets: bool) -> None:
    assert chosen(events, kind) is gets


@pytest.mark.parametrize("event", ["task.done", "*", "task", "tas*", "none.*", ""])
def test_a_kind_that_does_not_exist_is_refused_with_those_that_do(event: str) -> None:
    complaint = events_complaint(["task.failed", event])
    assert complaint
    assert complaint.startswith(repr(event))
    assert all(kind in complaint for kind in KINDS)
    assert events_complaint([*KINDS, "task.*", "account.*"]) is None


# --- headers


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Webhook-Id", "set by Cavendish"),
        ("webhook-anything", "set by Cavendish"),
        ("ce-type", "set by Cavendish"),
        ("Content-Type", "set by Cavendish"),
        ("content-length", "set by Cavendish"),
        ("USER-AGENT", "set by Cavendish"),
        ("traceparent", "set by Cavendish"),
        ("Host", "belongs to HTTP"),
        ("Transfer-Encoding", "belongs to HTTP"),
        ("connection", "belongs to HTTP"),
        ("TE", "belongs to HTTP"),
        ("Trailer", "belongs to HTTP"),
        ("Upgrade", "belongs to HTTP"),
        ("Expect", "belongs to HTTP"),
        ("Proxy-Authorization", "belongs to HTTP"),
        ("", "the name of a header"),
        ("X Tenant", "the name of a header"),
        ("X-Tenant\r\nX-More", "the name of a header"),
        ("größe", "the name of a header"),
        ("x" * 65, "the name of a header"),
    ],
)
def test_a_header_of_ours_or_of_http_or_without_a_name_is_refused(name: str, why: str) -> None:
    assert why in (header_complaint(name, "7") or "")


@pytest.mark.parametrize(
    "value",
    ["", " ", "a\nb", "a\rb", "a\x00b", "\x7f", "grün", " a", "a ", "x" * (LONGEST_VALUE + 1)],
)
def test_a_value_that_could_begin_another_header_is_refused_and_not_shown(value: str) -> None:
    complaint = header_complaint("X-Tenant", value)
    assert complaint
    assert not value.strip() or value not in complaint


@pytest.mark.parametrize("name", ["Authorization", "X-Tenant", "Cookie", "x.y", "X-Webhook-Id"])
def test_a_header_of_the_operators_own_is_taken(name: str) -> None:
    assert header_complaint(name, "Bearer a.b=/+ c\td") is None


def test_headers_are_few_and_small_together() -> None:
    many = {f"X-{number}": "7" for number in range(MOST)}
    assert headers_complaint(many) is None
    assert headers_complaint(many, ["x-0"]) is None
    assert "at most 10" in (headers_complaint(many, ["other"]) or "")
    large = {f"X-{number}": "x" * LONGEST_VALUE for number in range(5)}
    assert "larger than" in (headers_complaint(large) or "")
    assert "given twice" in (headers_complaint({"X-A": "1", "x-a": "2"}) or "")


# --- retries


@given(
    st.integers(1, MOST_RETRIES).flatmap(
        lambda retries: st.tuples(
            st.just(retries), st.floats(retries * FIRST_WAIT, LONGEST_WINDOW, allow_nan=False)
        )
    )
)
def test_the_last_attempt_is_made_when_the_schedule_says_and_none_comes_fast(
    pair: tuple[int, float],
) -> None:
    schedule = RetrySchedule(*pair)
    waits = schedule.waits
    assert schedule.complaint is None
    assert len(waits) == pair[0] + 1
    assert sum(waits) == pytest.approx(pair[1], abs=0.2)
    assert waits[0] == 0
    assert all(wait >= FIRST_WAIT - 0.2 for wait in waits[1:])
    assert all(later >= earlier - 0.3 for earlier, later in pairwise(waits))


@pytest.mark.parametrize(
    ("retries", "seconds"),
    [(-1, 60.0), (MOST_RETRIES + 1, 86400.0), (3, 14.0), (3, LONGEST_WINDOW + 1)],
)
def test_a_schedule_out_of_bounds_is_refused_and_if_stored_it_is_the_default(
    retries: int, seconds: float
) -> None:
    schedule = RetrySchedule(retries, seconds)
    assert schedule.complaint
    assert schedule.waits == WEBHOOK_WAITS


def test_no_retry_means_one_attempt() -> None:
    waits = RetrySchedule(0, 60.0).waits
    assert waits == (0.0,)
    assert webhook(1, None, 0.0, waits) is None


@pytest.mark.parametrize("asked", [1.0, 3600.0, 86400.0])
def test_a_short_schedule_undercuts_no_retry_after_up_to_a_day(asked: float) -> None:
    waits = RetrySchedule(2, 20.0).waits
    wait = webhook(1, asked, 0.0, waits)
    assert wait == max(asked, waits[1])
    assert webhook(1, 1e9, 0.0, waits) == 86400.0


# --- all together


@pytest.mark.parametrize(
    ("named", "changed"),
    [
        ({"url": "https://new.example/"}, {"url": "https://new.example/"}),
        ({"events": ("task.*", "task.*")}, {"events": ["task.*"]}),
        ({"events": ("all",)}, {"events": ["all"]}),
        ({"reset": frozenset({"events"})}, {"events": ["all"]}),
        ({"rate": 9.0}, {"rate": 9.0, "per_minute": 9.0}),
        ({"reset": frozenset({"rate"})}, {"rate": None, "per_minute": None}),
        ({"retries": 2}, {"retries": 2}),
        ({"retry_for": 60.0}, {"retry_for": 60.0}),
        ({"reset": frozenset({"retries"})}, {"retries": 9, "retry_for": 272105.0}),
        ({"removed": ("x-OLD",)}, {"headers": ["X-Tenant"]}),
        ({"headers": {"X-New": "1"}}, {"headers": ["X-Tenant", "X-Old", "X-New"]}),
        ({"headers": {"x-tenant": "8"}}, {"headers": ["X-Old", "x-tenant"]}),
        ({"reset": frozenset({"headers"}), "headers": {"A": "1"}}, {"headers": ["A"]}),
    ],
)
def test_what_is_named_changes_and_nothing_else(
    named: dict[str, Any], changed: dict[str, Any]
) -> None:
    options = EndpointOptions(**named)
    assert options.complaint(SHOP) is None
    after = options.applied(SHOP, sealed)
    assert shown(after) == shown(SHOP) | changed
    assert (after.keys, after.created_at, after.consent) == (SHOP.keys, 1.0, False)
    for name, value in named.get("headers", {}).items():
        assert Header(name, f"{value} for shop, {name}") in after.headers


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ({"removed": ("X-Never",)}, "no header x-never"),
        ({"rate": 0.0}, "the rate is 1 to"),
        ({"retries": 16}, "0 to 15"),
        ({"retry_for": 1.0}, "4 retries take 20 s"),
        ({"events": ("task.done",)}, "'task.done' is no kind"),
        ({"headers": {"Host": "x"}}, "belongs to HTTP"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(named: dict[str, Any], why: str) -> None:
    assert why in (EndpointOptions(**named).complaint(SHOP) or "")


def test_an_endpoint_is_read_back_with_all_its_options_and_one_of_before_has_the_defaults() -> None:
    assert Endpoint.from_json("shop", SHOP.to_json()) == SHOP
    old = Endpoint.from_json("shop", '{"url":"https://x.example/","created_at":1.0,"keys":[]}')
    assert old is not None
    assert (old.events, old.headers, old.calls_per_minute, old.waits) == (
        (),
        (),
        None,
        WEBHOOK_WAITS,
    )


def test_the_repr_of_options_and_of_an_endpoint_shows_no_value_of_a_header() -> None:
    assert "secret" not in repr(EndpointOptions(headers={"X-A": "secret"}))
    assert "7 for shop" not in repr(SHOP)
