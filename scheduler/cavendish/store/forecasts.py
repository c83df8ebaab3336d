"""When is a poll worth it? The duration models of the store, kept for a few seconds in each
process, and taught by its polls.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from cavendish.model import Candidate, Lane
from cavendish.policy.durations import Forecast, Observation, forecast, observe
from cavendish.store.shared_state import SharedState

#: Seconds that an forecast is kept, and how many are.
FRESH_FOR, KEPT = 5.0, 500
#: Seconds after which a process notes again that a model was taught.
NOTED_FOR = 600.0


class Forecasts:
    """Outlooks by lane and model.

    Safe to share between threads; every method raises BookUnavailable.
    """

    def __init__(self, shared_state: SharedState) -> None:
        self._shared_state = shared_state
        self._known: dict[tuple[Lane, str], tuple[float, Forecast]] = {}
        self._noted: dict[tuple[Lane, str], float] = {}
        self._lock = threading.Lock()

    def forecast(self, lane: Lane, model: str, now: float) -> Forecast:
        """What is known of how long tasks of this model take.

        A new model begins with what its service has taught.
        """
        place = (self._shared(lane), model)
        with self._lock:
            at, known = self._known.get(place, (float("-inf"), None))
            if known is not None and 0 <= now - at < FRESH_FOR:
                return known
        service = self._shared_state.durations(place[0], "")
        fresh = (
            forecast(self._shared_state.durations(place[0], model), service)
            if model
            else forecast(service)
        )
        with self._lock:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[place] = (now, fresh)
        return fresh

    def worth(self, lane: Lane, batch: Sequence[Candidate], now: float) -> float:
        """What asking about these ids is worth now.

        The sum of their expected undetected waits, in task-seconds.
        """
        worth = 0.0
        for one in batch:
            last_age = (one.polled_at or one.submitted_at) - one.submitted_at
            worth += self.forecast(lane, one.model, now).wait(
                max(last_age, 0.0), now - one.submitted_at
            )
        return worth

    def learn(self, lane: Lane, polls: Mapping[str, Sequence[Observation]], now: float) -> None:
        """Teach the duration models what polls have shown, by model.

        The duration model of the service learns from all of them.
        """
        shared = self._shared(lane)
        for model, seen in polls.items():
            if model:
                self._shared_state.change_durations(
                    shared, model, lambda durations, seen=seen: observe(durations, seen)
                )  # type: ignore[misc]
        everything = [poll for seen in polls.values() for poll in seen]
        if everything:
            self._shared_state.change_durations(
                shared, "", lambda durations: observe(durations, everything)
            )
        self._note(shared, [model for model in polls if model], now)

    def _note(self, lane: Lane, models: Sequence[str], now: float) -> None:
        with self._lock:
            unnoted = [
                model
                for model in models
                if not 0 <= now - self._noted.get((lane, model), float("-inf")) < NOTED_FOR
            ]
            if len(self._noted) >= KEPT:
                self._noted.clear()
            self._noted |= {(lane, model): now for model in unnoted}
        self._shared_state.note_models(lane, unnoted, now)

    @staticmethod
    def _shared(lane: Lane) -> Lane:
        """All shards of a lane share their duration models."""
        return Lane(lane.account, lane.service)
