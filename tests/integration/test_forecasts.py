"""What polls have shown is gathered for a second, and taught to the duration models at once."""

from __future__ import annotations

from cavendish.model import Lane
from cavendish.policy.durations import Observation
from cavendish.store import Store
from cavendish.store.forecasts import GATHERED_FOR, Forecasts

LANE, OTHER = Lane("default", "nano-banana"), Lane("default", "midjourney")
ENDED = Observation(4.0, 5.0, finished=True)


def test_what_is_shown_within_a_second_is_taught_together_and_none_of_it_is_lost(
    store: Store,
) -> None:
    """The first is taught at once, so a new model begins to learn with its first batch."""
    forecasts = Forecasts(store.shared_state)

    def seen(model: str, lane: Lane = LANE) -> int:
        return store.shared_state.durations(lane, model).seen

    forecasts.learn(LANE, {"": [ENDED], "pro": [ENDED, ENDED]}, 100.0)
    assert (seen(""), seen("pro")) == (3, 2)
    for later in (0.2, 0.4):
        forecasts.learn(LANE, {"pro": [ENDED]}, 100.0 + later)
    assert (seen(""), seen("pro")) == (3, 2)
    forecasts.learn(OTHER, {"": [ENDED]}, 100.0 + GATHERED_FOR)
    assert (seen(""), seen("pro")) == (5, 4)
    assert seen("", OTHER) == 1


def test_a_clock_that_was_set_back_does_not_stop_the_teaching(store: Store) -> None:
    """Redis may say an earlier time after a failover."""
    forecasts = Forecasts(store.shared_state)
    for now in (100.0, 50.0):
        forecasts.learn(LANE, {"": [ENDED]}, now)
    assert store.shared_state.durations(LANE, "").seen == 2
