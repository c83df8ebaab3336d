"""What callbacks have proved to be worth: how rare polls become, and whether hints are believed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.policy.callbacks import (
    GATHERING,
    LEAST,
    ON_ITS_WAY,
    Callbacks,
    proved,
)
from cavendish.policy.durations import DurationModel, Observation, observe
from cavendish.policy.next_poll import forecast

NOW = 1_800_000_000.0
ANNOUNCED = Observation(0.0, 10.2, finished=True, duration=10.0, announced=True)
FOUND_LATE = Observation(0.0, 10.0 + 2 * ON_ITS_WAY, finished=True, duration=10.0)
FOUND_AT_ONCE = Observation(0.0, 10.0 + ON_ITS_WAY / 2, finished=True, duration=10.0)
STILL_RUNS = Observation(0.0, 5.0, finished=False)
FORGED = replace(STILL_RUNS, announced=True)


def after(*observations: Observation, each: int = 1, every: float = 0.1) -> Callbacks:
    """What so many polls of each kind in turn taught, one by one."""
    callbacks, now = Callbacks(), NOW
    for _ in range(each):
        for one in observations:
            now += every
            callbacks = proved(callbacks, [one], now)
    return callbacks


def test_a_service_without_callbacks_is_polled_as_if_there_were_none() -> None:
    """Nothing is worth a write then."""
    callbacks = after(FOUND_LATE, FOUND_AT_ONCE, STILL_RUNS, each=100)
    assert callbacks == Callbacks()
    assert callbacks.silent == 1
    assert callbacks.true == 1


def test_callbacks_that_announce_every_end_leave_few_to_polls() -> None:
    assert after(ANNOUNCED, each=1).silent == pytest.approx(1 / 2)
    assert after(ANNOUNCED, each=400).silent < 0.01


def test_callbacks_that_announce_half_of_the_ends_leave_the_other_half_to_polls() -> None:
    assert after(ANNOUNCED, FOUND_LATE, each=400).silent == pytest.approx(0.5, abs=0.01)


def test_callbacks_that_stop_coming_are_forgotten() -> None:
    callbacks = after(ANNOUNCED, each=1000)
    for _ in range(600):
        callbacks = proved(callbacks, [FOUND_LATE], NOW)
    assert callbacks.silent > 0.8


def test_an_end_found_at_once_does_not_count_against_its_callback() -> None:
    """It may be on its way."""
    assert after(ANNOUNCED, FOUND_AT_ONCE, each=400) == replace(
        after(ANNOUNCED, each=400),
        at=after(ANNOUNCED, FOUND_AT_ONCE, each=400).at,
        rate=pytest.approx(5.0, abs=0.5),  # type: ignore[arg-type]
    )


def test_without_time_stamps_an_end_lies_in_the_middle_between_two_polls() -> None:
    unknown = Observation(10.0, 10.0 + 3 * ON_ITS_WAY, finished=True)
    assert proved(Callbacks(heard=1.0), [unknown], NOW).missed == 1
    sooner = replace(unknown, last_age=unknown.age - ON_ITS_WAY)
    assert proved(Callbacks(heard=1.0), [sooner], NOW).missed == 0


def test_forged_callbacks_make_nothing_reliable_and_are_believed_less_and_less() -> None:
    """Only ends count that a poll has confirmed."""
    flood = after(FORGED, each=500)
    assert flood.silent == 1
    assert flood.true < 0.01
    assert flood.rate == 0
    mixed = after(ANNOUNCED, *[FORGED] * 9, each=100)
    assert mixed.silent > 0.85


def test_an_announced_id_waits_for_others_only_where_they_come_fast() -> None:
    fast, slow = after(ANNOUNCED, each=400, every=0.05), after(ANNOUNCED, each=40, every=5.0)
    now = NOW + 400 * 0.05
    assert fast.rate == pytest.approx(20, rel=0.2)
    assert fast.gathers_until([now, now - 0.5], now) == pytest.approx(now - 0.5 + GATHERING)
    assert fast.gathers_until([], now) == 0
    assert fast.gathers_until([now + 120], now + 120) == 0
    assert slow.gathers_until([NOW + 200], NOW + 200) == 0


@given(st.lists(st.sampled_from([ANNOUNCED, FOUND_LATE, FOUND_AT_ONCE, STILL_RUNS, FORGED])))
def test_shares_are_shares_and_survive_their_json(observations: list[Observation]) -> None:
    callbacks = after(*observations)
    assert LEAST <= callbacks.silent <= 1
    assert 0 < callbacks.true <= 1
    assert Callbacks.from_json(callbacks.to_json()) == callbacks


@pytest.mark.parametrize("text", ["", "{", '{"heard": -1}', '{"heard": "x"}', "[]"])
def test_anything_unreadable_is_a_service_without_callbacks(text: str) -> None:
    assert Callbacks.from_json(text) == Callbacks()


def lognormal(seconds: Iterable[float]) -> DurationModel:
    return observe(DurationModel(), [Observation(0, each, True, each) for each in seconds])


MODEL = lognormal([15 * math.exp(0.5 * (number - 50) / 25) for number in range(101)] * 4)


def test_polls_become_rarer_as_callbacks_prove_reliable() -> None:
    ages = [forecast(MODEL, silent=silent).next_age(0.0) for silent in (1.0, 0.5, 0.1, 0.01)]
    assert ages == sorted(ages)
    assert ages[0] < 10
    assert ages[3] > forecast(MODEL).quantile(0.9)
    assert forecast(MODEL, silent=0.1).wait(5.0, 15.0) == pytest.approx(
        forecast(MODEL).wait(5.0, 15.0) / 10
    )


def test_an_id_without_its_callback_is_polled_once_it_has_as_likely_finished_as_not() -> None:
    """Of a hundred that run for so long, one is left; and of a hundred, one calls back in vain."""
    new = forecast(MODEL, silent=LEAST)
    assert new.next_age(0.0) <= new.quantile(1 - LEAST) * 1.001
    overdue = new.quantile(1 - LEAST)
    assert new.wait(0.0, overdue, unheard=True) > 200 * new.wait(0.0, overdue)
