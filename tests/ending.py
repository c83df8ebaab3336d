"""Ends of tracked tasks, written as a worker writes them: by the store's own claim and settle."""

from __future__ import annotations

import time
from typing import Any

from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store


def settle(
    store: Store,
    lane: Lane,
    *ids: str,
    state: State = State.SUCCEEDED,
    kept: int = 1000,
    record: dict[str, Any] | None = None,
) -> None:
    """End pending ids of a lane; each gets a record, or this one."""
    now = store.fleet.now()
    store.tasks.claim(lane, now + 200, "t1", store.tasks.candidates(lane, now + 100, 1000))
    tasks = store.tasks.load(lane, ids).tasks.values()
    outcomes = [(Outcome(task, state, record=record or {"id": task.id}), 0.0) for task in tasks]
    settled = store.tasks.settle(lane, "t1", now, outcomes, 3600, kept)
    assert [one.verdict for one in settled] == [state] * len(ids)


def settle_pending(store: Store, lane: Lane, task_id: str) -> None:
    """A poll that finds an id pending, to be polled again much later."""
    now = store.fleet.now()
    store.tasks.claim(lane, now + 200, "t1", store.tasks.candidates(lane, now + 100, 1000))
    task = store.tasks.load(lane, [task_id]).tasks[task_id]
    store.tasks.settle(lane, "t1", now, [(Outcome(task, State.PENDING), 9e9)], 3600, 1000)


def blocked(store: Store) -> None:
    """Wait until somebody blocks on a stream."""
    until = time.monotonic() + 60
    while not int(store.connection.redis.info("clients")["blocked_clients"]):  # type: ignore[index]
        assert time.monotonic() < until
        time.sleep(0.02)
