"""Alerts about services read a list of what is in trouble, and no quiet lane."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cavendish.errors import StoreUnavailable
from cavendish.model import OPERATIONS, Lane
from cavendish.policy.service_health import failed, not_served, worked
from cavendish.policy.visibility import ALARMING, REPORTED_FOR, missed, saw
from cavendish.store import Store
from cavendish.store.connection import Connection
from cavendish.submission import SubmitOptions
from cavendish_worker.webhooks.operator_alerts import update
from cavendish_worker.webhooks.reconcile import reconcile
from cavendish_worker.webhooks.troubles import MOST

LANE = Lane("default", "nano-banana")
WEBHOOK = "https://operations.example/alerts"


def pause(store: Store, lane: Lane = LANE) -> None:
    now = store.fleet.now()
    store.shared_state.change_service_health(
        lane, lambda known: (not_served(known, "HTTP 404", now, now, 0.0), None)
    )


def absent(store: Store, ids: int, lane: Lane = LANE) -> None:
    now = store.fleet.now()
    store.shared_state.change_visibility(lane, lambda known: (missed(known, ids, now), None))


def alerts(store: Store) -> int:
    (lane,) = store.statistics([OPERATIONS]).lanes
    return lane.deliveries_pending


def test_a_service_is_listed_while_it_is_paused(store: Store) -> None:
    now, state = store.fleet.now(), store.shared_state
    state.change_service_health(LANE, lambda known: (failed(known, "500", now, now, 0.0), None))
    assert state.paused.lanes() == []
    pause(store)
    assert state.paused.lanes() == [LANE]
    state.change_service_health(LANE, lambda known: (failed(known, "500", now, now, 0.0), None))
    assert state.paused.lanes() == [LANE]
    state.change_service_health(LANE, lambda known: (worked(known), None))
    assert state.paused.lanes() == []


def test_a_service_is_listed_while_operators_must_know_that_its_token_is_blind(
    store: Store,
) -> None:
    state, second_shard = store.shared_state, replace(LANE, shard=1)
    absent(store, ALARMING - 1)
    assert state.blind.lanes() == []
    absent(store, 1, second_shard)
    assert state.blind.lanes() == [LANE]
    assert state.blind.lanes(store.fleet.now() + 1) == []
    state.change_visibility(LANE, lambda known: (saw(known, store.fleet.now()), None))
    assert state.blind.lanes() == []


def test_a_process_that_dies_before_it_lists_a_service_leaves_that_to_the_next_report(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "write_when_full", die)
        for report in (lambda: pause(store), lambda: absent(store, ALARMING)):
            with pytest.raises(StoreUnavailable):
                report()
    assert update(store, WEBHOOK, [], store.fleet.now()) == 0
    pause(store)
    absent(store, 1)
    assert update(store, WEBHOOK, [], store.fleet.now()) == 2


def test_what_is_listed_and_works_again_is_not_told_of_and_leaves_the_list(store: Store) -> None:
    store.shared_state.paused.add(LANE, 1.0)
    store.shared_state.blind.add(LANE, store.fleet.now())
    other = Lane("default", "flux")
    pause(store, other)
    assert update(store, WEBHOOK, [], store.fleet.now()) == 1
    assert store.shared_state.paused.lanes() == [other]


def test_of_many_services_that_are_not_served_the_first_are_told_of(store: Store) -> None:
    for number in range(MOST + 5):
        pause(store, Lane("default", f"bogus{number}"))
    assert update(store, WEBHOOK, [], store.fleet.now()) == MOST
    assert update(store, WEBHOOK, [], store.fleet.now()) == 0
    assert alerts(store) == MOST


def test_a_token_that_was_blind_long_ago_makes_no_alert(store: Store) -> None:
    absent(store, ALARMING)
    assert update(store, WEBHOOK, [], store.fleet.now() + REPORTED_FOR + 1) == 0


def test_without_a_webhook_for_operators_nothing_is_told(store: Store) -> None:
    pause(store)
    absent(store, ALARMING)
    reconcile(store, "", 3600.0, 3600.0)
    assert alerts(store) == 0


def test_a_run_that_looks_for_alerts_reads_no_quiet_lane(store: Store) -> None:
    options = SubmitOptions("quiet", "default", (), 1000.0, "", "", "", restart=False)
    for number in range(50):
        now = store.fleet.now()
        store.tasks.add(["a"], replace(options, service=f"quiet{number}"), now, now + 99)
    reconcile(store, WEBHOOK, 3600.0, 3600.0)
    costs = []
    for webhook in ("", WEBHOOK):
        before = commands(store)
        reconcile(store, webhook, 3600.0, 3600.0)
        costs.append(commands(store) - before)
    assert costs[1] - costs[0] <= 12


def commands(store: Store) -> int:
    stats = store.connection.redis.info("commandstats")
    return sum(row["calls"] for name, row in stats.items() if "|" not in name)
