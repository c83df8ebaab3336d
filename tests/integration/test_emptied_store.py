"""A store that is emptied under running processes: they notice it, and everybody is told."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from acceptance.conftest import wait_until
from acceptance.parts import Parts
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.fleet import REPORTED_FOR, Emptied
from cavendish.store.keys import EMPTIED, ORIGIN
from cavendish_worker import doctor
from cavendish_worker.cli.top.overview import _notes
from cavendish_worker.devstack.emulator.tasks_api import EmulatorConfig
from cavendish_worker.telemetry.snapshot import gather
from cavendish_worker.webhooks.reconcile import reconcile
from conftest import Server
from delivering import Delivering, Served
from shell import Run


def beat(*processes: Store) -> list[Emptied]:
    """The next heartbeat of each process; what they noticed."""
    noticed = (process.fleet.found(process.fleet.now()) for process in processes)
    return [one for one in noticed if one]


@pytest.fixture
def processes(store: Store, server: Server) -> list[Store]:
    """Two processes that have seen the store; `store` itself is none of them."""
    running = [Store(server.url), Store(server.url)]
    assert beat(*running, *running) == []
    return running


@pytest.fixture
def emptied(store: Store, processes: list[Store]) -> Emptied:
    store.connection.redis.flushall()
    (noticed,) = beat(*processes)
    return noticed


def ill(store: Store, settings: Settings) -> list[str]:
    found = doctor.examine(store, settings, offline=True)
    return [one.found for one in found if one.what == "store" and not one.ok]


def test_one_of_the_processes_notes_it_and_they_all_go_on_with_the_new_store(
    emptied: Emptied, store: Store, processes: list[Store], settings: Settings
) -> None:
    assert emptied == store.fleet.emptied()
    assert beat(*processes, *processes) == []
    assert ill(store, settings) == [emptied.reason]
    assert emptied.reason.startswith("the store that began 20")
    ttl = store.connection.redis.ttl(EMPTIED)
    assert REPORTED_FOR - 60 < ttl <= REPORTED_FOR  # type: ignore[operator]


def test_it_is_noticed_though_a_new_process_was_faster(
    store: Store, server: Server, processes: list[Store]
) -> None:
    store.connection.redis.flushall()
    assert beat(Store(server.url)) == []
    assert len(beat(*processes)) == 1


def test_new_processes_on_an_empty_store_notice_nothing(
    store: Store, server: Server, settings: Settings
) -> None:
    first = Store(server.url)
    assert beat(first, first) == []
    store.connection.redis.flushall()
    assert beat(Store(server.url), Store(server.url)) == []
    assert ill(store, settings) == []


def test_a_restart_of_redis_that_keeps_its_data_is_no_loss(own_server: Server) -> None:
    process = Store(own_server.url)
    assert beat(process) == []
    own_server.kill()
    own_server.start()
    assert beat(process) == []


def test_doctor_fails_until_an_operator_acknowledges_it_and_a_late_process_does_not_bring_it_back(
    emptied: Emptied, store: Store, server: Server, settings: Settings, run: Run
) -> None:
    done = run("doctor", "--offline")
    assert done.exit_code == 1
    assert emptied.reason in done.output
    assert "cavendish doctor --acknowledge" in done.output
    assert emptied.reason not in run("doctor", "--offline", "--acknowledge").output
    late = Store(server.url)
    late.fleet._origin = "1000000000.000-0123456789abcdef"
    assert beat(late) == []
    assert ill(store, settings) == []
    assert store.connection.redis.ttl(EMPTIED) > 0  # type: ignore[operator]


def test_acknowledging_what_did_not_happen_changes_nothing(store: Store, run: Run) -> None:
    run("doctor", "--offline", "--acknowledge")
    assert not store.connection.redis.exists(EMPTIED)


def test_status_and_metrics_say_it(
    emptied: Emptied, store: Store, settings: Settings, run: Run
) -> None:
    (note,) = _notes(gather(store, settings), None)
    assert note.startswith("the store was emptied before 20")
    assert "cavendish_store_emptied 1.0" in run("metrics").output
    store.fleet.acknowledge_emptied()
    assert _notes(gather(store, settings), None) == []
    assert "cavendish_store_emptied 0.0" in run("metrics").output


def test_operators_get_one_alert(
    emptied: Emptied, store: Store, served: Served, endpoint_index: Delivering
) -> None:
    got: list[dict[str, Any]] = []

    async def operations(request: httpx.Request) -> httpx.Response:
        got.append(json.loads(await request.aread()))
        return httpx.Response(204)

    url = served(operations)
    for _ in range(2):
        reconcile(store, url, 3600, 3600)
    assert endpoint_index.deliver(operations=url).delivered == 1
    assert got[0]["type"] == "store.emptied"
    assert got[0]["data"]["reason"] == emptied.reason


@pytest.mark.parametrize("damaged", ["[" * 10_000, "{}", '{"at":1e300,"began":1.0}', "x"])
def test_a_damaged_note_or_origin_is_as_good_as_none(
    store: Store, settings: Settings, processes: list[Store], damaged: str
) -> None:
    store.connection.redis.set(EMPTIED, damaged)
    store.connection.redis.set(ORIGIN, damaged)
    assert beat(*processes) == []
    assert ill(store, settings) == []


def test_a_running_worker_says_that_its_store_was_emptied(
    own_server: Server, served: Served
) -> None:
    """A real worker and a real FLUSHALL: it takes as long as a heartbeat."""
    parts = Parts(own_server.url, served, EmulatorConfig())
    try:
        parts.celery("worker")
        parts.client.submit([f"id-{number}" for number in range(50)], service="nano-banana")
        parts.store.connection.redis.flushall()
        wait_until(parts.store.fleet.emptied, 60, "the worker notices it")
        wait_until(lambda: "store.emptied" in parts.lines(), 60, "it says so")
        (line,) = [line for line in parts.lines().splitlines() if '"store.emptied"' in line]
        assert json.loads(line)["level"] == "error"
    finally:
        parts.close()
