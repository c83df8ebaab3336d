"""The condition of a lane: batch limit, and whether its service is out of order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.policy.service_health import (
    FIRST_WAIT,
    LONGEST_WAIT,
    ServiceHealth,
    failed,
    not_served,
    probing,
    too_many,
    worked,
)

SOUND = ServiceHealth()


def test_a_service_health_survives_its_json() -> None:
    known = ServiceHealth(20, 3, 100.5, 104.25, "HTTP 500")
    assert ServiceHealth.from_json(known.to_json()) == known


@pytest.mark.parametrize(
    "text", [None, "", "null", "[]", "5", "{", '"x"', '{"unheard_of": 1}', "[1, 2]", "NaN"]
)
def test_an_unreadable_service_health_is_a_new_one(text: str | None) -> None:
    assert ServiceHealth.from_json(text) == SOUND


def test_a_batch_is_as_large_as_wanted_until_a_limit_is_met() -> None:
    assert SOUND.batch_size(50) == 50
    assert ServiceHealth(batch_limit=20).batch_size(50) == 20
    assert ServiceHealth(batch_limit=20).batch_size(10) == 10


def test_batches_begin_with_fifty_ids_and_double_as_long_as_each_is_told_of() -> None:
    service_health, sizes = SOUND, []
    for _ in range(4):
        sizes.append(size := service_health.batch_size(300))
        service_health = worked(service_health, size, size)
    assert sizes == [50, 100, 200, 300]
    assert SOUND.batch_size(20) == 20
    assert too_many(service_health, 100).batch_size(300) == 100


def test_batches_do_not_grow_by_answers_that_say_less_than_was_asked() -> None:
    """A short batch, or one of which some ids were missing, shows nothing of more."""
    assert worked(SOUND) is SOUND
    assert worked(SOUND, 49, 49) is SOUND
    assert worked(SOUND, 50, 49) is SOUND
    assert worked(worked(SOUND, 50, 50), 50, 50) == worked(SOUND, 50, 50)


def test_after_a_large_answer_in_which_ids_are_missing_batches_begin_anew() -> None:
    """An API that answers only the first so many ids of a call would hide all others for ever."""
    grown = worked(SOUND, 50, 50)
    assert grown.batch_size(300) == 100
    assert worked(grown, 100, 99).batch_size(300) == 50
    assert worked(grown, 50, 49) == grown


def test_after_a_failure_batches_begin_anew() -> None:
    """Perhaps so many ids take the API too long."""
    grown = worked(worked(SOUND, 50, 50), 100, 100)
    assert grown.batch_size(300) == 200
    down = failed(grown, "timeout", 99.0, 100.0, 0.0)
    assert down.batch_size(300) == worked(down).batch_size(300) == 50


def test_the_limit_of_a_batch_only_falls() -> None:
    service_health, limits = SOUND, []
    for size in (25, 12, 30, 1):
        service_health = too_many(service_health, size)
        limits.append(service_health.batch_limit)
    assert limits == [25, 12, 12, 1]


def test_a_service_that_failed_is_probed_by_one_call_at_a_time() -> None:
    broken = failed(SOUND, "HTTP 500", 10.0, 11.0, 0.0)
    assert probing(broken, 20.0).down_until > 20.0
    assert probing(SOUND, 20.0) == SOUND


def test_a_batch_that_was_sent_before_the_limit_was_met_does_not_raise_it() -> None:
    assert too_many(ServiceHealth(batch_limit=10), 50).batch_limit == 10


def test_failures_in_a_row_back_off_ever_longer() -> None:
    service_health, waits = SOUND, []
    for now in range(100, 1100, 100):
        service_health = failed(service_health, f"failure at {now}", now - 1, now, 0.0)
        waits.append(service_health.down_until - now)
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert (service_health.failures, service_health.reason, service_health.failed_at) == (
        10,
        "failure at 1000",
        1000,
    )


def test_calls_that_were_under_way_when_a_failure_was_noted_count_with_it() -> None:
    once = failed(SOUND, "HTTP 500", 99.0, 100.0, 0.0)
    assert failed(once, "HTTP 502", 99.9, 101.0, 0.0) is once
    assert failed(once, "HTTP 502", 100.0, 101.0, 0.0).failures == 2


def test_an_answer_ends_a_failure_and_keeps_the_batch_limit() -> None:
    down = failed(ServiceHealth(batch_limit=20), "HTTP 500", 99.0, 100.0, 0.0)
    assert worked(down) == ServiceHealth(batch_limit=20, failed_at=100.0)
    assert failed(worked(down), "HTTP 500", 101.0, 102.0, 0.0).failures == 1


def test_an_answer_changes_nothing_where_nothing_had_failed() -> None:
    sound = ServiceHealth(batch_limit=20)
    assert worked(sound) is sound


def test_a_service_that_is_not_served_is_asked_about_one_id_ever_more_seldom() -> None:
    health, waits = ServiceHealth(batch_limit=20), []
    for now in range(1000, 11000, 1000):
        health = not_served(health, "HTTP 404", now - 1, now, 0.0)
        waits.append(health.down_until - now)
    assert waits == [5, 10, 20, 40, 80, 160, 320, 600, 600, 600]
    assert (health.paused_since, health.batch_size(50)) == (1000, 1)
    assert ServiceHealth.from_json(health.to_json()) == health


def test_an_answer_ends_the_pause_of_a_service_and_a_failure_does_not() -> None:
    paused = not_served(SOUND, "HTTP 404", 99.0, 100.0, 0.0)
    still = failed(paused, "no answer within 30 s", 200.0, 230.0, 0.0)
    assert (still.paused_since, still.down_until, still.reason) == (
        100.0,
        240.0,
        "no answer within 30 s",
    )
    assert worked(still) == ServiceHealth(failed_at=230.0)


def test_a_service_that_failed_before_it_was_not_served_begins_with_a_short_pause() -> None:
    down = SOUND
    for now in (100.0, 200.0, 300.0):
        down = failed(down, "HTTP 502", now, now, 0.0)
    assert not_served(down, "HTTP 404", 400.0, 400.0, 0.0).down_until == 405.0
    assert not_served(down, "HTTP 404", 250.0, 400.0, 0.0) is down


@given(failures=st.integers(0, 10**6), chance=st.floats(0, 1, exclude_max=True))
def test_no_service_is_left_alone_for_more_than_the_longest_wait_and_a_tenth(
    failures: int, chance: float
) -> None:
    wait = failed(ServiceHealth(failures=failures), "HTTP 500", 0.0, 0.0, chance).down_until
    assert FIRST_WAIT <= wait <= LONGEST_WAIT * 1.1
