"""When a batch is worth a call, and when the next look at its lane is."""

from __future__ import annotations

import math
import random

import pytest

from cavendish.model import Candidate, Lane
from cavendish.policy.durations import Observation
from cavendish.policy.fair_share import CallShares
from cavendish.policy.next_poll import CALL_PRICE, TOLERATED
from cavendish.policy.rate_limit import RateLimit
from cavendish.store import Store
from cavendish.store.candidates import Waiting
from cavendish.store.forecasts import Forecasts
from cavendish_worker.polling.weigh import GAIN, Scales

LANE, BEGAN = Lane("default", "nano-banana"), 1_800_000_000.0


def taught(store: Store) -> Forecasts:
    """Forecasts of tasks that take 15 s in the median."""
    chance, forecasts = random.Random(7), Forecasts(store.shared_state)
    durations = [15 * math.exp(0.5 * chance.gauss(0, 1)) for _ in range(400)]
    forecasts.learn(LANE, {"": [Observation(0.0, each, True, each) for each in durations]}, BEGAN)
    return forecasts


def crowd(count: int, polled: float | None = None) -> list[Candidate]:
    """So many ids of one submit, last polled at this age."""
    at = None if polled is None else BEGAN + polled
    return [
        Candidate(f"id-{number}", "app", BEGAN + 20.0, BEGAN, BEGAN + 900, at, "")
        for number in range(count)
    ]


def test_a_crowd_that_began_at_once_is_looked_at_when_it_is_worth_a_call(store: Store) -> None:
    """Few end young, and then many within seconds: a look that is a little late costs each of them
    that time. And few looks must do.
    """
    forecasts, some = taught(store), crowd(100)
    looks, now, weighed = 0, BEGAN + 0.5, None
    while weighed is None or weighed.bid is None:
        waiting = Waiting(LANE, 100, 0.0, {"app": BEGAN + 20.0}, some)
        weighed = Scales(forecasts, RateLimit(), CallShares(), now).weigh(waiting, now)
        looks, now = looks + 1, weighed.look_at
    worth = sum(weighed.bid.worths.values())
    just_before = forecasts.worth(LANE, some, now - 2 * GAIN)
    assert just_before < CALL_PRICE <= worth
    assert 4 < now - BEGAN < 10
    assert looks < 20


def test_many_ids_that_wait_a_moment_each_are_worth_no_call_and_few_that_wait_longer_are(
    store: Store,
) -> None:
    """A call for many costs the API more than such a moment is worth; a lone id waits as it did."""
    forecasts, age = taught(store), 12.0
    model = forecasts.forecast(LANE, "", BEGAN)
    soon = model.next_age(age, TOLERATED)
    assert soon - age > 0.4
    assert forecasts.worth(LANE, crowd(100, age), BEGAN + soon - 0.01) == 0
    lone = model.next_age(age, CALL_PRICE + TOLERATED)
    assert forecasts.worth(LANE, crowd(1, age), BEGAN + lone) == pytest.approx(CALL_PRICE, rel=0.01)
    assert lone - model.next_age(age, CALL_PRICE) < 0.1
