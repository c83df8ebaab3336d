"""The duration model of durations.

What polls teach it, and when it says the next poll is worth it.
"""

from __future__ import annotations

import math
import random
from itertools import pairwise
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.policy.durations import (
    BINS,
    EDGES,
    DurationModel,
    Observation,
    observe,
)
from cavendish.policy.next_poll import (
    DEAR_CALLS,
    LEAST_PRICE,
    PRICE_SHARE,
    Forecast,
    call_price,
    first_age,
    forecast,
)

WILD = st.floats() | st.sampled_from([0.0, -1.0, 1e300, -1e300, math.inf, math.nan])
GARBAGE = st.lists(st.builds(Observation, WILD, WILD, st.booleans(), st.none() | WILD), max_size=20)
AGES = st.floats(0, 2000) | st.floats(0, 1e7)
DURATIONS = st.lists(
    st.builds(
        Observation,
        st.floats(0, 50),
        st.floats(0, 900),
        st.booleans(),
        st.none() | st.floats(0, 900),
    ),
    max_size=40,
).map(lambda polls: observe(observe(DurationModel(), polls[::2]), polls[1::2]))
FORECASTS = st.builds(forecast, DURATIONS, st.none() | DURATIONS)


def finishes(duration: float, times: int = 100) -> list[Observation]:
    return [Observation(0, duration + 1, finished=True, duration=duration)] * times


def lognormal(chance: random.Random, middle: float = 15.0, sigma: float = 0.5) -> float:
    return middle * math.exp(sigma * chance.gauss(0, 1))


def watched(duration: float, last_age: float, every: float) -> list[Observation]:
    """All polls at one id that nobody gave stamps for."""
    polls, age = [], last_age
    while age < duration:
        polls.append(Observation(age, age + every, age + every >= duration))
        age += every
    return polls


# What it knows


def test_of_a_service_nobody_has_seen_a_flat_hazard_is_believed() -> None:
    new = forecast(DurationModel())
    assert new.mean == pytest.approx(30)
    assert new.quantile(0.5) == pytest.approx(30 * math.log(2))
    assert new.chance(0, 30) == pytest.approx(1 - math.exp(-1))


def test_exact_durations_teach_a_lognormal() -> None:
    chance, durations = random.Random(1), DurationModel()
    for _ in range(100):
        durations = observe(
            durations,
            [
                poll
                for _ in range(20)
                for poll in [Observation(0, 600, finished=True, duration=lognormal(chance))]
            ],
        )
    known = forecast(durations)
    assert durations.seen == 2000
    assert known.quantile(0.5) == pytest.approx(15, rel=0.1)
    assert known.quantile(0.9) == pytest.approx(15 * math.exp(0.5 * 1.2816), rel=0.1)
    assert known.mean == pytest.approx(15 * math.exp(0.125), rel=0.1)


def test_own_observation_teaches_a_lognormal_where_the_server_gives_no_stamps() -> None:
    chance, durations = random.Random(2), DurationModel()
    for _ in range(100):
        drawn = [lognormal(chance) for _ in range(20)]
        durations = observe(
            durations,
            [poll for each in drawn for poll in watched(each, 0.0, chance.uniform(2, 6))],
        )
    known = forecast(durations)
    assert known.quantile(0.5) == pytest.approx(15, rel=0.1)
    assert known.mean == pytest.approx(15 * math.exp(0.125), rel=0.1)


def test_a_duration_that_changes_is_followed_within_a_few_half_lives() -> None:
    durations = DurationModel()
    for _ in range(20):
        durations = observe(durations, finishes(10))
    assert forecast(durations).quantile(0.5) == pytest.approx(10, rel=0.2)
    for _ in range(20):
        durations = observe(durations, finishes(40))
    assert forecast(durations).quantile(0.5) == pytest.approx(40, rel=0.2)


def test_polls_that_find_ids_running_lower_the_hazard() -> None:
    taught = observe(DurationModel(), finishes(10))
    censored = observe(taught, [Observation(0, 12, finished=False)] * 300)
    assert forecast(censored).chance(0, 12) < 0.5 * forecast(taught).chance(0, 12)
    assert censored.seen == taught.seen


def test_a_poll_at_a_running_id_counts_only_the_time_since_the_last_one() -> None:
    at_once = observe(DurationModel(), [Observation(0, 50, finished=False)])
    in_steps = observe(
        DurationModel(), [Observation(age, age + 5, finished=False) for age in range(0, 50, 5)]
    )
    assert sum(at_once.running) == pytest.approx(50)
    assert in_steps.running == pytest.approx(at_once.running)


def test_a_finish_without_a_stamp_is_one_finish_spread_over_the_time_since_the_last_poll() -> None:
    durations = observe(DurationModel(), [Observation(10, 20, finished=True)])
    assert sum(durations.finished) == pytest.approx(1)
    assert all(
        count == 0
        for (start, end), count in zip(pairwise(EDGES), durations.finished[:-1], strict=True)
        if end < 10 or start > 20
    )
    assert 0 < sum(durations.running) < 10


