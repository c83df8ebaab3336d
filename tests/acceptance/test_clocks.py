"""Two of everything, and no two clocks alike: the wall clocks of the processes do not matter."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from endpoint_index import Served

from acceptance.conftest import SERVICE, wait_until
from acceptance.parts import BLUR, Parts
from cavendish_worker.devstack.emulator.api import Config
from conftest import Server

HOUR = 3600.0
COUNT = 400


def tracked(
    server: Server, served: Served, beats: Sequence[float], workers: Sequence[float]
) -> float:
    """Track ids with beats and workers whose clocks are so many seconds ahead, hold the promise,
    return calls per task.
    """
    parts = Parts(server.url, served, Config(rate=20.0, median=5.0, latency=0.5), BATCH_SIZE="10")
    try:
        parts.store.connection.redis.flushall()
        for shift in beats:
            parts.celery("beat", shift=shift)
        for shift in workers:
            parts.celery("worker", shift=shift)
        ids = parts.emulator.create(COUNT)
        parts.client.submit(ids, service=SERVICE, webhook=parts.receiver)
        wait_until(lambda: parts.settled(ids), 60, "all settled")
        wait_until(lambda: len(parts.announced()["states"]) == COUNT, 20, "all announced")
        tasks, announced = parts.tasks(ids), parts.announced()
        assert announced["states"] == {task_id: task.state.value for task_id, task in tasks.items()}
        assert (announced["under_two_ids"], announced["refused"]) == (0, [])
        assert parts.delays(ids)[0] > -BLUR  # none early
        tally, redis = parts.tally(), parts.store.connection.redis
        assert tally["restart"] == 0  # no message was given to two workers
        wait_until(lambda: not redis.hlen("unacked"), 5, "every message is acknowledged")
        return float(tally["calls"]) / COUNT
    finally:
        parts.close()


@pytest.mark.timeout(240)
def test_two_beats_and_four_workers_whose_clocks_are_hours_apart_track_as_one_beat_does(
    own_server: Server, served: Served
) -> None:
    alone = tracked(own_server, served, [0.0], [0.0])
    apart = tracked(own_server, served, [HOUR, -HOUR], [0.0, HOUR, -HOUR, HOUR / 2])
    assert apart <= alone * 1.05 + 10 / COUNT
