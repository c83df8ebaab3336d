"""When a batch is worth a call, and when the next look at its lane is."""

from __future__ import annotations

import math
import random

from cavendish.model import Candidate, Lane
from cavendish.policy.durations import Observation
from cavendish.policy.fair_share import CallShares
from cavendish.policy.next_poll import CALL_PRICE
from cavendish.policy.rate_limit import RateLimit
from cavendish.store import Store
from cavendish.store.candidates import Waiting
from cavendish.store.forecasts import Forecasts
from cavendish_worker.polling.weigh import GAIN, Scales

LANE, BEGAN = Lane("default", "nano-banana"), 1_800_000_000.0


def test_a_crowd_that_began_at_once_is_looked_at_when_it_is_worth_a_call(store: Store) -> None:
    """Few end young, and then many within seconds: a look that is a little late costs each of them
    that time. And few looks must do.
    """
    chance, forecasts = random.Random(7), Forecasts(store.shared_state)
    taught = [
        Observation(0.0, 600.0, finished=True, duration=15 * math.exp(0.5 * chance.gauss(0, 1)))
        for _ in range(400)
    ]
    forecasts.learn(LANE, {"": taught}, BEGAN)
    crowd = [
        Candidate(f"id-{number}", "app", BEGAN + 9.0, BEGAN, BEGAN + 900, None, "")
        for number in range(100)
    ]

    looks, now, weighed = 0, BEGAN + 0.5, None
    while weighed is None or weighed.bid is None:
        waiting = Waiting(LANE, 100, 0.0, {"app": BEGAN + 9.0}, crowd)
        weighed = Scales(forecasts, RateLimit(), CallShares(), now).weigh(waiting, now)
        looks, now = looks + 1, weighed.look_at
    worth = sum(weighed.bid.worths.values())
    just_before = forecasts.worth(LANE, crowd, now - 2 * GAIN)
    assert just_before < CALL_PRICE <= worth
    assert 4 < now - BEGAN < 9
    assert looks < 20
