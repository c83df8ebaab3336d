"""Forecasts of how long tasks take: read from the store, cached for seconds, taught by polls."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence

from cavendish.model import Candidate, Lane
from cavendish.policy.callbacks import Callbacks, proved
from cavendish.policy.durations import Observation, observe
from cavendish.policy.next_poll import CALL_PRICE, TOLERATED, Forecast, forecast
from cavendish.store.shared_state import SharedState

#: Seconds for which a forecast is cached, and how many are.
FRESH_FOR, KEPT = 5.0, 500
#: Seconds after which a process lists a model again as one that learned.
NOTED_FOR = 600.0
#: Seconds for which a process gathers what polls have shown of a model, before it teaches it.
GATHERED_FOR = 1.0
#: Ids of a batch that tell when it is worth a call.
SAMPLE = 8


class Forecasts:
    """Forecasts by lane and model.

    Safe to share between threads; every method raises StoreUnavailable.
    """

    def __init__(self, shared_state: SharedState) -> None:
        self._shared_state = shared_state
        self._known: dict[tuple[Lane, str], tuple[float, Forecast]] = {}
        self._heard: dict[Lane, tuple[float, Callbacks]] = {}
        self._noted: dict[tuple[Lane, str], float] = {}
        self._gathered: dict[tuple[Lane, str], list[Observation]] = {}
        self._taught: dict[tuple[Lane, str], float] = {}
        self._lock = threading.Lock()

    def forecast(self, lane: Lane, model: str, now: float) -> Forecast:
        """How long tasks of a `model` take; a new model begins with what its service has taught."""
        shared = _shared(lane)
        with self._lock:
            at, known = self._known.get((shared, model), (float("-inf"), None))
            if known is not None and 0 <= now - at < FRESH_FOR:
                return known
        silent = self.callbacks(lane, now).silent
        service = self._shared_state.durations(shared, "")
        durations = self._shared_state.durations(shared, model) if model else None
        if durations:
            fresh = forecast(durations, service, silent)
        else:
            fresh = forecast(service, silent=silent)
        with self._lock:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[shared, model] = (now, fresh)
        return fresh

    def callbacks(self, lane: Lane, now: float) -> Callbacks:
        """What the callbacks of a service have proved to be worth."""
        shared = _shared(lane)
        with self._lock:
            at, known = self._heard.get(shared, (float("-inf"), None))
            if known is not None and 0 <= now - at < FRESH_FOR:
                return known
        fresh = self._shared_state.callbacks(shared)
        with self._lock:
            if len(self._heard) >= KEPT:
                self._heard.clear()
            self._heard[shared] = (now, fresh)
        return fresh

    def worth(
        self, lane: Lane, batch: Sequence[Candidate], now: float, *, gathering: bool = False
    ) -> float:
        """The sum of the expected undetected waits of these ids now, in task-seconds, as far as
        each is more than TOLERATED.

        An id whose end is announced is worth a call of its own while calls are plentiful; near the
        rate limit it waits for others. While announced ids are `gathering` they are worth nothing.
        """
        worth, true = 0.0, self.callbacks(lane, now).true
        models = {model: self.forecast(lane, model, now) for model in {one.model for one in batch}}
        for one in batch:
            if one.is_announced and one.due <= now:
                if not gathering:
                    worth += true * (CALL_PRICE + max(now - one.wanted_at, 0.0))
                continue
            last_age = _last_age(one)
            age, model = now - one.submitted_at, models[one.model]
            if one.announced_at is None:
                wait = model.wait(last_age, age, unheard=one.due <= now)
            else:  # it had its callback too early: no other will come
                wait = model.wait(last_age, age) / model.silent
            worth += max(wait - TOLERATED, 0.0)
        return worth

    def worth_at(self, lane: Lane, batch: Sequence[Candidate], each: float, now: float) -> float:
        """The first time at which one of these ids is worth so many task-seconds; of a large batch
        only some are asked, as they are alike.
        """
        some = batch[:: math.ceil(len(batch) / SAMPLE)]
        return min(
            one.submitted_at
            + self.forecast(lane, one.model, now).next_age(_last_age(one), TOLERATED + each)
            for one in some
        )

    def learn(
        self, lane: Lane, observations: Mapping[str, Sequence[Observation]], now: float
    ) -> None:
        """Teach the duration models what polls have shown, by model.

        The duration model of the service learns from all of them. What is shown within a second is
        taught together; a process that is killed takes so much with it.
        """
        shared = _shared(lane)
        everything = [one for seen in observations.values() for one in seen]
        with self._lock:
            for model, seen in observations.items():
                for name in {model, ""}:
                    self._gathered.setdefault((shared, name), []).extend(seen)
            ripe = self._ripe(now)
        for (other, model), seen in ripe.items():
            self._teach(other, model, seen)
        if any(one.announced for one in everything) or self.callbacks(lane, now) != Callbacks():
            self._shared_state.change_callbacks(
                shared, lambda known: proved(known, everything, now)
            )
        self._note(shared, [model for model in observations if model], now)

    def _ripe(self, now: float) -> dict[tuple[Lane, str], list[Observation]]:
        """Take out what was gathered for models that were not taught within the last second."""
        self._taught = {
            name: at for name, at in self._taught.items() if 0 <= now - at < GATHERED_FOR
        }
        ripe = {
            name: self._gathered.pop(name) for name in self._gathered.keys() - self._taught.keys()
        }
        self._taught |= dict.fromkeys(ripe, now)
        return ripe

    def _teach(self, lane: Lane, model: str, seen: Sequence[Observation]) -> None:
        self._shared_state.change_durations(lane, model, lambda durations: observe(durations, seen))

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


def _last_age(one: Candidate) -> float:
    """The age, in seconds, at which an id was last seen running."""
    return max((one.polled_at or one.submitted_at) - one.submitted_at, 0.0)


def _shared(lane: Lane) -> Lane:
    """The lane that stands for all shards of it: they share their duration models."""
    return Lane(lane.account, lane.service)
