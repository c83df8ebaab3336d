"""How fast an account may ask: the pace, its ceiling, its windows and its holds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.pace import LONGEST_RETRY_AFTER, START, Pace, acquire, report_answer, report_refusal
from scheduler.tracking import Quota, Refusal

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
    pace: Pace, at: float, *, why: Refusal = Refusal.RATE, retry_after: float | None = None, sent_at: float | None = None
) -> Pace:
    """A refusal that arrives at `at`, for a call sent LATENCY before unless said otherwise."""
    return report_refusal(pace, why, "because", retry_after, at - LATENCY if sent_at is None else sent_at, at, 0.0)


def live(pace: Pace, happenings: list[Happening], ceiling: float = 0.0) -> list[tuple[Pace, float]]:
    """Let it all happen; returns each state after a call was asked for, with its wait."""
    now, asked = T0, []
    for after, what, took, retry_after, chance in happenings:
        now += after
        if what == "ask":
            pace, wait = acquire(pace, now, ceiling)
            asked.append((pace, wait))
        elif what == "answer":
            pace = report_answer(pace, now - took, now)
        else:
            pace = report_refusal(pace, Refusal(what), "because", retry_after, now - took, now, chance)
    return asked


def run(
    pace: Pace, start: float, seconds: float, accepts: Callable[[float], bool], demand: float = 50.0
) -> tuple[Pace, list[float], list[float]]:
    """Calls as fast as the pace and the demand allow, each answered LATENCY later, one at a time."""
    now, accepted, denied = start, [], []
    while now < start + seconds:
        pace, wait = acquire(pace, now)
        if wait:
            now += wait
            continue
        if accepts(now):
            accepted.append(now)
            pace = report_answer(pace, now, now + LATENCY / 10)
        else:
            denied.append(now)
            pace = refused(pace, now + LATENCY / 10, sent_at=now)
        now += max(LATENCY / 10, 1 / demand)
    return pace, accepted, denied


def quota_of(size: int, window: float) -> Callable[[float], bool]:
    """A server that accepts so many calls in each window, counted from T0."""
    taken: dict[int, int] = {}

    def accepts(at: float) -> bool:
        turn = int((at - T0) / window)
        taken[turn] = taken.get(turn, 0) + 1
        return taken[turn] <= size

    return accepts


@given(HAPPENINGS, st.floats(0.01, 1000) | st.just(0.0))
def test_a_wait_is_never_negative_and_always_finite(happenings: list[Happening], ceiling: float) -> None:
    assert all(wait >= 0 and math.isfinite(wait) for _, wait in live(Pace(), happenings, ceiling))


@given(HAPPENINGS)
def test_every_state_survives_its_json_and_stays_small(happenings: list[Happening]) -> None:
    for pace, _ in live(Pace(), happenings):
        assert Pace.from_json(pace.to_json()) == pace
        assert len(pace.to_json()) < 1500


@given(HAPPENINGS, st.floats(0, 600))
def test_a_held_account_grants_nothing_until_the_hold_is_over(happenings: list[Happening], later: float) -> None:
    for pace, _ in live(Pace(), happenings):
        now = T0 + later
        after, wait = acquire(pace, now)
        if pace.held(now):
            assert wait >= pace.hold_until - now
        if wait:
            assert after == pace


@given(HAPPENINGS, st.floats(0.1, 100))
def test_a_cap_is_never_exceeded_by_as_much_as_one_call(happenings: list[Happening], cap: float) -> None:
    granted = [pace.sent_at for pace, wait in live(Pace(rate=1000.0), happenings, cap) if not wait]
    assert all(later - earlier >= 1 / cap - 1e-6 for earlier, later in pairwise(granted))


@given(HAPPENINGS, st.floats(0, 600))
def test_the_share_in_use_is_a_share(happenings: list[Happening], later: float) -> None:
    for pace, _ in live(Pace(), happenings):
        assert 0 <= pace.used_share(T0 + later) <= 1


@given(
    st.text()
    | st.sampled_from(["[]", "1", "null", '{"rate": "2"}', '{"rate": 0}', '{"rate": NaN}', '{"hold_reason": 1}', '{"x": 1}'])
)
def test_anything_unreadable_is_a_new_account(text: str) -> None:
    assert Pace.from_json(text) == Pace()


def test_every_field_is_kept_in_the_json() -> None:
    assert set(json.loads(Pace().to_json())) == {field.name for field in fields(Pace)}
    assert Pace.from_json(None) == Pace()


def test_a_new_account_starts_slowly_and_doubles_while_nothing_is_refused() -> None:
    pace, early, _ = run(Pace(), T0, 5, lambda _: True)
    assert pace.ceiling is None
    assert pace.used_share(T0 + 5) == 0.0
    assert START * 5 <= len(early) <= START * 5 * 2
    pace, late, _ = run(pace, T0 + 5, 5, lambda _: True)
    assert 1.5 < len(late) / len(early) < 2.5


def test_the_first_429_makes_what_was_accepted_the_ceiling() -> None:
    pace, _, _ = run(Pace(), T0, 15, lambda _: True)
    before = pace.rate_at(T0 + 15)
    after = refused(pace, T0 + 15)
    assert after.ceiling is not None
    assert before / 2 <= after.ceiling <= before
    assert after.rate_at(T0 + 15) == pytest.approx(0.85 * after.ceiling)


def test_a_straggler_sent_before_the_cut_changes_nothing() -> None:
    cut = refused(Pace(rate=10.0), T0)
    assert refused(cut, T0 + 0.1, sent_at=T0 - 0.1) == cut
    assert refused(cut, T0 + 1, sent_at=T0 + 0.8) != cut


def test_further_429s_without_a_success_do_not_cut_again_but_wait_ever_longer() -> None:
    pace, waits = refused(Pace(rate=10.0), T0), []
    ceiling, now = pace.ceiling, T0
    for _ in range(3):
        now = max(now, pace.hold_until) + 1
        pace = refused(pace, now)
        waits.append(pace.hold_until - now)
    assert pace.ceiling == ceiling
    assert waits == sorted(waits)
    assert 0 < waits[0] < waits[-1] <= 10


def test_the_pace_comes_back_to_the_ceiling_rests_and_goes_beyond_only_while_used() -> None:
    pace = refused(Pace(rate=10.0), T0)
    ceiling = pace.rate
    assert pace.rate_at(T0 + pace.climb) == pytest.approx(ceiling)
    assert pace.rate_at(T0 + 10 * pace.climb) == ceiling
    used = replace(pace, sent_rate=ceiling, sent_at=T0 + 10 * pace.climb)
    assert used.rate_at(T0 + 10 * pace.climb) == pytest.approx(1.5 * ceiling)


def test_an_account_that_was_idle_rests_at_its_ceiling_when_demand_is_back() -> None:
    pace = refused(Pace(rate=10.0), T0)
    pace, _ = acquire(pace, T0 + 3600)
    assert pace.rate_at(T0 + 3600.1) == pytest.approx(pace.rate)


def test_little_demand_does_not_make_the_pace_grow() -> None:
    pace, _, _ = run(Pace(), T0, 300, lambda _: True, demand=3.0)
    assert pace.rate_at(T0 + 300) < 6


def test_a_retry_after_is_a_floor_for_everyone_up_to_a_cap() -> None:
    pace = refused(Pace(), T0, retry_after=30.0)
    assert pace.hold_until == T0 + 30
    assert pace.hold_kind == "rate"
    assert refused(pace, T0 + 1, retry_after=3.0).hold_until == T0 + 30
    assert refused(pace, T0 + 1, retry_after=40.0, sent_at=T0 - 1).hold_until == T0 + 41
    assert refused(Pace(), T0, retry_after=86400.0).hold_until == T0 + LONGEST_RETRY_AFTER


def test_the_hold_of_a_refused_credential_grows_to_ten_minutes_and_ends_with_the_first_answer() -> None:
    pace, now, waits = Pace(), T0, []
    for _ in range(12):
        pace = refused(pace, now, why=Refusal.ACCOUNT, sent_at=now)
        waits.append(pace.hold_until - now)
        now = pace.hold_until
    assert waits[:4] == pytest.approx([5, 10, 20, 40])
    assert waits[-1] == pytest.approx(600)
    assert pace.holds == 12
    assert report_answer(pace, now - 1, now).hold_kind == "account"
    freed = report_answer(pace, now, now + LATENCY)
    assert (freed.hold_kind, freed.hold_reason, freed.holds) == ("", "", 0)


def test_calls_that_were_under_way_when_the_credential_was_refused_do_not_lengthen_the_hold() -> None:
    pace = refused(Pace(), T0, why=Refusal.ACCOUNT)
    assert refused(pace, T0 + 1, why=Refusal.ACCOUNT, sent_at=T0 - 1) == pace


def test_a_429_does_not_shorten_or_rename_the_hold_of_a_refused_credential() -> None:
    pace = refused(refused(Pace(), T0, why=Refusal.ACCOUNT), T0 + 1)
    assert pace.hold_kind == "account"
    assert pace.hold_until == T0 + 5


@pytest.mark.parametrize("why", [Refusal.DOWN, Refusal.FORBIDDEN, Refusal.TOO_MANY])
def test_what_is_no_429_and_no_refused_credential_changes_nothing(why: Refusal) -> None:
    pace = refused(Pace(rate=10.0), T0)
    assert refused(pace, T0 + 5, why=why) == pace


@pytest.mark.parametrize(
    ("quota", "expected"),
    [(Quota(150, 15), 10.0), (Quota(90, 10), 9.0), (Quota(0, 10), 2.0), (Quota(9000, 10), 20.0)],
)
def test_a_quota_header_is_believed_within_a_fifth_and_twice_the_ceiling(quota: Quota, expected: float) -> None:
    pace = replace(Pace(rate=10.0, limited=True), since=T0 - 15)  # back at its ceiling
    assert report_answer(pace, T0 - LATENCY, T0, quota).rate_at(T0) == pytest.approx(expected)


def test_a_quota_header_is_forgotten_when_its_time_is_over() -> None:
    pace = report_answer(replace(Pace(rate=10.0, limited=True), since=T0), T0 - LATENCY, T0, Quota(1, 5))
    assert pace.rate_at(T0 + 4.9) < 3
    assert pace.rate_at(T0 + 5.1) > 8


@pytest.mark.parametrize("window", [10.0, 15.0, 30.0, 60.0])
def test_a_spent_quota_is_recognised_and_then_spread_over_its_window(window: float) -> None:
    server = quota_of(int(5 * window), window)
    pace, _, _ = run(Pace(), T0, 6 * window, server)
    assert min(abs(pace.window - window), abs(pace.window - 2 * window)) <= 1
    assert pace.ceiling == pytest.approx(5, rel=0.15)
    _, accepted, denied = run(pace, T0 + 6 * window, 6 * window, server)
    assert len(accepted) > 0.85 * 5 * 6 * window
    assert len(denied) < 0.03 * len(accepted)
    assert max(b - a for a, b in pairwise(accepted)) < 0.15 * window + 1


def test_a_one_second_window_is_not_taken_for_a_quota() -> None:
    server, pace = quota_of(10, 1.0), Pace()
    for part in range(30):
        pace, _, _ = run(pace, T0 + 10 * part, 10, server)
        assert pace.window == 0
    assert pace.ceiling == pytest.approx(10, rel=0.2)


def test_a_window_that_is_none_is_doubted_and_forgotten() -> None:
    pace, now = replace(Pace(rate=10.0, limited=True), window=30.0, anchor=T0, since=T0), T0
    for off in (11, 17, 44, 51, 74):
        now = T0 + off
        pace = refused(pace, now)
        pace = report_answer(pace, now + 0.1, now + 0.3)
    assert pace.window == 0


def test_the_share_in_use_follows_the_calls_that_were_really_sent() -> None:
    pace, _, _ = run(replace(Pace(rate=10.0, limited=True), since=T0), T0, 60, lambda _: True, demand=5.0)
    assert pace.used_share(T0 + 60) == pytest.approx(0.5, abs=0.1)
    assert pace.used_share(T0 + 120) < 0.01
