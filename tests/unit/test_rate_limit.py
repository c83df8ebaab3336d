"""How fast an account may ask: the rate limit, its ceiling, its windows and its holds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.model import Quota, UpstreamErrorKind
from cavendish.policy.quota_window import START
from cavendish.policy.rate_limit import (
    BETA,
    HELD,
    LATE,
    LONGEST_RETRY_AFTER,
    RateLimit,
    acquire,
    report_answer,
    report_error,
    take,
    with_token,
)

T0 = 1_800_000_000.0
LATENCY = 0.2

#: What may happen next: seconds until then, what, how long the call took, Retry-After, chance.
Happening = tuple[float, str, float, float | None, float]
HAPPENINGS = st.lists(
    st.tuples(
        st.floats(0, 30),
        st.sampled_from(["ask", "ask", "ask", "answer", "answer", "rate", "account", "down"]),
        st.floats(0, 5),
        st.none() | st.floats(0, 300),
        st.floats(0, 1, exclude_max=True),
    ),
    max_size=60,
)


def refused(
    rate_limit: RateLimit,
    at: float,
    *,
    why: UpstreamErrorKind = UpstreamErrorKind.RATE,
    retry_after: float | None = None,
    sent_at: float | None = None,
) -> RateLimit:
    """A refusal that arrives at `at`, for a call sent LATENCY before unless said otherwise."""
    return report_error(
        rate_limit,
        why,
        "because",
        retry_after,
        at - LATENCY if sent_at is None else sent_at,
        at,
        0.0,
    )


def live(
    rate_limit: RateLimit, happenings: list[Happening], ceiling: float = 0.0
) -> list[tuple[RateLimit, float]]:
    """Let it all happen; returns each state after a call was asked for, with its wait."""
    now, asked = T0, []
    for after, what, took, retry_after, chance in happenings:
        now += after
        if what == "ask":
            rate_limit, wait = acquire(rate_limit, now, ceiling)
            asked.append((rate_limit, wait))
        elif what == "answer":
            rate_limit = report_answer(rate_limit, now - took, now)
        else:
            rate_limit = report_error(
                rate_limit, UpstreamErrorKind(what), "because", retry_after, now - took, now, chance
            )
    return asked


def run(
    rate_limit: RateLimit,
    start: float,
    seconds: float,
    accepts: Callable[[float], bool],
    demand: float = 50.0,
) -> tuple[RateLimit, list[float], list[float]]:
    """Calls as fast as the rate limit and the demand allow, each answered LATENCY later, one at a
    time.
    """
    now, accepted, denied = start, [], []
    while now < start + seconds:
        rate_limit, wait = acquire(rate_limit, now)
        if wait:
            now += wait
            continue
        if accepts(now):
            accepted.append(now)
            rate_limit = report_answer(rate_limit, now, now + LATENCY / 10)
        else:
            denied.append(now)
            rate_limit = refused(rate_limit, now + LATENCY / 10, sent_at=now)
        now += max(LATENCY / 10, 1 / demand)
    return rate_limit, accepted, denied


def quota_of(size: int, window: float) -> Callable[[float], bool]:
    """A server that accepts so many calls in each window, counted from T0."""
    taken: dict[int, int] = {}

    def accepts(at: float) -> bool:
        turn = int((at - T0) / window)
        taken[turn] = taken.get(turn, 0) + 1
        return taken[turn] <= size

    return accepts


@given(HAPPENINGS, st.floats(0.01, 1000) | st.just(0.0))
def test_a_wait_is_never_negative_and_always_finite(
    happenings: list[Happening], ceiling: float
) -> None:
    assert all(
        wait >= 0 and math.isfinite(wait) for _, wait in live(RateLimit(), happenings, ceiling)
    )


@given(HAPPENINGS)
def test_every_state_survives_its_json_and_stays_small(happenings: list[Happening]) -> None:
    for rate_limit, _ in live(RateLimit(), happenings):
        assert RateLimit.from_json(rate_limit.to_json()) == rate_limit
        assert len(rate_limit.to_json()) < 1500


@given(HAPPENINGS, st.floats(0, 600))
def test_a_paused_account_grants_nothing_until_the_pause_is_over(
    happenings: list[Happening], later: float
) -> None:
    for rate_limit, _ in live(RateLimit(), happenings):
        now = T0 + later
        after, wait = acquire(rate_limit, now)
        if rate_limit.paused(now):
            assert wait >= rate_limit.paused_until - now
        if wait:
            assert after == rate_limit


@given(HAPPENINGS, st.floats(0.1, 100))
def test_a_cap_is_never_exceeded_by_as_much_as_one_call(
    happenings: list[Happening], cap: float
) -> None:
    granted = [
        rate_limit.sent_at
        for rate_limit, wait in live(RateLimit(rate=1000.0), happenings, cap)
        if not wait
    ]
    assert all(later - earlier >= 1 / cap - 1e-6 for earlier, later in pairwise(granted))


@given(HAPPENINGS, st.floats(0, 600))
def test_the_share_in_use_is_a_share(happenings: list[Happening], later: float) -> None:
    for rate_limit, _ in live(RateLimit(), happenings):
        assert 0 <= rate_limit.used_share(T0 + later) <= 1


@given(
    st.text()
    | st.sampled_from(
        [
            "[]",
            "1",
            "null",
            '{"rate": "2"}',
            '{"rate": 0}',
            '{"rate": NaN}',
            '{"hold_reason": 1}',
            '{"x": 1}',
        ]
    )
)
def test_anything_unreadable_is_a_new_account(text: str) -> None:
    assert RateLimit.from_json(text) == RateLimit()


def test_every_field_is_kept_in_the_json() -> None:
    assert set(json.loads(RateLimit().to_json())) == {field.name for field in fields(RateLimit)}
    assert RateLimit.from_json(None) == RateLimit()


def test_a_new_account_starts_below_most_limits_and_then_doubles_while_nothing_is_refused() -> None:
    rate_limit, early, _ = run(RateLimit(), T0, HELD, lambda _: True)
    assert rate_limit.ceiling is None
    assert rate_limit.used_share(T0 + HELD) == 0.0
    assert len(early) == pytest.approx(START * HELD, abs=1)
    rate_limit, second, _ = run(rate_limit, T0 + HELD, 5, lambda _: True)
    rate_limit, third, _ = run(rate_limit, T0 + HELD + 5, 5, lambda _: True)
    assert 1.5 < len(third) / len(second) < 2.5


def test_the_first_429_makes_what_was_accepted_the_ceiling() -> None:
    rate_limit, _, _ = run(RateLimit(), T0, 15, lambda _: True)
    before = rate_limit.rate_at(T0 + 15)
    after = refused(rate_limit, T0 + 15)
    assert after.ceiling is not None
    assert before / 2 <= after.ceiling <= before
    assert after.rate_at(T0 + 15) == pytest.approx(0.85 * after.ceiling)


def test_a_straggler_sent_before_the_cut_changes_nothing() -> None:
    cut = refused(RateLimit(rate=10.0), T0)
    assert refused(cut, T0 + 0.1, sent_at=T0 - 0.1) == cut
    assert refused(cut, T0 + 1, sent_at=T0 + 0.8) != cut


def test_further_429s_without_a_success_do_not_cut_again_but_wait_ever_longer() -> None:
    rate_limit, waits = refused(RateLimit(rate=10.0), T0), []
    ceiling, now = rate_limit.ceiling, T0
    for _ in range(3):
        now = max(now, rate_limit.paused_until) + 1
        rate_limit = refused(rate_limit, now)
        waits.append(rate_limit.paused_until - now)
    assert rate_limit.ceiling == ceiling
    assert waits == sorted(waits)
    assert 0 < waits[0] < waits[-1] <= 10


def test_the_rate_limit_comes_back_to_the_ceiling_rests_and_goes_beyond_only_while_used() -> None:
    rate_limit = refused(RateLimit(rate=10.0), T0)
    ceiling = rate_limit.rate
    assert rate_limit.rate_at(T0 + rate_limit.climb) == pytest.approx(ceiling)
    assert rate_limit.rate_at(T0 + 10 * rate_limit.climb) == ceiling
    used = replace(rate_limit, sent_rate=ceiling, sent_at=T0 + 10 * rate_limit.climb)
    assert used.rate_at(T0 + 10 * rate_limit.climb) == pytest.approx(1.5 * ceiling)


def test_an_account_that_was_idle_rests_at_its_ceiling_when_demand_is_back() -> None:
    rate_limit = refused(RateLimit(rate=10.0), T0)
    rate_limit, _ = acquire(rate_limit, T0 + 3600)
    assert rate_limit.rate_at(T0 + 3600.1) == pytest.approx(rate_limit.rate)


def test_little_demand_does_not_make_the_rate_limit_grow() -> None:
    rate_limit, _, _ = run(RateLimit(), T0, 300, lambda _: True, demand=10.0)
    assert rate_limit.rate_at(T0 + 300) < 20


def test_a_retry_after_is_a_floor_for_everyone_up_to_a_cap() -> None:
    rate_limit = refused(RateLimit(), T0, retry_after=30.0)
    assert rate_limit.paused_until == T0 + 30
    assert rate_limit.pause_kind == "rate"
    assert refused(rate_limit, T0 + 1, retry_after=3.0).paused_until == T0 + 30
    assert refused(rate_limit, T0 + 1, retry_after=40.0, sent_at=T0 - 1).paused_until == T0 + 41
    assert refused(RateLimit(), T0, retry_after=86400.0).paused_until == T0 + LONGEST_RETRY_AFTER


def test_the_pause_for_a_refused_credential_grows_to_ten_minutes_until_an_answer() -> None:
    rate_limit, now, waits = RateLimit(), T0, []
    for _ in range(12):
        rate_limit = refused(rate_limit, now, why=UpstreamErrorKind.ACCOUNT, sent_at=now)
        waits.append(rate_limit.paused_until - now)
        now = rate_limit.paused_until
    assert waits[:4] == pytest.approx([5, 10, 20, 40])
    assert waits[-1] == pytest.approx(600)
    assert rate_limit.pauses == 12
    assert report_answer(rate_limit, now - 1, now).pause_kind == "account"
    resumed = report_answer(rate_limit, now, now + LATENCY)
    assert (resumed.pause_kind, resumed.pause_reason, resumed.pauses) == ("", "", 0)


def test_calls_under_way_when_the_credential_was_refused_do_not_lengthen_the_pause() -> None:
    rate_limit = refused(RateLimit(), T0, why=UpstreamErrorKind.ACCOUNT)
    assert refused(rate_limit, T0 + 1, why=UpstreamErrorKind.ACCOUNT, sent_at=T0 - 1) == rate_limit


def test_a_429_does_not_shorten_or_rename_the_pause_for_a_refused_credential() -> None:
    rate_limit = refused(refused(RateLimit(), T0, why=UpstreamErrorKind.ACCOUNT), T0 + 1)
    assert rate_limit.pause_kind == "account"
    assert rate_limit.paused_until == T0 + 5


@pytest.mark.parametrize(
    "why", [UpstreamErrorKind.DOWN, UpstreamErrorKind.FORBIDDEN, UpstreamErrorKind.TOO_MANY]
)
def test_what_is_no_429_and_no_refused_credential_changes_nothing(why: UpstreamErrorKind) -> None:
    rate_limit = refused(RateLimit(rate=10.0), T0)
    assert refused(rate_limit, T0 + 5, why=why) == rate_limit


@pytest.mark.parametrize(
    ("quota", "expected"),
    [(Quota(150, 15), 10.0), (Quota(90, 10), 9.0), (Quota(0, 10), 2.0), (Quota(9000, 10), 20.0)],
)
def test_a_quota_header_is_believed_within_a_fifth_and_twice_the_ceiling(
    quota: Quota, expected: float
) -> None:
    rate_limit = replace(RateLimit(rate=10.0, limited=True), since=T0 - 15)  # back at its ceiling
    assert report_answer(rate_limit, T0 - LATENCY, T0, quota).rate_at(T0) == pytest.approx(expected)


def test_a_quota_header_is_forgotten_when_its_time_is_over() -> None:
    rate_limit = report_answer(
        replace(RateLimit(rate=10.0, limited=True), since=T0), T0 - LATENCY, T0, Quota(1, 5)
    )
    assert rate_limit.rate_at(T0 + 4.9) < 3
    assert rate_limit.rate_at(T0 + 5.1) > 8


@pytest.mark.parametrize("window", [10.0, 15.0, 30.0, 60.0])
def test_a_spent_quota_is_recognised_and_then_spread_over_its_window(window: float) -> None:
    server = quota_of(int(5 * window), window)
    rate_limit, _, _ = run(RateLimit(), T0, 6 * window, server)
    assert min(abs(rate_limit.window - window), abs(rate_limit.window - 2 * window)) <= 1
    assert rate_limit.ceiling == pytest.approx(5, rel=0.15)
    _, accepted, denied = run(rate_limit, T0 + 6 * window, 6 * window, server)
    assert len(accepted) > 0.85 * 5 * 6 * window
    assert len(denied) < 0.03 * len(accepted)
    assert max(b - a for a, b in pairwise(accepted)) < 0.15 * window + 1


def test_a_one_second_window_is_not_taken_for_a_quota() -> None:
    server, rate_limit = quota_of(10, 1.0), RateLimit()
    for part in range(30):
        rate_limit, _, _ = run(rate_limit, T0 + 10 * part, 10, server)
        assert rate_limit.window == 0
    assert rate_limit.ceiling == pytest.approx(10, rel=0.2)


@pytest.mark.parametrize("refusals", [1, 2])
@pytest.mark.parametrize("silence", [3.0, 8.0, 20.0])
def test_a_silence_after_a_429_is_not_taken_for_a_spent_quota(
    refusals: int, silence: float
) -> None:
    """Redis was away, or nothing was due: nobody asked, so the refusals proved no quota."""
    rate_limit, _, _ = run(RateLimit(rate=15.0), T0, 4.0, lambda _: True, demand=10.0)
    for after in range(refusals):
        rate_limit = refused(rate_limit, T0 + 4.0 + LATENCY * (1 + after))
    rate_limit, accepted, _ = run(rate_limit, T0 + 4.5 + silence, 10.0, lambda _: True)
    assert rate_limit.window == 0
    assert len(accepted) > 50


@pytest.mark.parametrize("silence", [1.1, 2.0, 3.5])
def test_a_short_retry_after_is_no_spent_quota_however_late_the_next_call_comes(
    silence: float,
) -> None:
    """The API said when the episode ends; that nobody asked for a while after it proves nothing."""
    rate_limit, _, _ = run(RateLimit(), T0, 6.0, lambda _: True, demand=1.5)
    rate_limit = refused(rate_limit, T0 + 6.1, retry_after=1.0)
    rate_limit, accepted, _ = run(rate_limit, T0 + 6.1 + silence, 10.0, lambda _: True)
    assert rate_limit.window == 0
    assert len(accepted) > 20


def test_a_retry_after_as_long_as_a_quota_teaches_its_window() -> None:
    """However soon the next call comes after it."""
    rate_limit, _, _ = run(RateLimit(), T0, 6.0, lambda _: True)
    rate_limit = refused(rate_limit, T0 + 6.1, retry_after=24.0)
    rate_limit, _, _ = run(rate_limit, T0 + 30.2, 5.0, lambda _: True)
    assert rate_limit.window == pytest.approx(30, abs=1)


def test_a_window_that_is_none_is_doubted_and_forgotten() -> None:
    rate_limit, now = (
        replace(RateLimit(rate=10.0, limited=True), window=30.0, anchor=T0, since=T0),
        T0,
    )
    for off in (11, 17, 44, 51, 74):
        now = T0 + off
        rate_limit = refused(rate_limit, now)
        rate_limit = report_answer(rate_limit, now + 0.1, now + 0.3)
    assert rate_limit.window == 0


def test_the_share_in_use_follows_the_calls_that_were_really_sent() -> None:
    rate_limit, _, _ = run(
        replace(RateLimit(rate=10.0, limited=True), since=T0), T0, 60, lambda _: True, demand=5.0
    )
    assert rate_limit.used_share(T0 + 60) == pytest.approx(0.5, abs=0.1)
    assert rate_limit.used_share(T0 + 120) < 0.01


# --- several calls at once


@given(st.lists(st.floats(0.001, 0.039), min_size=200, max_size=300), st.floats(30, 900))
def test_calls_that_come_due_between_two_rounds_are_made_up_for(
    gaps: list[float], rate: float
) -> None:
    limit = RateLimit(rate=rate, limited=True, began=T0 - 60, since=T0)
    now, granted = T0, 0
    for gap in gaps:
        now += gap
        limit = replace(limit, since=now, rate=rate)  # it stays at the foot of its climb
        allowed = limit.rate_at(now)
        limit, calls = take(limit, now, 1000)
        assert calls <= 1 + LATE * allowed
        granted += calls
    assert granted == pytest.approx((now - T0) * rate * BETA, abs=2 + LATE * rate)


@pytest.mark.parametrize("rate", [0.5, 6.0, 24.0])
def test_slow_calls_are_made_one_by_one_each_at_its_time(rate: float) -> None:
    limit = RateLimit(rate=rate, limited=True, began=T0 - 60, since=T0)
    after, calls = take(limit, T0, 16)
    assert calls == 1
    assert after.next_at == pytest.approx(T0 + 1 / limit.rate_at(T0))


def test_a_probe_after_refusals_is_one_call() -> None:
    limit = refused(refused(RateLimit(rate=500.0, began=T0 - 60), T0), T0 + 1)
    after, calls = take(limit, limit.paused_until + 2, 16)
    assert calls == 1
    assert take(after, limit.paused_until + 2.1, 16)[1] == 0


def test_no_more_calls_are_taken_than_wanted() -> None:
    limit = RateLimit(rate=500.0, began=T0 - 60, next_at=T0 - 60)
    after, calls = take(limit, T0, 3)
    assert calls == 3
    assert take(after, T0, 100)[1] > 10  # the others are still allowed


# --- the cap of an operator


@pytest.mark.parametrize(("cap", "wait"), [(0.01, 100.0), (10.0, 0.1), (0.0, 0.05), (50.0, 0.05)])
def test_after_a_call_under_a_cap_the_next_one_waits_as_the_cap_of_that_moment_says(
    cap: float, wait: float
) -> None:
    """The rate limit itself allows 20 calls a second."""
    limit, calls = take(RateLimit(rate=20.0), T0, 1, 0.01)
    assert calls == 1
    assert acquire(limit, T0, cap)[1] == pytest.approx(wait)
    assert take(limit, T0 + wait + 1e-6, 1, cap)[1] == 1


def test_a_cap_that_is_removed_gives_no_burst_and_no_more_than_was_learned() -> None:
    limit = RateLimit(rate=400.0)
    for second in range(10):
        limit, calls = take(limit, T0 + second, 16, 1.0)
        assert calls == 1
    limit, calls = take(limit, T0 + 10.5, 1000)
    assert calls <= 1 + 400 * 0.04
    assert limit.cap == 0.0


# --- another token than the refused one


def refused_token(token: str) -> RateLimit:
    kind = UpstreamErrorKind.ACCOUNT
    return report_error(RateLimit(), kind, "HTTP 401", None, T0, T0, 0.0, token=token)


def test_another_token_is_tried_at_once_and_the_refused_one_waits() -> None:
    limit = refused_token("old")
    assert with_token(limit, "old", T0 + 1) == limit
    tried = with_token(limit, "new", T0 + 1)
    assert not tried.paused(T0 + 1)
    assert report_answer(tried, T0 + 2, T0 + 2).pause_kind == ""


def test_a_process_does_not_try_its_token_where_nothing_was_refused_or_nobody_said_which() -> None:
    assert with_token(RateLimit(), "new", T0) == RateLimit()
    unknown = refused_token("")
    assert with_token(unknown, "new", T0 + 1) == unknown
