"""Whose ids go into a batch, and whose batch gets the next call."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.model import Candidate
from cavendish.policy.fair_share import Bid, CallShares, call_part, fair_share, next_call
from cavendish.policy.rate_limit import RateLimit


def candidate(producer: str, number: int, due: float) -> Candidate:
    return Candidate(f"{producer}-{number}", producer, due, 0.0, 1000.0, None, "")


def test_a_small_producer_gets_all_it_wants_beside_a_large_one() -> None:
    crowd = [candidate("big", n, float(n) / 100) for n in range(100)] + [
        candidate("small", n, 9.0) for n in range(5)
    ]
    batch = fair_share(crowd, 50, now=10.0)
    assert Counter(one.producer for one in batch) == {"big": 45, "small": 5}


def test_equal_wants_get_equal_shares_and_the_longest_due_goes_first() -> None:
    crowd = [candidate(producer, n, float(n)) for producer in ("a", "b", "c") for n in range(30)]
    batch = fair_share(crowd, 30, now=100.0)
    assert Counter(one.producer for one in batch) == {"a": 10, "b": 10, "c": 10}
    assert max(one.due for one in batch) == 9.0


def test_spare_slots_are_filled_with_those_due_next() -> None:
    crowd = [
        candidate("a", 1, 5.0),
        candidate("a", 2, 30.0),
        candidate("b", 1, 20.0),
        candidate("b", 2, 40.0),
    ]
    assert [one.id for one in fair_share(crowd, 3, now=10.0)] == ["a-1", "b-1", "a-2"]


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 100)), max_size=80), st.integers(1, 40)
)
def test_a_batch_is_full_if_it_can_be_and_nobody_with_less_is_passed_over(
    wants: list[tuple[str, float]], size: int
) -> None:
    crowd = [candidate(producer, number, due) for number, (producer, due) in enumerate(wants)]
    batch = fair_share(crowd, size, now=50.0)
    assert len(batch) == min(size, len(crowd)) == len({one.id for one in batch})
    got = Counter(one.producer for one in batch if one.due <= 50.0)
    wanted = Counter(one.producer for one in crowd if one.due <= 50.0)
    for short in (producer for producer in wanted if got[producer] < wanted[producer]):
        assert all(got[other] <= got[short] + 1 for other in got)


RATE = RateLimit(limited=True, rate=6.0, began=1.0)


def served(lanes: dict[str, int], calls: int, worth: float = 8.0) -> Counter[str]:
    """Who got the calls, if each producer has so many lanes that are always worth a call."""
    since = {(name, lane): 0.0 for name, count in lanes.items() for lane in range(count)}
    shares, got = CallShares(), Counter[str]()
    for call in range(1, calls + 1):
        now = call / RATE.rate
        places = list(since)
        bids = [Bid({name: worth}, since[name, lane]) for name, lane in places]
        chosen = places[next_call(bids, shares.faded(now, RATE.recent), now)]
        shares = shares.charged({chosen[0]: worth}, now, RATE.recent)
        since[chosen] = now
        got[chosen[0]] += 1
    return got


@given(st.dictionaries(st.sampled_from("abcde"), st.integers(1, 40), min_size=1))
def test_calls_are_shared_between_producers_however_many_lanes_each_has(
    lanes: dict[str, int],
) -> None:
    got = served(lanes, 20 * len(lanes))
    assert max(got.values()) - min(got[name] for name in lanes) <= 2


@given(st.lists(st.floats(0, 10), max_size=8), st.floats(0.1, 100))
def test_a_producer_may_have_an_equal_part_and_what_the_others_leave(
    others: list[float], rate: float
) -> None:
    part = call_part(others, rate)
    equal = rate / (len(others) + 1)
    assert equal * 0.999 <= part <= rate
    assert part >= (rate - sum(others)) * 0.999
    assert sum(min(one, part) for one in others) + part <= rate * 1.001  # all of them fit


def test_the_call_goes_to_the_producer_that_was_charged_least_though_others_are_worth_more() -> (
    None
):
    shares = CallShares({"big": 3.0, "small": 1.0}, 10.0)
    bids = [Bid({"big": 50.0}, 0.0), Bid({"small": 7.0}, 9.0)]
    assert next_call(bids, shares, 10.0) == 1


def test_of_the_lanes_of_one_producer_the_worthiest_goes_first_and_none_waits_for_ever() -> None:
    crowd, lone = Bid({"a": 40.0}, 9.5), Bid({"a": 2.0}, 9.0)
    assert next_call([lone, crowd], CallShares(), 10.0) == 1
    assert next_call([replace(lone, since=-11.0), crowd], CallShares(), 10.0) == 0


def test_a_last_poll_goes_before_all_else_of_its_producer() -> None:
    bids = [Bid({"a": 900.0}, 0.0), Bid({"a": math.inf}, 10.0)]
    assert next_call(bids, CallShares(), 10.0) == 1


def test_a_shared_call_is_charged_by_what_it_was_worth_to_each_and_fades() -> None:
    shares = CallShares().charged({"a": 9.0, "b": 3.0}, 10.0, over=5.0)
    assert shares.used == {"a": 0.75, "b": 0.25}
    later = shares.charged({"b": math.inf}, 15.0, over=5.0).used
    assert later == pytest.approx({"a": 0.75 / math.e, "b": 0.25 / math.e + 1})
    assert shares.faded(1000.0, over=5.0).used == {}


def test_a_lone_producer_uses_what_all_use_and_beside_a_greedy_one_it_has_half() -> None:
    limit = replace(RATE, sent_rate=3.0, sent_at=100.0)
    alone = CallShares({"a": 4.0}, 100.0).used_share("a", limit, 100.0)
    assert alone == pytest.approx(limit.used_share(100.0))
    busy = replace(limit, sent_rate=6.0)
    both = CallShares({"a": 1.0, "greedy": 5.0}, 100.0)
    assert both.used_share("a", busy, 100.0) == pytest.approx(1 / 3)
    assert both.used_share("greedy", busy, 100.0) == pytest.approx(1.0)
    assert both.used_share("greedy", replace(busy, limited=False), 100.0) == 0.0


def test_for_many_equal_producers_calls_are_as_dear_as_for_one_that_makes_all_of_them() -> None:
    """Labels alone must not make calls cheap near the rate limit."""
    limit = replace(RATE, sent_rate=5.0, sent_at=100.0)
    equal = CallShares({f"app-{number}": 0.25 for number in range(20)}, 100.0)
    assert equal.used_share("app-7", limit, 100.0) == pytest.approx(limit.used_share(100.0))
    assert equal.used_share("another", limit, 100.0) == 0.0
