"""When is a look worth it? The laws of the book, kept for a few seconds in each process, and taught by its looks."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from scheduler.law import Look, Outlook, observe, outlook
from scheduler.store.learned import Learned
from scheduler.tracking import Candidate, Lane

#: Seconds that an outlook is kept, and how many are.
FRESH_FOR, KEPT = 5.0, 500
#: Seconds after which a process notes again that a model was taught.
NOTED_FOR = 600.0


class Forecasts:
    """Outlooks by lane and model. Safe to share between threads; every method raises BookUnavailable."""

    def __init__(self, learned: Learned) -> None:
        self._learned = learned
        self._known: dict[tuple[Lane, str], tuple[float, Outlook]] = {}
        self._noted: dict[tuple[Lane, str], float] = {}
        self._lock = threading.Lock()

    def outlook(self, lane: Lane, model: str, now: float) -> Outlook:
        """What is known of how long tasks of this model take; a new model begins with what its service has taught."""
        place = (self._shared(lane), model)
        with self._lock:
            at, known = self._known.get(place, (float("-inf"), None))
            if known is not None and 0 <= now - at < FRESH_FOR:
                return known
        service = self._learned.law(place[0], "")
        fresh = outlook(self._learned.law(place[0], model), service) if model else outlook(service)
        with self._lock:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[place] = (now, fresh)
        return fresh

    def worth(self, lane: Lane, batch: Sequence[Candidate], now: float) -> float:
        """What asking about these ids is worth now: the sum of their expected undetected waits, in task-seconds."""
        worth = 0.0
        for one in batch:
            last_age = (one.looked_at or one.submitted_at) - one.submitted_at
            worth += self.outlook(lane, one.model, now).wait(max(last_age, 0.0), now - one.submitted_at)
        return worth

    def learn(self, lane: Lane, looks: Mapping[str, Sequence[Look]], now: float) -> None:
        """Teach the laws what looks have shown, by model; the law of the service learns from all of them."""
        shared = self._shared(lane)
        for model, seen in looks.items():
            if model:
                self._learned.change_law(shared, model, lambda law, seen=seen: observe(law, seen))  # type: ignore[misc]
        everything = [look for seen in looks.values() for look in seen]
        if everything:
            self._learned.change_law(shared, "", lambda law: observe(law, everything))
        self._note(shared, [model for model in looks if model], now)

    def _note(self, lane: Lane, models: Sequence[str], now: float) -> None:
        with self._lock:
            unnoted = [model for model in models if not 0 <= now - self._noted.get((lane, model), float("-inf")) < NOTED_FOR]
            if len(self._noted) >= KEPT:
                self._noted.clear()
            self._noted |= {(lane, model): now for model in unnoted}
        self._learned.note_models(lane, unnoted, now)

    @staticmethod
    def _shared(lane: Lane) -> Lane:
        """All shards of a lane share their laws."""
        return Lane(lane.account, lane.service)
