"""The beat schedule, and that the Celery app has a queue and a task for each line of it."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest
from celery import Celery

from cavendish.settings import Settings
from cavendish.task_names import DELIVER, DISPATCH, EXPIRE, QUEUES, RECONCILE, Entry, beat_schedule
from cavendish_worker.celeryapp import broker_clock
from cavendish_worker.celeryapp.app import build
from cavendish_worker.celeryapp.shutdown import time_for_calls


@pytest.fixture
def app() -> Celery:
    """The switchboard as a worker would load it; nothing is connected."""
    found = import_module("cavendish_worker.tasks").app
    assert isinstance(found, Celery)
    return found


def test_beat_starts_dispatch_at_every_tick_and_the_safety_nets() -> None:
    every = {entry.task: entry.every for entry in beat_schedule(Settings(tick=0.125))}
    assert every == {DISPATCH: 0.125, DELIVER: 15.0, EXPIRE: 5.0, RECONCILE: 60.0}


def test_every_queue_has_a_celery_task_of_its_name_and_every_celery_task_a_queue(
    app: Celery,
) -> None:
    assert {name for name in app.tasks if not name.startswith("celery.")} == set(QUEUES)
    assert [queue.name for queue in app.conf.task_queues] == list(QUEUES)
    assert app.conf.task_routes == {name: {"queue": name} for name in QUEUES}


def test_every_name_on_the_wire_is_our_own() -> None:
    assert all(name.startswith("cavendish.") for name in QUEUES)
    assert len(set(QUEUES)) == len(QUEUES)


@pytest.mark.parametrize("entry", beat_schedule(Settings()), ids=lambda entry: entry.task)
def test_whatever_beat_fires_can_run_without_arguments(app: Celery, entry: Entry) -> None:
    inspect.signature(app.tasks[entry.task].run).bind()


@pytest.mark.parametrize("tick", [0.05, 0.25, 1.0, 60.0])
def test_celerys_schedule_is_the_timetable_and_no_message_expires_by_anybodys_clock(
    tick: float,
) -> None:
    schedule = build(Settings(tick=tick)).conf.beat_schedule
    lines = {
        entry.task: {"task": entry.task, "schedule": entry.every}
        for entry in beat_schedule(Settings(tick=tick))
    }
    assert schedule == lines


def test_kombu_goes_by_the_clock_of_the_store_once_that_is_known(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_clock, "_clock", None)  # as it is again for the next test
    transport = import_module("kombu.transport.redis")
    broker_clock.set_clock(1000.0)
    assert 1000.0 <= transport.time() < 1060.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(("timeout", "calls"), [(20.0, 17.0), (6.0, 3.0), (1.0, 0.5)])
def test_calls_under_way_get_most_of_the_time_that_a_shutdown_may_take(
    timeout: float, calls: float
) -> None:
    assert time_for_calls(timeout) == calls


def test_messages_wait_longer_than_the_leases_of_what_they_carry() -> None:
    assert build(Settings(lease=600.0)).conf.broker_transport_options["visibility_timeout"] > 600


def test_messages_are_json_and_leave_no_results() -> None:
    conf = build(Settings()).conf
    assert (conf.task_serializer, conf.accept_content, conf.task_ignore_result) == (
        "json",
        ["json"],
        True,
    )
