"""Estimate how long it takes until all of some ids have ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cavendish import TrackedTask
from cavendish.clock import Clock
from cavendish.model import Lane
from cavendish.policy.next_poll import Forecast, until_all
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts

#: Pending ids from which the estimate is made; more would hardly change it.
SAMPLE = 100


@dataclass
class Waited:
    """What is known of ids while they are waited for; one thread polls, another one shows it."""

    store: Store
    ids: Sequence[str]
    lane: Lane
    forecasts: Forecasts = field(init=False)
    clock: Clock = field(init=False)
    ended: set[str] = field(default_factory=set)
    #: The pending tasks with the forecast of each model. One attribute, so that the other thread
    #: always reads both of the same poll.
    _pending: tuple[list[TrackedTask], dict[str, Forecast]] = field(
        default_factory=lambda: ([], {})
    )

    def __post_init__(self) -> None:
        self.forecasts, self.clock = Forecasts(self.store.shared_state), self.store.clock()

    def poll(self) -> list[TrackedTask]:
        """Read the pending ids from the store; returns those that have ended since.

        Raises StoreUnavailable.
        """
        left = [task_id for task_id in self.ids if task_id not in self.ended]
        found = self.store.tasks.get(self.lane.account, self.lane.service, left, with_record=False)
        ended = [task for task in found.values() if task.state.terminal]
        pending = [task for task in found.values() if not task.state.terminal]
        self.ended.update(task.id for task in ended)
        models, now = {task.model for task in pending}, self.clock.now()
        self._pending = (
            pending,
            {model: self.forecasts.forecast(self.lane, model, now) for model in models},
        )
        return ended

    def eta(self) -> tuple[float, float] | None:
        """Seconds until all have ended, with a probability of 50% and of 95%.

        None if none is pending.
        """
        (pending, known), now = self._pending, self.clock.now()
        if not pending:
            return None
        longest = max(max(task.deadline_at for task in pending) - now, 0.0)
        running = [
            (
                known[task.model],
                max((task.polled_at or task.submitted_at) - task.submitted_at, 0.0),
                now - task.submitted_at,
            )
            for task in pending[:: max(len(pending) // SAMPLE, 1)]
        ]
        weight = len(pending) / len(running)  # of one task of the sample
        even, most = (until_all(running, share ** (1 / weight), longest) for share in (0.5, 0.95))
        return even, most


def in_words(eta: tuple[float, float] | None) -> str:
    """An estimate in words; empty for None."""
    if eta is None:
        return ""
    even, most = (
        f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" for seconds in eta
    )
    return f"about {even} more, at most {most}" if even != most else f"about {even} more"
