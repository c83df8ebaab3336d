"""SIGTERM.

A worker gives back what it holds, nobody waits for its leases, and a rolling restart is not seen
from outside.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from acceptance.conftest import SERVICE, Stack, wait_until
from acceptance.parts import BLUR, Parts
from cavendish.endpoints.webhook_endpoint import subscription_of
from cavendish.model import Lane
from cavendish.store.keys import LaneKeys, delivery_of
from cavendish_worker.devstack.emulator.tasks_api import EmulatorConfig
from chaos.rolling import roll
from conftest import Server
from delivering import Served

LANE = Lane("default", SERVICE)
LEASES = LaneKeys(LANE).leases


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("latency", "shutdown_timeout"),
    [(2.0, 20.0), (300.0, 6.0)],
    ids=["calls end", "calls are left"],
)
def test_a_worker_that_is_ended_in_the_middle_of_batches_leaves_no_lease_to_wait_for(
    own_server: Server, served: Served, latency: float, shutdown_timeout: float
) -> None:
    """Calls that end in time are waited for.

    What a longer one asks about is given back unasked: the worker ends, although each of its calls
    would take minutes. Another worker does the rest.
    """
    config = EmulatorConfig(rate=0.0, median=1.0, latency=latency)
    parts = Parts(
        own_server.url, served, config, BATCH_SIZE="10", SHUTDOWN_TIMEOUT=str(shutdown_timeout)
    )
    redis = parts.store.connection.redis
    try:
        parts.start_rate(20.0)
        parts.celery("beat")
        worker = parts.celery("worker")
        ids = parts.emulator.create(300)
        parts.client.submit(ids, service=SERVICE, webhook=parts.receiver)
        wait_until(lambda: redis.hlen(LEASES) >= 60, 60, "the worker is in the middle of batches")
        parts.end(worker)
        queued = redis.llen(
            "cavendish.retrieve"
        )  # sent in the last moment: asked by whoever comes first
        assert redis.hlen(LEASES) <= 10 * queued
        assert (redis.hlen("unacked"), parts.fleet("worker")) == (0, [])
        parts.emulator.config = replace(config, latency=0.05)
        parts.celery("worker")
        wait_until(lambda: parts.settled(ids), 60, "another worker settles everything")
        wait_until(lambda: len(parts.announced()["states"]) == len(ids), 60, "all announced")
        assert (
            parts.tally()["repeated"] == 0 or latency > shutdown_timeout
        )  # an answer that nobody waited for is told again
        assert not any("Traceback" in line for line in parts.lines().splitlines()), parts.lines()
    finally:
        parts.close()


@pytest.mark.timeout(300)
def test_no_message_lies_between_the_broker_and_a_worker_that_only_waits_for_its_last_calls(
    own_server: Server, served: Served
) -> None:
    config = EmulatorConfig(rate=0.0, median=0.1, latency=100.0)  # longer than it is waited for
    asked = threading.Event()

    def watched(handler: Callable[[httpx.Request], Any]) -> str:
        async def noted(request: httpx.Request) -> Any:
            asked.set()
            return await handler(request)

        return served(noted)

    parts = Parts(own_server.url, watched, config, SHUTDOWN_TIMEOUT="15")
    redis = parts.store.connection.redis
    try:
        beat, worker = parts.celery("beat"), parts.celery("worker")
        parts.client.submit(parts.emulator.create(1), service=SERVICE, deadline=1)
        wait_until(asked.is_set, 60, "a long call is under way")
        parts.end(beat)
        worker.terminate()
        ids = [f"id-{number}" for number in range(20)]
        for task_id in ids:  # some before it stops listening, some after
            parts.producer.send_task(
                "cavendish.submit",
                args=[[task_id]],
                kwargs={"service": SERVICE},
                queue="cavendish.submit",
            )
            time.sleep(0.05)
        time.sleep(1.5)
        assert worker.poll() is None  # it waits for the call
        assert len(parts.tasks(ids)) + int(redis.llen("cavendish.submit")) == 20
        assert worker.wait(40) == 0
        parts.celery("worker")
        wait_until(lambda: len(parts.tasks(ids)) == 20, 60, "another worker takes them")
    finally:
        parts.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("answers_after", "left"), [(2.0, False), (30.0, True)], ids=["calls end", "calls are left"]
)
def test_a_worker_that_is_ended_in_the_middle_of_webhooks_leaves_no_lease_to_wait_for(
    own_server: Server, served: Served, answers_after: float, left: bool
) -> None:
    """An answer that comes in time counts.

    What is not waited for is charged to nobody, and sent again by another worker.
    """
    heard, slow = list[str](), True

    async def receiver(request: httpx.Request) -> httpx.Response:
        heard.append(request.headers["webhook-id"])
        if slow:
            await asyncio.sleep(answers_after)
        return httpx.Response(204)

    parts = Parts(
        own_server.url,
        served,
        EmulatorConfig(rate=0.0, median=0.1),
        SHUTDOWN_TIMEOUT="6",
        WEBHOOK_CALLS_PER_ENDPOINT="10",
    )
    try:
        parts.celery("beat")
        worker, ids = parts.celery("worker"), parts.emulator.create(40)
        url = served(receiver)
        parts.client.submit(ids, service=SERVICE, webhook=url)
        wait_until(lambda: len(heard) >= 4 and parts.settled(ids), 60, "calls are under way")
        parts.end(worker)
        assert (before := len(heard)) < 40
        slow = False
        parts.celery("worker")
        wait_until(
            lambda: len({*heard}) == 40 and not parts.store.statistics([LANE]).pending_by_endpoint,
            60,
            "the rest waits for no lease",
        )
        assert len(heard) - 40 == (before if left else 0)
        deliveries = parts.store.deliveries.load(
            LANE, [delivery_of(subscription_of(url), task_id) for task_id in ids]
        )
        assert {
            (delivery.state, delivery.attempts, delivery.outcome) for delivery in deliveries
        } == {("delivered", 1, "HTTP 204")}
    finally:
        parts.close()


@pytest.mark.timeout(300)
def test_a_rolling_restart_under_load_keeps_nobody_waiting_for_a_lease(
    own_server: Server, served: Served
) -> None:
    """Forty ids a second, and every worker is replaced in the middle of it.

    A lease lasts longer than anything is waited for here. `make chaos` says how long ids wait.
    """
    parts = Parts(
        own_server.url, served, EmulatorConfig(rate=0.0, median=2.0, sigma=0.3), LEASE="600"
    )
    try:
        parts.start_rate(20.0)
        delays = roll(parts, 2, apart=1.0, after=2.0)
        assert delays[0] > -BLUR
        assert parts.tally()["repeated"] <= 5
    finally:
        parts.close()


def test_a_stack_whose_terminal_is_closed_leaves_nothing_behind(
    start: Callable[..., Stack],
) -> None:
    stack = start("--no-flower")
    pids = stack.pids()
    stack.process.send_signal(signal.SIGHUP)
    assert stack.process.wait(30) == 0
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
