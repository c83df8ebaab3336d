"""The law of durations: what looks teach it, and when it says the next look is worth it."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.law import (
    BINS,
    EDGES,
    LEAST_PRICE,
    PRICE_SHARE,
    Law,
    Look,
    Outlook,
    call_price,
    first_age,
    observe,
    outlook,
)

WILD = st.floats() | st.sampled_from([0.0, -1.0, 1e300, -1e300, math.inf, math.nan])
GARBAGE = st.lists(st.builds(Look, WILD, WILD, st.booleans(), st.none() | WILD), max_size=20)
AGES = st.floats(0, 2000) | st.floats(0, 1e7)
LAWS = st.lists(
    st.builds(Look, st.floats(0, 50), st.floats(0, 900), st.booleans(), st.none() | st.floats(0, 900)), max_size=40
).map(lambda looks: observe(observe(Law(), looks[::2]), looks[1::2]))
OUTLOOKS = st.builds(outlook, LAWS, st.none() | LAWS)


def finishes(duration: float, times: int = 100) -> list[Look]:
    return [Look(0, duration + 1, finished=True, duration=duration)] * times


def lognormal(chance: random.Random, middle: float = 15.0, sigma: float = 0.5) -> float:
    return middle * math.exp(sigma * chance.gauss(0, 1))


def watched(duration: float, last_age: float, every: float) -> list[Look]:
    """All looks at one id that nobody gave stamps for."""
    looks, age = [], last_age
    while age < duration:
        looks.append(Look(age, age + every, age + every >= duration))
        age += every
    return looks


# What it knows


def test_of_a_service_nobody_has_seen_a_flat_hazard_is_believed() -> None:
    new = outlook(Law())
    assert new.mean == pytest.approx(30)
    assert new.quantile(0.5) == pytest.approx(30 * math.log(2))
    assert new.chance(0, 30) == pytest.approx(1 - math.exp(-1))


def test_exact_durations_teach_a_lognormal() -> None:
    chance, law = random.Random(1), Law()
    for _ in range(100):
        law = observe(law, [look for _ in range(20) for look in [Look(0, 600, finished=True, duration=lognormal(chance))]])
    known = outlook(law)
    assert law.seen == 2000
    assert known.quantile(0.5) == pytest.approx(15, rel=0.1)
    assert known.quantile(0.9) == pytest.approx(15 * math.exp(0.5 * 1.2816), rel=0.1)
    assert known.mean == pytest.approx(15 * math.exp(0.125), rel=0.1)


def test_own_observation_teaches_a_lognormal_where_the_server_gives_no_stamps() -> None:
    chance, law = random.Random(2), Law()
    for _ in range(100):
        durations = [lognormal(chance) for _ in range(20)]
        law = observe(law, [look for each in durations for look in watched(each, 0.0, chance.uniform(2, 6))])
    known = outlook(law)
    assert known.quantile(0.5) == pytest.approx(15, rel=0.1)
    assert known.mean == pytest.approx(15 * math.exp(0.125), rel=0.1)


def test_a_duration_that_changes_is_followed_within_a_few_half_lives() -> None:
    law = Law()
    for _ in range(20):
        law = observe(law, finishes(10))
    assert outlook(law).quantile(0.5) == pytest.approx(10, rel=0.2)
    for _ in range(20):
        law = observe(law, finishes(40))
    assert outlook(law).quantile(0.5) == pytest.approx(40, rel=0.2)


def test_looks_that_find_ids_running_lower_the_hazard() -> None:
    taught = observe(Law(), finishes(10))
    censored = observe(taught, [Look(0, 12, finished=False)] * 300)
    assert outlook(censored).chance(0, 12) < 0.5 * outlook(taught).chance(0, 12)
    assert censored.seen == taught.seen


def test_a_look_at_a_running_id_counts_only_the_time_since_the_last_one() -> None:
    at_once = observe(Law(), [Look(0, 50, finished=False)])
    in_steps = observe(Law(), [Look(age, age + 5, finished=False) for age in range(0, 50, 5)])
    assert sum(at_once.running) == pytest.approx(50)
    assert in_steps.running == pytest.approx(at_once.running)


def test_a_finish_without_a_stamp_is_one_finish_spread_over_the_time_since_the_last_look() -> None:
    law = observe(Law(), [Look(10, 20, finished=True)])
    assert sum(law.finished) == pytest.approx(1)
    assert all(
        count == 0 for (start, end), count in zip(pairwise(EDGES), law.finished[:-1], strict=True) if end < 10 or start > 20
    )
    assert 0 < sum(law.running) < 10


def test_a_stamp_that_contradicts_what_was_seen_is_not_believed() -> None:
    seen = observe(Law(), [Look(10, 20, finished=True)])
    assert observe(Law(), [Look(10, 20, finished=True, duration=90.0)]) == seen
    assert observe(Law(), [Look(10, 20, finished=True, duration=1.0)]) == seen
    assert observe(Law(), [Look(10, 20, finished=True, duration=math.nan)]) == seen


def test_a_stamp_of_a_clock_a_little_off_is_brought_into_what_was_seen() -> None:
    at_the_look = observe(Law(), [Look(10, 20, finished=True, duration=20.0)])
    assert observe(Law(), [Look(10, 20, finished=True, duration=22.0)]) == at_the_look


def test_a_look_without_a_sound_age_teaches_nothing() -> None:
    assert observe(Law(), [Look(0, math.nan, finished=True), Look(math.inf, 5, finished=False)]) == Law()


def test_a_new_model_starts_from_its_services_law() -> None:
    service = observe(Law(), finishes(10, 400))
    assert outlook(Law(), service).hazards == pytest.approx(outlook(service).hazards)
    assert outlook(Law(), service) != outlook(Law())


def test_a_model_outgrows_its_services_law() -> None:
    service = observe(Law(), finishes(10, 400))
    assert outlook(observe(Law(), finishes(60, 200)), service).quantile(0.5) == pytest.approx(60, rel=0.2)


def test_a_few_ids_that_never_end_do_not_make_looks_rare() -> None:
    law = observe(Law(), finishes(10, 97) + [Look(0, 5000, finished=False)] * 3)
    assert outlook(law).mean < 40


# When the next look is worth it


def test_ids_that_are_stuck_are_looked_at_ever_more_seldom() -> None:
    chance = random.Random(3)
    law = observe(Law(), [Look(0, 600, finished=True, duration=lognormal(chance)) for _ in range(2000)])
    known = outlook(observe(law, [Look(0, 5000, finished=False)] * 10))
    gaps = [known.next_age(age) - age for age in (20, 100, 200, 400, 1000)]
    assert all(later > sooner for sooner, later in pairwise(gaps))
    assert known.next_age(1e6) - 1e6 == pytest.approx(gaps[-1])


def test_the_first_id_that_is_stuck_takes_few_looks_an_hour() -> None:
    chance, law, age, looks = random.Random(4), Law(), 0.0, 0
    while age < 3600:
        law = observe(law, [Look(0, 600, finished=True, duration=lognormal(chance)) for _ in range(20)])
        due = outlook(law).next_age(age)
        law = observe(law, [Look(age, due, finished=False)])
        looks, age = looks + 1, due
    assert looks < 150


def test_looks_are_frequent_where_finishes_are_likely() -> None:
    chance = random.Random(4)
    known = outlook(observe(Law(), [Look(0, 600, finished=True, duration=lognormal(chance)) for _ in range(2000)]))
    assert 6 < first_age(known) < 12
    assert known.next_age(15) - 15 < 4
    assert first_age(known) == known.next_age(0)


def test_a_dearer_look_comes_later() -> None:
    known = outlook(observe(Law(), finishes(10)))
    ages = [known.next_age(0, price) for price in (0.01, 0.1, 1, 10, 100)]
    assert all(later > sooner for sooner, later in pairwise(ages))


def test_without_a_price_two_percent_of_the_mean_are_taken() -> None:
    known = outlook(observe(Law(), finishes(10)))
    assert known.next_age(3) == known.next_age(3, PRICE_SHARE * known.mean)


def test_models_of_one_service_have_one_price_as_they_share_calls() -> None:
    short, long = observe(Law(), finishes(5)), observe(Law(), finishes(100))
    service = observe(observe(Law(), finishes(5)), finishes(100))
    assert outlook(short, service).price == outlook(long, service).price == PRICE_SHARE * outlook(service).mean


@pytest.mark.parametrize("price", [0.0, -5.0, math.nan])
def test_no_look_is_cheaper_than_the_least_price(price: float) -> None:
    known = outlook(Law())
    assert known.next_age(3, price) == known.next_age(3, LEAST_PRICE)


def test_a_call_is_dear_near_the_limit() -> None:
    assert [call_price(used) for used in (0.0, 0.5, 1.0, 7.0, -1.0, math.nan)] == [1, 2.5, 7, 7, 1, 1]


@given(OUTLOOKS, AGES, st.lists(AGES, min_size=2, max_size=8))
def test_the_chance_is_a_chance_and_grows_with_age(known: Outlook, last_age: float, ages: list[float]) -> None:
    chances = [known.chance(last_age, age) for age in sorted(ages)]
    assert all(0 <= chance <= 1 for chance in chances)
    assert all(later >= sooner for sooner, later in pairwise(chances))


@given(OUTLOOKS, AGES, st.lists(AGES, min_size=2, max_size=8))
def test_the_wait_is_never_negative_and_grows_with_age(known: Outlook, last_age: float, ages: list[float]) -> None:
    waits = [known.wait(last_age, age) for age in sorted(ages)]
    assert all(0 <= wait <= max(age - last_age, 0) + 1e-6 for wait, age in zip(waits, sorted(ages), strict=True))
    assert all(later >= sooner - 1e-6 * (1 + sooner) for sooner, later in pairwise(waits))


@given(OUTLOOKS, AGES, st.floats(0.01, 100))
def test_at_the_next_age_the_wait_has_reached_the_price(known: Outlook, last_age: float, price: float) -> None:
    assert known.wait(last_age, known.next_age(last_age, price)) == pytest.approx(price, rel=1e-3, abs=1e-5)


@given(st.lists(GARBAGE, max_size=4), st.none() | WILD, AGES)
def test_the_next_age_is_later_and_finite_whatever_was_observed(
    batches: list[list[Look]], price: float | None, age: float
) -> None:
    law = Law()
    for batch in batches:
        law = observe(law, batch)
    assert Law.from_json(law.to_json()).seen == law.seen
    assert age < outlook(law).next_age(age, price) < math.inf
    assert age < outlook(Law(), law).next_age(age, price) < math.inf


@given(OUTLOOKS, WILD, WILD)
def test_no_age_is_too_wild_to_be_asked_about(known: Outlook, last_age: float, age: float) -> None:
    assert 0 <= known.chance(last_age, age) <= 1
    assert 0 <= known.wait(last_age, age) < math.inf
    assert 0 < known.next_age(last_age) < math.inf
    assert 0 <= known.quantile(age) < math.inf


@given(OUTLOOKS, st.floats(0.001, 0.999))
def test_a_quantile_is_the_age_with_that_chance(known: Outlook, share: float) -> None:
    assert known.chance(0, known.quantile(share)) == pytest.approx(share, abs=1e-6)


def test_the_wait_is_the_mean_of_what_ids_would_have_waited() -> None:
    known, chance = outlook(observe(Law(), finishes(10))), random.Random(5)
    since = 4.0
    lived = [known.quantile(known.chance(0, since) + (1 - known.chance(0, since)) * chance.random()) for _ in range(20_000)]
    assert known.wait(since, 14.0) == pytest.approx(sum(max(14.0 - finish, 0.0) for finish in lived) / len(lived), rel=0.02)
    assert known.chance(since, median(lived)) == pytest.approx(0.5, abs=0.02)


# What is kept


@given(LAWS)
def test_a_law_survives_its_json(law: Law) -> None:
    text = law.to_json()
    again = Law.from_json(text)
    assert again.finished == pytest.approx(law.finished, rel=1e-5)
    assert again.running == pytest.approx(law.running, rel=1e-5)
    assert (again.seen, again.to_json()) == (law.seen, text)
    assert len(text) < 2000


NUMBERS = ",".join(["1"] * BINS)


@pytest.mark.parametrize(
    "text",
    [None, "", "null", "[]", "5", "{", '"x"', "{}", '{"finished":[1],"running":[1],"seen":1}', "[" * 100_000]
    + [
        f'{{"finished":[{NUMBERS}],"running":[{NUMBERS[:-1]}{bad}],"seen":1}}'
        for bad in ("-1", "NaN", "Infinity", "null", "[]", "1" + "0" * 400)
    ]
    + [f'{{"finished":[{NUMBERS}],"running":[{NUMBERS}],"seen":{bad}}}' for bad in ("-1", "null", "Infinity")],
)
def test_an_unreadable_law_is_a_new_one(text: str | None) -> None:
    assert Law.from_json(text) == Law()