def test_a_stamp_that_contradicts_what_was_seen_is_not_believed() -> None:
    seen = observe(DurationModel(), [Observation(10, 20, finished=True)])
    assert observe(DurationModel(), [Observation(10, 20, finished=True, duration=90.0)]) == seen
    assert observe(DurationModel(), [Observation(10, 20, finished=True, duration=8.0)]) == seen
    assert observe(DurationModel(), [Observation(10, 20, finished=True, duration=9.5)]) != seen
    assert observe(DurationModel(), [Observation(10, 20, finished=True, duration=math.nan)]) == seen


def test_a_stamp_of_a_clock_a_little_off_is_brought_into_what_was_seen() -> None:
    at_the_poll = observe(DurationModel(), [Observation(10, 20, finished=True, duration=20.0)])
    assert (
        observe(DurationModel(), [Observation(10, 20, finished=True, duration=20.5)]) == at_the_poll
    )


def test_a_poll_without_a_sound_age_teaches_nothing() -> None:
    assert (
        observe(
            DurationModel(),
            [Observation(0, math.nan, finished=True), Observation(math.inf, 5, finished=False)],
        )
        == DurationModel()
    )


def test_a_new_model_starts_from_the_duration_model_of_its_service() -> None:
    service = observe(DurationModel(), finishes(10, 400))
    assert forecast(DurationModel(), service).hazards == pytest.approx(forecast(service).hazards)
    assert forecast(DurationModel(), service) != forecast(DurationModel())


def test_a_model_outgrows_the_duration_model_of_its_service() -> None:
    service = observe(DurationModel(), finishes(10, 400))
    assert forecast(observe(DurationModel(), finishes(60, 200)), service).quantile(
        0.5
    ) == pytest.approx(60, rel=0.2)


def test_a_few_ids_that_never_end_do_not_make_polls_rare() -> None:
    durations = observe(
        DurationModel(), finishes(10, 97) + [Observation(0, 5000, finished=False)] * 3
    )
    assert forecast(durations).mean < 40


# When the next poll is worth it


def test_ids_that_are_stuck_are_polled_at_ever_more_seldom() -> None:
    chance = random.Random(3)
    durations = observe(
        DurationModel(),
        [Observation(0, 600, finished=True, duration=lognormal(chance)) for _ in range(2000)],
    )
    known = forecast(observe(durations, [Observation(0, 5000, finished=False)] * 10))
    gaps = [known.next_age(age) - age for age in (20, 100, 200, 400, 1000)]
    assert all(later > sooner for sooner, later in pairwise(gaps))
    assert known.next_age(1e6) - 1e6 == pytest.approx(gaps[-1])


def test_the_first_id_that_is_stuck_takes_few_polls_an_hour() -> None:
    chance, durations, age, polls = random.Random(4), DurationModel(), 0.0, 0
    while age < 3600:
        durations = observe(
            durations,
            [Observation(0, 600, finished=True, duration=lognormal(chance)) for _ in range(20)],
        )
        due = forecast(durations).next_age(age)
        durations = observe(durations, [Observation(age, due, finished=False)])
        polls, age = polls + 1, due
    assert polls < 150


def test_polls_are_frequent_where_finishes_are_likely() -> None:
    chance = random.Random(4)
    known = forecast(
        observe(
            DurationModel(),
            [Observation(0, 600, finished=True, duration=lognormal(chance)) for _ in range(2000)],
        )
    )
    assert 6 < first_age(known) < 12
    assert known.next_age(15) - 15 < 4
    assert first_age(known) == known.next_age(0)


def test_a_dearer_poll_comes_later() -> None:
    known = forecast(observe(DurationModel(), finishes(10)))
    ages = [known.next_age(0, price) for price in (0.01, 0.1, 1, 10, 100)]
    assert all(later > sooner for sooner, later in pairwise(ages))


def test_without_a_price_two_percent_of_the_mean_are_taken() -> None:
    known = forecast(observe(DurationModel(), finishes(10)))
    assert known.next_age(3) == known.next_age(3, PRICE_SHARE * known.mean)


def test_models_of_one_service_have_one_price_as_they_share_calls() -> None:
    short, long = observe(DurationModel(), finishes(5)), observe(DurationModel(), finishes(100))
    service = observe(observe(DurationModel(), finishes(5)), finishes(100))
    assert (
        forecast(short, service).price
        == forecast(long, service).price
        == PRICE_SHARE * forecast(service).mean
    )


@pytest.mark.parametrize("price", [0.0, -5.0, math.nan])
def test_no_poll_is_cheaper_than_the_least_price(price: float) -> None:
    known = forecast(DurationModel())
    assert known.next_age(3, price) == known.next_age(3, LEAST_PRICE)


