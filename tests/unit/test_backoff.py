"""How long to wait before the n-th try."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.policy.backoff import JITTER, WEBHOOK_WAITS, WEBHOOK_WINDOW, exponential, webhook

CHANCE = st.floats(0, 1, exclude_max=True)


def test_the_webhook_schedule_is_ten_attempts_over_75_hours_35_minutes_5_seconds() -> None:
    assert len(WEBHOOK_WAITS) == 10
    assert WEBHOOK_WINDOW == 75 * 3600 + 35 * 60 + 5
    assert list(WEBHOOK_WAITS) == sorted(WEBHOOK_WAITS)


def test_jitter_is_at_most_a_tenth() -> None:
    assert JITTER == 0.1


@pytest.mark.parametrize("attempts", range(10))
def test_each_attempt_waits_as_the_schedule_says(attempts: int) -> None:
    assert webhook(attempts, None, 0.0) == WEBHOOK_WAITS[attempts]


@pytest.mark.parametrize("attempts", [10, 11, 1000])
@pytest.mark.parametrize("retry_after", [None, 5.0])
def test_attempts_are_used_up_after_the_last(attempts: int, retry_after: float | None) -> None:
    assert webhook(attempts, retry_after, 0.5) is None


@given(attempts=st.integers(0, 9), retry_after=st.none() | st.floats(0, 1e9), chance=CHANCE)
def test_jitter_only_adds_and_a_retry_after_within_the_window_is_never_undercut(
    attempts: int, retry_after: float | None, chance: float
) -> None:
    wait, left = webhook(attempts, retry_after, chance), sum(WEBHOOK_WAITS[attempts:])
    assert wait is not None
    floor = max(WEBHOOK_WAITS[attempts], min(retry_after or 0.0, left))
    assert floor <= wait <= floor * (1 + JITTER)
    assert wait <= left * (1 + JITTER)


@pytest.mark.parametrize(
    ("attempts", "retry_after", "wait"),
    [
        (1, 2.0, 5.0),
        (1, 60.0, 60.0),
        (1, 0.0, 5.0),
        (1, 1e8, WEBHOOK_WINDOW),
        (9, 1e8, 86400.0),
        (8, 80000.0, 80000.0),
    ],
)
def test_a_retry_after_lengthens_the_wait_up_to_what_is_left_of_the_window(
    attempts: int, retry_after: float, wait: float
) -> None:
    assert webhook(attempts, retry_after, 0.0) == wait


@pytest.mark.parametrize(
    ("failures", "wait"),
    [(-1, 0.5), (0, 0.5), (1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (10**9, 60.0)],
)
def test_waits_double_from_the_base_up_to_the_cap(failures: int, wait: float) -> None:
    assert exponential(failures, 0.5, 60.0, 0.0) == wait


@given(failures=st.integers(0, 10**6), chance=CHANCE)
def test_a_doubling_wait_gets_at_most_a_tenth_more(failures: int, chance: float) -> None:
    plain, jittered = (
        exponential(failures, 0.5, 60.0, 0.0),
        exponential(failures, 0.5, 60.0, chance),
    )
    assert plain <= jittered <= plain * (1 + JITTER)
    assert exponential(failures + 1, 0.5, 60.0, 0.0) >= plain
