"""Whose ids go into a batch."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cavendish.model import Candidate
from cavendish.policy.fair_share import fair_share


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