def test_a_call_is_dear_near_the_limit() -> None:
    calls = (0.0, DEAR_CALLS, -1.0, math.nan, math.inf)
    assert [call_price(0.0, number) for number in calls] == [1.0, 2.0, 1.0, 1.0, 1 + 1.95**4]
    assert [call_price(used) for used in (0.0, 0.5, 1.0, 7.0, -1.0, math.nan)] == [
        1,
        2.125,
        5.5,
        5.5,
        1,
        1,
    ]


@given(FORECASTS, AGES, st.lists(AGES, min_size=2, max_size=8))
def test_the_chance_is_a_chance_and_grows_with_age(
    known: Forecast, last_age: float, ages: list[float]
) -> None:
    chances = [known.chance(last_age, age) for age in sorted(ages)]
    assert all(0 <= chance <= 1 for chance in chances)
    assert all(later >= sooner for sooner, later in pairwise(chances))


@given(FORECASTS, AGES, st.lists(AGES, min_size=2, max_size=8))
def test_the_wait_is_never_negative_and_grows_with_age(
    known: Forecast, last_age: float, ages: list[float]
) -> None:
    waits = [known.wait(last_age, age) for age in sorted(ages)]
    assert all(
        0 <= wait <= max(age - last_age, 0) + 1e-6
        for wait, age in zip(waits, sorted(ages), strict=True)
    )
    assert all(later >= sooner - 1e-6 * (1 + sooner) for sooner, later in pairwise(waits))


@given(FORECASTS, AGES, st.floats(0.01, 100))
def test_at_the_next_age_the_wait_has_reached_the_price(
    known: Forecast, last_age: float, price: float
) -> None:
    assert known.wait(last_age, known.next_age(last_age, price)) == pytest.approx(
        price, rel=1e-3, abs=1e-5
    )


@given(st.lists(GARBAGE, max_size=4), st.none() | WILD, AGES)
def test_the_next_age_is_later_and_finite_whatever_was_observed(
    batches: list[list[Observation]], price: float | None, age: float
) -> None:
    durations = DurationModel()
    for batch in batches:
        durations = observe(durations, batch)
    assert DurationModel.from_json(durations.to_json()).seen == durations.seen
    assert age < forecast(durations).next_age(age, price) < math.inf
    assert age < forecast(DurationModel(), durations).next_age(age, price) < math.inf


@given(FORECASTS, WILD, WILD)
def test_no_age_is_too_wild_to_be_asked_about(known: Forecast, last_age: float, age: float) -> None:
    assert 0 <= known.chance(last_age, age) <= 1
    assert 0 <= known.wait(last_age, age) < math.inf
    assert 0 < known.next_age(last_age) < math.inf
    assert 0 <= known.quantile(age) < math.inf


@given(FORECASTS, st.floats(0.001, 0.999))
def test_a_quantile_is_the_age_with_that_chance(known: Forecast, share: float) -> None:
    assert known.chance(0, known.quantile(share)) == pytest.approx(share, abs=1e-6)


def test_the_wait_is_the_mean_of_what_ids_would_have_waited() -> None:
    known, chance = forecast(observe(DurationModel(), finishes(10))), random.Random(5)
    since = 4.0
    lived = [
        known.quantile(known.chance(0, since) + (1 - known.chance(0, since)) * chance.random())
        for _ in range(20_000)
    ]
    assert known.wait(since, 14.0) == pytest.approx(
        sum(max(14.0 - finish, 0.0) for finish in lived) / len(lived), rel=0.02
    )
    assert known.chance(since, median(lived)) == pytest.approx(0.5, abs=0.02)


# What is kept


@given(DURATIONS)
def test_a_duration_model_survives_its_json(durations: DurationModel) -> None:
    text = durations.to_json()
    restart = DurationModel.from_json(text)
    assert restart.finished == pytest.approx(durations.finished, rel=1e-5)
    assert restart.running == pytest.approx(durations.running, rel=1e-5)
    assert (restart.seen, restart.to_json()) == (durations.seen, text)
    assert len(text) < 2000


NUMBERS = ",".join(["1"] * BINS)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "null",
        "[]",
        "5",
        "{",
        '"x"',
        "{}",
        '{"finished":[1],"running":[1],"seen":1}',
        "[" * 100_000,
    ]
    + [
        f'{{"finished":[{NUMBERS}],"running":[{NUMBERS[:-1]}{bad}],"seen":1}}'
        for bad in ("-1", "NaN", "Infinity", "null", "[]", "1" + "0" * 400)
    ]
    + [
        f'{{"finished":[{NUMBERS}],"running":[{NUMBERS}],"seen":{bad}}}'
        for bad in ("-1", "null", "Infinity")
    ],
)
def test_an_unreadable_duration_model_is_a_new_one(text: str | None) -> None:
    assert DurationModel.from_json(text) == DurationModel()
