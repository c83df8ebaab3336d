"""Beat with a real Redis as store and broker: what it sends, and when it is still."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cavendish.store import Store
from cavendish.store.fleet import GONE_AFTER, Member
from cavendish.submission import SubmitOptions
from cavendish.task_names import DELIVER, DISPATCH, EXPIRE, RECONCILE
from cavendish_worker import runtime as wiring
from cavendish_worker.celeryapp import beat as beat_schedule
from cavendish_worker.celeryapp.app import build
from cavendish_worker.celeryapp.beat import BeatScheduler, Messages, Watch
from cavendish_worker.telemetry import logs
from conftest import Server


class Steady:
    """A steady clock that goes on when it is told to, so that seconds of a test take no time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def broker_clock(monkeypatch: pytest.MonkeyPatch) -> Steady:
    """The clock that beat goes by."""
    clock = Steady()
    monkeypatch.setattr(beat_schedule, "time", clock)
    return clock


def hear(store: Store, ago: float = 0.0) -> None:
    """A worker's heart has beaten so long ago."""
    store.fleet.beat(Member("worker@here:1", "worker", "1", store.fleet.now() - ago))


def add(store: Store) -> None:
    now = store.fleet.now()
    store.tasks.add(
        ["a"], SubmitOptions("nano-banana", "default", (), 1000.0, "", "", "", False), now, now
    )


@pytest.fixture
def beat(store: Store, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[BeatScheduler]:
    """Beat's scheduler as its process would load it."""
    monkeypatch.setenv("CAVENDISH_REDIS_URL", server.url)
    monkeypatch.setattr(wiring, "_runtime", None)
    runtime = wiring.get_runtime()
    app = build(runtime.settings)
    scheduler = BeatScheduler(app=app)
    yield scheduler
    scheduler.connection.close()
    app.close()
    runtime.client.close()
    runtime.store.close()
    runtime.loop.close(runtime.upstream.close())


def run(
    beat: BeatScheduler, broker_clock: Steady, seconds: float, *, worker_takes: bool = True
) -> None:
    """Let beat go on; a worker takes each message at once, and leaves it where `sent` counts it."""
    until, fleet = broker_clock.now + seconds, wiring.get_runtime().store.fleet
    while broker_clock.now < until:
        broker_clock.now += beat.tick()
        for task in (DISPATCH, DELIVER, EXPIRE, RECONCILE) if worker_takes else ():
            fleet.taken(task)


def sent(store: Store) -> Counter[str]:
    """How many messages lie in each queue."""
    redis = store.connection.redis
    return Counter(
        {
            task: redis.llen(task)
            for task in (DISPATCH, DELIVER, EXPIRE, RECONCILE)
            if redis.llen(task)
        }
    )


def test_nothing_is_sent_while_no_worker_is_heard_of_so_no_messages_pile_up(
    store: Store, beat: BeatScheduler, broker_clock: Steady
) -> None:
    add(store)
    hear(store, ago=GONE_AFTER + 1)
    run(beat, broker_clock, 1.2)
    assert sent(store) == {}
    hear(store)
    run(beat, broker_clock, 2.0)
    assert sent(store)[DISPATCH] >= 3


def test_an_idle_stack_gets_no_ticks_and_the_first_comes_within_a_second_of_a_submit(
    store: Store, beat: BeatScheduler, broker_clock: Steady
) -> None:
    hear(store)
    run(beat, broker_clock, 1.0)
    assert sent(store) == {DELIVER: 1, RECONCILE: 1}
    add(store)
    run(beat, broker_clock, 1.0)
    assert sent(store)[DISPATCH] >= 1
    store.connection.redis.delete("cavendish:{cavendish:deadlines}:due")
    run(beat, broker_clock, 1.5)
    before = sent(store)[DISPATCH]
    run(beat, broker_clock, 1.0)
    assert sent(store)[DISPATCH] == before


def test_a_tick_comes_four_times_a_second_while_ids_are_pending_and_carries_no_time(
    store: Store, beat: BeatScheduler, broker_clock: Steady
) -> None:
    hear(store)
    add(store)
    run(beat, broker_clock, 3.0)
    assert 11 <= sent(store)[DISPATCH] <= 13
    message = json.loads(str(store.connection.redis.lindex(DISPATCH, 0)))
    assert (message["headers"]["expires"], message["headers"]["eta"]) == (None, None)


def test_a_wall_clock_that_is_set_back_does_not_stop_beat(
    store: Store, beat: BeatScheduler, broker_clock: Steady, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear(store)
    add(store)
    run(beat, broker_clock, 1.0)
    before, behind = sent(store)[DISPATCH], time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: behind)
    run(beat, broker_clock, 1.0)
    assert sent(store)[DISPATCH] >= before + 3


def test_with_the_store_away_nothing_is_sent_and_it_is_said_once(
    own_server: Server, broker_clock: Steady, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up("console", "info")
    store = Store(own_server.url)
    hear(store)
    watch = Watch(store)
    assert watch.useful(RECONCILE)
    own_server.kill()
    for _ in range(40):
        watch.useful(DISPATCH)
        broker_clock.now += 0.1
    assert not watch.useful(RECONCILE)
    own_server.start()
    hear(store)
    broker_clock.now += 1.1
    assert watch.useful(RECONCILE)
    store.close()
    said = capsys.readouterr().err
    assert (said.count("beat.waits"), said.count("beat.continues")) == (1, 1)


def test_no_message_joins_one_that_waits_in_its_queue(
    store: Store, beat: BeatScheduler, broker_clock: Steady
) -> None:
    hear(store)
    add(store)
    run(beat, broker_clock, 3.0, worker_takes=False)
    assert sent(store) == {DISPATCH: 1, DELIVER: 1, EXPIRE: 1, RECONCILE: 1}
    store.fleet.taken(DISPATCH)
    run(beat, broker_clock, 1.0, worker_takes=False)
    assert sent(store)[DISPATCH] == 2


def test_a_message_that_is_lost_is_followed_by_another_and_then_more_and_more_seldom(
    store: Store, broker_clock: Steady
) -> None:
    messages, waits = Messages(store), []
    for _ in range(4):
        assert messages.may_send(DISPATCH)
        waits.append(round(store.connection.redis.pttl(f"cavendish:message:{DISPATCH}") / 1000))
        assert not messages.may_send(DISPATCH)
        store.connection.redis.delete(f"cavendish:message:{DISPATCH}")  # its time is over
        broker_clock.now += waits[-1]
    assert waits == [2, 4, 8, 16]
    store.fleet.taken(DISPATCH)
    broker_clock.now -= 1.0  # within its time: it was taken
    assert messages.may_send(DISPATCH)
    assert store.connection.redis.pttl(f"cavendish:message:{DISPATCH}") <= 2000


def test_no_tick_is_sent_while_no_lane_is_due_or_its_account_is_paused(
    store: Store, beat: BeatScheduler, broker_clock: Steady
) -> None:
    hear(store)
    now = store.fleet.now()
    options = SubmitOptions("nano-banana", "default", (), 9000.0, "", "", "", False)
    store.tasks.add(["a"], options, now + 900, now + 900)
    run(beat, broker_clock, 1.0)
    assert DISPATCH not in sent(store)
    add(store)
    store.shared_state.change_rate_limit(
        "default", lambda known: (replace(known, paused_until=now + 600), None)
    )
    run(beat, broker_clock, 1.0)
    assert DISPATCH not in sent(store)
    store.shared_state.change_rate_limit(
        "default", lambda known: (replace(known, paused_until=0.0), None)
    )
    run(beat, broker_clock, 1.0)
    assert sent(store)[DISPATCH] >= 3
