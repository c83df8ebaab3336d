"""The net under every deadline, with a real Redis."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cavendish.model import Lane, State
from cavendish.policy.service_health import not_served
from cavendish.store import Store
from cavendish.store.keys import LaneKeys
from cavendish.submission import SubmitOptions
from cavendish_worker.polling.expire import ExpiryConfig, expire_lane, expire_overdue

LANE = Lane("default", "nano-banana")
CONFIG = ExpiryConfig(last_poll=60.0, retention=3600.0, events_kept=100)


def late(store: Store, seconds: float, count: int = 3) -> None:
    """Ids whose deadline passed so long ago, each with a webhook."""
    now = store.fleet.now()
    options = SubmitOptions(
        "nano-banana", "default", ("https://example.com/hook",), 10.0, "", "", "", restart=False
    )
    store.tasks.add(
        [f"id-{number}" for number in range(count)], options, now - 10 - seconds, now - seconds
    )


def pause(store: Store) -> None:
    until = store.fleet.now() + 600
    store.shared_state.change_rate_limit(
        "default",
        lambda rate_limit: (
            replace(rate_limit, paused_until=until, pause_reason="HTTP 403 used_up"),
            None,
        ),
    )


def test_ids_that_cannot_be_asked_about_expire_after_the_time_for_a_last_poll(store: Store) -> None:
    late(store, 61.0)
    pause(store)
    ended, deliveries = expire_overdue(store, LANE, store.clock(), CONFIG)
    assert (ended, len(deliveries)) == (3, 3)
    task = store.tasks.get("default", "nano-banana", ["id-0"])["id-0"]
    assert task.state is State.EXPIRED
    assert "HTTP 403 used_up" in task.reason


def test_the_reason_of_ids_whose_service_is_not_served_says_so(store: Store) -> None:
    late(store, 61.0, count=1)
    now = store.fleet.now()
    store.shared_state.change_service_health(
        LANE, lambda known: (not_served(known, "HTTP 404 no_api", now, now, 0.0), None)
    )
    assert expire_overdue(store, LANE, store.clock(), CONFIG)[0] == 1
    reason = store.tasks.get("default", "nano-banana", ["id-0"])["id-0"].reason
    assert "the API does not serve nano-banana: HTTP 404 no_api" in reason


def test_before_that_time_they_wait(store: Store) -> None:
    late(store, 30.0)
    pause(store)
    assert expire_overdue(store, LANE, store.clock(), CONFIG) == (0, [])


def test_ids_that_can_be_asked_about_wait_for_their_last_poll(store: Store) -> None:
    late(store, 120.0)
    assert expire_overdue(store, LANE, store.clock(), CONFIG) == (0, [])


@pytest.mark.parametrize("count", [3, 1200])
def test_nothing_waits_for_ever_and_all_end_in_one_run(store: Store, count: int) -> None:
    late(store, 601.0, count)
    assert expire_overdue(store, LANE, store.clock(), CONFIG)[0] == count


def test_a_lane_whose_keys_are_damaged_stops_nobody(store: Store) -> None:
    late(store, 601.0)
    store.connection.redis.delete(LaneKeys(LANE).deadlines)
    store.connection.redis.set(LaneKeys(LANE).deadlines, "?")
    assert expire_lane(store, LANE, store.clock(), CONFIG) == (0, [])
