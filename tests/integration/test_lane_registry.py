"""Lanes in which nothing is kept leave the list of lanes, and no lane that has ids is ever lost."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations_with_replacement
from typing import Any

import pytest

from cavendish.client import Client
from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.connection import Batch
from cavendish.store.deliveries import Attempt
from cavendish.store.due_index import WRITTEN_WITHIN
from cavendish.store.keys import LANES, LaneKeys
from cavendish.store.lane_registry import LaneRegistry
from cavendish.store.tracked_tasks import EVENTS_KEPT_FOR
from cavendish.submission import SubmitOptions
from cavendish_worker.webhooks.reconcile import reconcile
from conftest import Server

LANE, HOOK = Lane("default", "nano-banana"), "https://example.com/hook"


def add(store: Store, *ids: str, webhooks: tuple[str, ...] = ()) -> None:
    now = store.fleet.now()
    options = SubmitOptions(LANE.service, LANE.account, webhooks, 1000.0, "", "", "", restart=False)
    store.tasks.add(ids, options, now, now)


def end(store: Store, *ids: str, retention: float = 3600.0) -> list[str]:
    now = store.fleet.now()
    store.tasks.claim(LANE, now + 60, "t", store.tasks.candidates(LANE, now + 1, len(ids)))
    tasks = store.tasks.load(LANE, ids).tasks.values()
    outcomes = [(Outcome(task, State.SUCCEEDED, record={"id": task.id}), now) for task in tasks]
    settled = store.tasks.settle(LANE, "t", now, outcomes, retention, 100)
    return [delivery for one in settled for delivery in one.deliveries]


def looked_at(store: Store) -> None:
    """What is noted was written long ago, and each index has found out what waits by now."""
    now = store.fleet.now() + WRITTEN_WITHIN + 2000
    for index in (store.tasks.due("default"), store.deadlines.index, store.deliveries.index):
        found = index.due([group for group, _ in index.groups()], now, -1)
        index.looked_at([place._replace(at=None) for place in found], now)
    store.deadlines.drop_ended(LANE, 1000)


def expired(store: Store) -> None:
    """All that expires has expired."""
    redis = store.connection.redis
    for key in redis.keys("cavendish:*"):
        if redis.ttl(key) > 0:
            redis.delete(key)
    for lane in store.tasks.lanes():
        store.journal.forget(lane, math.inf)


def close(store: Store, state: str) -> None:
    """Claim the one delivery, and end it."""
    now = store.fleet.now()
    store.deliveries.sort([LANE], now)
    (endpoint,) = store.connection.redis.zrange(LaneKeys(LANE).endpoint_index, 0, -1)
    (name,) = store.deliveries.claim_delivery(LANE, now, now + 60, "d", 1, {str(endpoint): 1})
    end = store.deliveries.bury if state == "dead" else store.deliveries.delivered
    end(LANE, "d", now, [Attempt(name, "HTTP 500")], 3600.0)
    store.deliveries.claim_delivery(LANE, now, now + 60, "d", 1, {str(endpoint): 1})  # no more


def test_a_lane_whose_ids_are_all_forgotten_leaves_nothing_that_does_not_expire(
    store: Store,
) -> None:
    add(store, "a", webhooks=(HOOK,))
    add(store, "b")
    end(store, "a", "b")
    close(store, "delivered")
    store.shared_state.note_models(LANE, ["m"], store.fleet.now())
    reconcile(store, "", 3600.0, 3600.0)
    assert store.tasks.lanes() == [LANE]
    looked_at(store)
    expired(store)
    reconcile(store, "", 3600.0, 3600.0)
    assert store.tasks.lanes() == []
    assert store.connection.redis.keys("cavendish:{default*") == []
    assert store.statistics().tracked == []


def pending(store: Store) -> None:
    add(store, "a")


def retained(store: Store) -> None:
    add(store, "a")
    end(store, "a")
    for key in (LaneKeys(LANE).events, LaneKeys(LANE).task("a")):  # they have not expired yet
        store.connection.redis.persist(key)


def in_delivery(store: Store) -> None:
    add(store, "a", webhooks=(HOOK,))
    end(store, "a")


def dead(store: Store) -> None:
    in_delivery(store)
    close(store, "dead")


def quarantined(store: Store) -> None:
    add(store, "a")
    store.tasks.quarantine(LANE, {"a": "unreadable"})


@pytest.mark.parametrize("kept", [pending, retained, in_delivery, dead, quarantined])
def test_a_lane_in_which_anything_is_kept_stays(
    store: Store, kept: Callable[[Store], None]
) -> None:
    kept(store)
    looked_at(store)
    expired(store)
    assert store.lane_registry.forget([LANE], [LANE]) == []
    assert store.tasks.lanes() == [LANE]
    (lane,) = store.statistics().tracked
    assert lane.counts["submitted"] == 1


def test_the_events_of_a_lane_last_at_least_as_long_as_any_record_without_webhooks(
    store: Store,
) -> None:
    redis, keys = store.connection.redis, LaneKeys(LANE)
    add(store, "a", "b", "c")
    end(store, "a", retention=60.0)
    assert redis.ttl(keys.events) == pytest.approx(EVENTS_KEPT_FOR, abs=60)
    end(store, "b", retention=2 * EVENTS_KEPT_FOR)
    end(store, "c", retention=60.0)
    assert redis.pttl(keys.events) >= redis.pttl(keys.task("b")) > EVENTS_KEPT_FOR * 1000


def test_a_reader_of_events_goes_on_when_a_lane_comes_back(
    store: Store, settings: Settings
) -> None:
    add(store, "a")
    end(store, "a")
    with Client(settings=settings) as client:
        (event,) = client.events(after="0", follow=False)
        looked_at(store)
        expired(store)
        assert store.lane_registry.forget([LANE], [LANE]) == [LANE]
        assert list(client.events(after=event.position, follow=False)) == []
        add(store, "b")
        end(store, "b")
        (next_event,) = client.events(after=event.position, follow=False)
        assert next_event.id == "b"


def test_the_lanes_of_a_service_leave_together_as_its_totals_must_not_fall(store: Store) -> None:
    add(store, "a")
    end(store, "a")
    second, other = replace(LANE, shard=1), Lane("default", "flux")
    lanes = [other, LANE, second]
    store.connection.redis.sadd(LANES, *map(str, lanes))
    looked_at(store)
    assert store.lane_registry.forget(lanes, lanes) == [other]
    assert store.lane_registry.forget([second], lanes[1:]) == []
    expired(store)
    assert store.lane_registry.forget([second], lanes[1:]) == lanes[1:]
    assert store.tasks.lanes() == []


def test_a_forgotten_lane_is_in_no_list_of_troubles(store: Store) -> None:
    store.connection.redis.sadd(LANES, str(LANE))
    store.shared_state.paused.add(LANE, 1.0)
    store.shared_state.blind.add(LANE, 1.0)
    assert store.lane_registry.forget([LANE], [LANE]) == [LANE]
    assert store.shared_state.paused.lanes() == store.shared_state.blind.lanes() == []


@pytest.mark.parametrize("kept", [pending, in_delivery])
def test_a_lane_that_was_lost_from_the_list_comes_back_from_an_index(
    store: Store, kept: Callable[[Store], None]
) -> None:
    kept(store)
    store.connection.redis.delete(LANES)
    reconcile(store, "", 3600.0, 3600.0)
    assert store.tasks.lanes() == [LANE]


@pytest.fixture
def steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...]]]:
    """The commands of a submit, in their order; none of them was sent yet."""
    kept = list[tuple[str, tuple[Any, ...]]]()

    def keep(batch: Batch) -> list[Any]:
        kept.extend(batch._commands)
        return [[]] * len(batch._commands)  # no id was known

    with monkeypatch.context() as patched:
        patched.setattr(Batch, "execute", keep)
        add(store, "a")
    return kept


def test_no_interleaving_of_a_submit_and_a_run_that_forgets_its_lane_loses_the_lane(
    store: Store, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, tuple[Any, ...]]]
) -> None:
    redis, point, places = store.connection.redis, 0, list[int]()

    def submit_up_to_here() -> None:
        nonlocal point
        for place, (_, words) in zip(places, steps, strict=True):
            if place == point:
                redis.execute_command(*words)  # type: ignore[no-untyped-call]
        point += 1

    def hooked(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            submit_up_to_here()
            return step(*args)

        return run

    for name in ("_indexed", "_holding", "_forget", "_list"):
        monkeypatch.setattr(LaneRegistry, name, hooked(getattr(LaneRegistry, name)))
    monkeypatch.setattr(redis, "srem", hooked(redis.srem))
    left = 0
    for choice in combinations_with_replacement(range(7), len(steps)):
        redis.flushdb()
        redis.sadd(LANES, str(LANE))
        point, places = 0, list(choice)
        left += store.lane_registry.forget([LANE], [LANE]) == [LANE]
        while point < 7:
            submit_up_to_here()
        assert store.tasks.lanes() == [LANE], choice
        (lane,) = store.statistics([LANE]).lanes
        assert (lane.pending, lane.counts["submitted"]) == (1, 1), choice
    assert left  # some submits came when the lane was gone


def test_submits_and_runs_that_forget_lanes_at_the_same_time_lose_no_lane(
    store: Store, server: Server
) -> None:
    other, start, done = Store(server.url), threading.Barrier(2), threading.Barrier(2)

    def forget() -> Iterator[None]:
        for _ in range(100):
            start.wait(10)
            other.lane_registry.forget([LANE], [LANE])
            done.wait(10)
            yield

    thread = threading.Thread(target=lambda: list(forget()))
    thread.start()
    for number in range(100):
        store.connection.redis.flushdb()
        store.connection.redis.sadd(LANES, str(LANE))
        start.wait(10)
        add(store, f"id-{number}")
        done.wait(10)
        assert store.tasks.lanes() == [LANE]
    thread.join(10)
    other.close()
