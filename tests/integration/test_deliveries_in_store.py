"""Deliveries in a real Redis.

Sorted, claimed by one, then delivered, tried later or buried; reopened, swept, and never lost.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from cavendish.endpoints.webhook_endpoint import endpoint_in, subscription_of
from cavendish.model import OPERATIONS, Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish.store.deliveries import SORTED_AT_ONCE, Attempt, RetryAt
from cavendish.store.keys import LaneKeys, delivery_of, task_of
from cavendish.store.statistics import UNSORTED
from cavendish.submission import SubmitOptions

LANE = Lane("default", "nano-banana")
KEYS = LaneKeys(LANE)
HOOK = "https://example.com/hook"
ENDPOINT = subscription_of(HOOK)
DELIVERY = f"{ENDPOINT}:a"
OTHER = "https://other.example/x"
RETENTION, KEPT = 3600.0, 7200.0
#: Names that contain each other, and ids that look like parts of a delivery.
NESTED = ("shop", "shop2", "shop.0a0a0a0a", "ashop", "sho")
STRANGE_IDS = (
    "a",
    "aa",
    "a:b",
    ":a",
    "shop:a",
    "shop.0a0a0a0a:a",
    "идентификатор 🍌",
    "a b",
    "%5B*?{x}",
)


def options(*webhooks: str, restart: bool = False, lane: Lane = LANE) -> SubmitOptions:
    return SubmitOptions(lane.service, lane.account, webhooks, 100.0, "", "", "", restart)


def add(
    store: Store,
    ids: Iterable[str],
    *webhooks: str,
    now: float = 1000.0,
    restart: bool = False,
    lane: Lane = LANE,
) -> list[str]:
    told = options(*webhooks, restart=restart, lane=lane)
    return [one.outcome for one in store.tasks.add(list(ids), told, now, now + 2).values()]


def end(store: Store, ids: Iterable[str], now: float = 1010.0, lane: Lane = LANE) -> list[str]:
    """End pending ids. Returns what is pending for them."""
    ids = list(ids)
    store.connection.redis.hset(LaneKeys(lane).leases, mapping=dict.fromkeys(ids, "look 0"))
    loaded = store.tasks.load(lane, ids).tasks
    outcomes = [(Outcome(loaded[name], State.FAILED, record={"id": name}), 0.0) for name in ids]
    settled = store.tasks.settle(lane, "look", now, outcomes, int(RETENTION), 100)
    assert all(one.ended for one in settled)
    return [delivery for one in settled for delivery in one.deliveries]


def owe(store: Store, ids: Iterable[str], *webhooks: str, now: float = 1010.0) -> list[str]:
    ids = list(ids)
    assert set(add(store, ids, *webhooks)) == {"new"}
    return end(store, ids, now)


def claim(
    store: Store,
    token: str,
    now: float,
    *,
    until: float | None = None,
    at_most: int = 1000,
    room: int = 1000,
) -> list[str]:
    """What a worker does: sort, and claim of all endpoints that are worth a visit."""
    worth = store.deliveries.sort([LANE], now).worth.get(LANE, [])
    return store.deliveries.claim_delivery(
        LANE, now, until or now + 30, token, at_most, dict.fromkeys(worth, room)
    )


def pay(store: Store, token: str, now: float, *deliveries: str) -> int:
    return store.deliveries.delivered(
        LANE, token, now, [Attempt(delivery, "HTTP 200") for delivery in deliveries], RETENTION
    )


def bury(store: Store, token: str, now: float, *deliveries: str, kept_for: float = KEPT) -> int:
    return store.deliveries.bury(
        LANE, token, now, [Attempt(delivery, "HTTP 404") for delivery in deliveries], kept_for
    )


def delay(store: Store, token: str, at: float, *deliveries: str, charged: bool = True) -> int:
    return store.deliveries.later(
        LANE,
        token,
        at,
        [RetryAt(delivery, "HTTP 500", "{}", at, charged) for delivery in deliveries],
    )


def places(store: Store, delivery: str, keys: LaneKeys = KEYS) -> list[str]:
    """Where a delivery lies."""
    endpoint, raw = endpoint_in(delivery), store.connection.redis
    lies = {
        "inbox": keys.inbox,
        "queue": keys.queue(endpoint),
        "retries": keys.retries(endpoint),
        "dead": keys.dead,
    }
    return [place for place, key in lies.items() if raw.zscore(key, delivery) is not None]


def reconcile(store: Store, now: float, page: int, lane: Lane = LANE) -> list[str]:
    """Go all the way round from wherever the last reconcile run ended."""
    laps = 2 * (store.connection.redis.zcard(LaneKeys(lane).ended) // page + 2)
    return [
        delivery
        for _ in range(laps)
        for delivery in store.reconciliation.reconcile(lane, now, page)
    ]


@pytest.fixture
def endpoint_index(store: Store) -> Store:
    """A store in which the id `a` has ended, and has pending one webhook."""
    assert owe(store, ["a"], HOOK) == [DELIVERY]
    return store


# --- claimed by one


def test_a_delivery_is_claimed_by_one_and_due_again_when_the_lease_ends(
    endpoint_index: Store,
) -> None:
    assert claim(endpoint_index, "d1", 1010.0, until=1020.0) == [DELIVERY]
    assert claim(endpoint_index, "d2", 1019.9) == []
    assert endpoint_index.deliveries.next_visits([LANE])[0] == 1020.0
    assert claim(endpoint_index, "d2", 1020.0) == [DELIVERY]
    assert pay(endpoint_index, "d1", 1021.0, DELIVERY) == 0
    assert delay(endpoint_index, "d1", 1021.0, DELIVERY) == 0
    assert bury(endpoint_index, "d1", 1021.0, DELIVERY) == 0
    assert places(endpoint_index, DELIVERY) == ["queue"]
    assert pay(endpoint_index, "d2", 1021.0, DELIVERY) == 1
    assert pay(endpoint_index, "d2", 1021.0, DELIVERY) == 0


def test_a_lease_that_ran_out_still_counts_while_nobody_else_took_the_delivery(
    endpoint_index: Store,
) -> None:
    claim(endpoint_index, "d1", 1010.0, until=1020.0)
    assert pay(endpoint_index, "d1", 5000.0, DELIVERY) == 1
    assert claim(endpoint_index, "d2", 5000.0) == []


def test_a_stranger_can_do_nothing_to_a_delivery_that_nobody_claimed(endpoint_index: Store) -> None:
    endpoint_index.deliveries.sort([LANE], 1010.0)
    assert (
        pay(endpoint_index, "", 1010.0, DELIVERY)
        + bury(endpoint_index, "x", 1010.0, DELIVERY)
        + delay(endpoint_index, "", 1010.0, DELIVERY)
        == 0
    )
    assert endpoint_index.connection.redis.hget(KEYS.task("a"), "closed") is None


def test_an_endpoint_without_room_is_not_claimed_from_and_stays_worth_a_visit(
    endpoint_index: Store,
) -> None:
    for rooms in ({}, {ENDPOINT: 0}, {ENDPOINT: -3}, {"stranger": 5}):
        endpoint_index.deliveries.sort([LANE], 1010.0)
        assert endpoint_index.deliveries.claim_delivery(LANE, 1010.0, 1020.0, "d1", 10, rooms) == []
    assert (
        endpoint_index.deliveries.claim_delivery(LANE, 1010.0, 1020.0, "d1", 0, {ENDPOINT: 5}) == []
    )
    assert endpoint_index.deliveries.sort([LANE], 1010.0).worth == {LANE: [ENDPOINT]}
    assert claim(endpoint_index, "d1", 1010.0) == [DELIVERY]


# --- whose turn it is


def test_what_is_fresh_goes_before_retries_also_across_endpoints(store: Store) -> None:
    old = owe(store, ["r1", "r2"], "busy", "calm")
    claim(store, "d1", 1010.0)
    assert delay(store, "d1", 1015.0, *old) == 4
    fresh = owe(store, ["f1", "f2"], "calm", now=1040.0)
    rooms = {"busy": 10, "calm": 10}
    store.deliveries.sort([LANE], 1050.0)
    assert store.deliveries.claim_delivery(LANE, 1050.0, 1080.0, "d2", 3, rooms) == [
        *fresh,
        "busy:r1",
    ]
    assert store.deliveries.claim_delivery(LANE, 1050.0, 1080.0, "d2", 10, rooms) == [
        "busy:r2",
        "calm:r1",
        "calm:r2",
    ]
    assert all(places(store, delivery) == ["queue"] for delivery in (*old, *fresh))


def test_few_slots_go_to_the_endpoints_in_turn(store: Store) -> None:
    owe(store, [f"x{n}" for n in range(5)], "flood")
    owe(store, ["y0", "y1"], "small")
    owe(store, ["z0"], "tiny")
    store.deliveries.sort([LANE], 1010.0)
    rooms = dict.fromkeys(["flood", "small", "tiny"], 10)
    taken = [
        store.deliveries.claim_delivery(LANE, 1010.0, 1040.0, "d1", n, rooms) for n in (1, 4, 10)
    ]
    assert taken[0] == ["flood:x0"]
    assert taken[1] == ["flood:x1", "small:y0", "tiny:z0", "flood:x2"]
    assert taken[2] == ["flood:x3", "small:y1", "flood:x4"]


def test_the_longest_due_is_visited_and_claimed_first(store: Store) -> None:
    owe(store, ["late"], "b", now=1030.0)
    owe(store, ["early"], "a", now=1020.0)
    owe(store, ["mid"], "a", now=1025.0)
    store.deliveries.sort([LANE], 1030.0)
    assert store.deliveries.sort([LANE], 1030.0).worth == {LANE: ["a", "b"]}
    assert store.deliveries.claim_delivery(LANE, 1030.0, 1060.0, "d1", 2, {"a": 2, "b": 0}) == [
        "a:early",
        "a:mid",
    ]


def test_the_room_of_an_endpoint_counts_what_other_tokens_hold_in_flight(store: Store) -> None:
    owe(store, [f"x{n}" for n in range(6)], "shop")
    assert len(claim(store, "d1", 1010.0, until=1020.0, room=2)) == 2
    assert len(claim(store, "d2", 1011.0, until=1050.0, room=3)) == 1
    assert claim(store, "d3", 1012.0, room=3) == []
    assert pay(store, "d2", 1013.0, "shop:x2") == 1
    assert claim(store, "d3", 1014.0, room=3) == ["shop:x3"]
    assert claim(store, "d4", 1020.0, room=3) == [
        "shop:x4",
        "shop:x5",
    ]  # those of the lease that ended are due since it did
    assert claim(store, "d5", 1049.0, room=3) == ["shop:x0"]


def test_a_retry_in_flight_takes_room_and_one_that_waits_takes_none(store: Store) -> None:
    first, second = owe(store, ["x0", "x1"], "shop")
    claim(store, "d1", 1010.0)
    delay(store, "d1", 1100.0, first, second)
    owe(store, ["x2"], "shop", now=1020.0)
    assert claim(store, "d2", 1020.0, room=1) == ["shop:x2"]
    pay(store, "d2", 1021.0, "shop:x2")
    assert claim(store, "d3", 1100.0, room=1) == [first]
    assert claim(store, "d4", 1100.0, room=1) == []


# --- delivered


def test_a_delivered_delivery_is_struck_off_and_the_record_may_be_forgotten(
    endpoint_index: Store,
) -> None:
    claim(endpoint_index, "d1", 1010.0)
    assert (
        endpoint_index.deliveries.delivered(
            LANE, "d1", 1011.0, [Attempt(DELIVERY, "HTTP 204", '{"at": 1}')], RETENTION
        )
        == 1
    )
    assert claim(endpoint_index, "d2", 99999.0) == []
    (delivery,) = endpoint_index.deliveries.load(LANE, [DELIVERY])
    assert (delivery.state, delivery.attempts, delivery.outcome, delivery.log) == (
        "delivered",
        1,
        "HTTP 204",
        '{"at": 1}',
    )
    raw = endpoint_index.connection.redis
    for key in (KEYS.task("a"), KEYS.result("a"), KEYS.delivery(DELIVERY)):
        assert 3500 < raw.ttl(key) <= 3600
    assert raw.hget(KEYS.task("a"), "closed").split() == [ENDPOINT]
    assert raw.hlen(KEYS.delivery_leases) == raw.zcard(KEYS.queue(ENDPOINT)) == 0
    assert raw.hget(KEYS.counts, "delivered") == "1"


def test_the_record_stays_until_the_last_of_its_deliveries_is_closed(store: Store) -> None:
    deliveries = owe(store, ["a"], *NESTED)
    claim(store, "d1", 1010.0)
    raw = store.connection.redis
    for delivery in deliveries:
        assert raw.ttl(KEYS.task("a")) == raw.ttl(KEYS.result("a")) == -1
        assert pay(store, "d1", 1011.0, delivery) == 1
    assert 3500 < raw.ttl(KEYS.task("a")) <= 3600
    assert sorted(raw.hget(KEYS.task("a"), "closed").split()) == sorted(NESTED)


@pytest.mark.parametrize("name", NESTED)
def test_names_that_contain_each_other_are_closed_and_reopened_each_for_itself(
    store: Store, name: str
) -> None:
    owe(store, STRANGE_IDS, *NESTED)
    claim(store, "d1", 1010.0)
    mine = [delivery_of(name, task_id) for task_id in STRANGE_IDS]
    assert pay(store, "d1", 1011.0, *mine) == len(mine)
    raw = store.connection.redis
    assert {raw.hget(KEYS.task(task_id), "closed").strip() for task_id in STRANGE_IDS} == {name}
    assert {raw.ttl(KEYS.task(task_id)) for task_id in STRANGE_IDS} == {-1}
    others = [
        delivery_of(other, task_id) for other in NESTED if other != name for task_id in STRANGE_IDS
    ]
    assert store.closed.reopen(LANE, dict.fromkeys([*others, *mine], 1012.0), dead=False) == mine
    assert all(places(store, delivery) == ["retries"] for delivery in mine)
    assert all(places(store, delivery) == ["queue"] for delivery in others)


def test_ids_with_colons_and_any_script_find_their_way(store: Store) -> None:
    deliveries = owe(store, STRANGE_IDS, "shop", f"{HOOK}?job=7", HOOK)
    assert sorted(claim(store, "d1", 1010.0)) == sorted(deliveries)
    loaded = store.deliveries.load(LANE, deliveries)
    assert sorted({delivery.task_id for delivery in loaded}) == sorted(STRANGE_IDS)
    assert {(delivery.endpoint, delivery.url) for delivery in loaded} == {
        ("shop", ""),
        (ENDPOINT, HOOK),
        (ENDPOINT, f"{HOOK}?job=7"),
    }
    assert pay(store, "d1", 1011.0, *deliveries) == len(deliveries)
    assert reconcile(store, 1012.0, 2) == []


# --- later


def test_a_later_attempt_is_charged_unless_the_fault_was_ours(endpoint_index: Store) -> None:
    claim(endpoint_index, "d1", 1010.0)
    assert delay(endpoint_index, "d1", 1015.0, DELIVERY) == 1
    assert places(endpoint_index, DELIVERY) == ["retries"]
    assert claim(endpoint_index, "d2", 1014.9) == []
    assert claim(endpoint_index, "d2", 1015.0) == [DELIVERY]
    assert places(endpoint_index, DELIVERY) == ["queue"]
    assert delay(endpoint_index, "d2", 1016.0, DELIVERY, charged=False) == 1
    (delivery,) = endpoint_index.deliveries.load(LANE, [DELIVERY])
    assert (delivery.attempts, delivery.outcome, delivery.log) == (1, "HTTP 500", "{}")
    assert endpoint_index.deliveries.next_visits([LANE])[0] == 1016.0
    assert claim(endpoint_index, "d3", 1015.9) == []
    assert endpoint_index.deliveries.next_visits([LANE])[0] == 1016.0
    assert claim(endpoint_index, "d3", 1016.0) == [DELIVERY]


def test_a_retry_far_ahead_hides_nothing_that_is_due_before(store: Store) -> None:
    first, second, third = owe(store, ["a", "b", "c"], "shop")
    assert claim(store, "d1", 1010.0, at_most=2) == [first, second]
    delay(store, "d1", 5000.0, first)
    assert store.deliveries.sort([LANE], 1010.0).worth == {LANE: ["shop"]}
    assert claim(store, "d2", 1011.0, until=1041.0) == [third]
    delay(store, "d2", 6000.0, third)
    assert store.deliveries.next_visits([LANE])[0] == 1040.0
    assert claim(store, "d3", 1040.0) == [second]


def test_one_that_is_pending_anew_while_it_is_in_flight_keeps_its_place(
    endpoint_index: Store,
) -> None:
    claim(endpoint_index, "d1", 1010.0, until=1050.0)
    endpoint_index.connection.redis.zadd(KEYS.inbox, {DELIVERY: 1011.0})
    assert claim(endpoint_index, "d2", 1012.0) == []
    assert places(endpoint_index, DELIVERY) == ["queue"]
    assert pay(endpoint_index, "d1", 1013.0, DELIVERY) == 1
    assert claim(endpoint_index, "d2", 9999.0) == []


def test_an_endpoint_is_visited_later_and_earlier_only_for_what_is_fresh(
    endpoint_index: Store,
) -> None:
    endpoint_index.deliveries.sort([LANE], 1010.0)
    endpoint_index.deliveries.postpone(LANE, {ENDPOINT: 1100.0, "stranger": 1.0})
    assert endpoint_index.deliveries.sort([LANE], 1099.9).worth == {}
    assert endpoint_index.deliveries.next_visits([LANE])[0] == 1100.0
    owe(endpoint_index, ["b"], HOOK, now=1050.0)
    assert endpoint_index.deliveries.sort([LANE], 1050.0).worth == {LANE: [ENDPOINT]}
    assert endpoint_index.deliveries.next_visits([LANE])[0] == 1050.0
    endpoint_index.deliveries.postpone(LANE, {ENDPOINT: 1200.0})
    assert endpoint_index.deliveries.sort([LANE], 1199.9).worth == {}
    assert endpoint_index.deliveries.sort([LANE], 1200.0).worth == {LANE: [ENDPOINT]}
    assert sorted(claim(endpoint_index, "d1", 1200.0)) == [DELIVERY, f"{ENDPOINT}:b"]


def test_what_waits_for_a_retry_can_be_hastened_and_is_then_visited(store: Store) -> None:
    deliveries = owe(store, ["a", "b"], "shop", "shop2")
    claim(store, "d1", 1010.0)
    delay(store, "d1", 5000.0, *deliveries)
    store.deliveries.hasten(LANE, "shop", 1020.0)
    store.deliveries.postpone(LANE, {"shop": 1020.0})
    assert claim(store, "d2", 1019.0) == []
    assert claim(store, "d2", 1020.0) == ["shop:a", "shop:b"]
    assert store.statistics([LANE]).pending_by_endpoint == {"shop": 2, "shop2": 2}
    assert claim(store, "d3", 5000.0)[:2] == ["shop:a", "shop:b"]


def test_a_reconcile_run_ends_a_postponement(endpoint_index: Store) -> None:
    endpoint_index.deliveries.sort([LANE], 1010.0)
    endpoint_index.deliveries.postpone(LANE, {ENDPOINT: 9999.0})
    assert endpoint_index.reconciliation.reconcile(LANE, 1011.0, 10) == []
    assert endpoint_index.deliveries.sort([LANE], 1011.0).worth == {LANE: [ENDPOINT]}


def test_nothing_pending_means_no_next_visit(store: Store) -> None:
    assert store.deliveries.next_visits([]) == []
    assert store.deliveries.next_visits([LANE, OPERATIONS]) == [None, None]
    assert store.deliveries.sort([], 1.0).worth == {}
    assert store.deliveries.sort([LANE], 1.0).worth == {}
    store.deliveries.postpone(LANE, {})
    store.deliveries.postpone(LANE, {"stranger": 5.0})
    assert store.deliveries.next_visits([LANE])[0] is None


def test_more_fresh_deliveries_than_one_sorting_takes_stay_worth_a_visit(store: Store) -> None:
    ids = [f"x{n:05}" for n in range(SORTED_AT_ONCE + 7)]
    owe(store, ids, "shop")
    assert store.deliveries.next_visits([LANE])[0] == 1010.0
    assert store.statistics([LANE]).lanes[0].pending_by_endpoint == {"shop": 1000, UNSORTED: 7}
    assert store.deliveries.sort([LANE], 1010.0).worth == {LANE: ["shop"]}
    assert store.connection.redis.zcard(KEYS.inbox) == 7
    assert (
        len(store.deliveries.claim_delivery(LANE, 1010.0, 1040.0, "d1", 9999, {"shop": 9999}))
        == SORTED_AT_ONCE
    )
    assert store.deliveries.next_visits([LANE])[0] == 1010.0
    assert claim(store, "d1", 1011.0, room=9999) == [f"shop:{task_id}" for task_id in ids[-7:]]
    assert store.deliveries.next_visits([LANE])[0] == 1040.0


def test_one_sorting_serves_many_lanes(store: Store) -> None:
    other = Lane("default", "suno")
    owe(store, ["a"], "shop")
    add(store, ["a"], "art", lane=other)
    end(store, ["a"], lane=other)
    assert store.deliveries.sort([other, LANE, OPERATIONS], 1010.0).worth == {
        other: ["art"],
        LANE: ["shop"],
    }


# --- dead letters


def test_a_buried_delivery_can_be_revived_with_all_its_attempts(endpoint_index: Store) -> None:
    claim(endpoint_index, "d1", 1010.0)
    assert (
        endpoint_index.deliveries.bury(
            LANE, "d1", 1011.0, [Attempt(DELIVERY, "HTTP 404", '{"at": 1}')], KEPT
        )
        == 1
    )
    assert places(endpoint_index, DELIVERY) == ["dead"]
    (dead,) = endpoint_index.closed.dead(LANE)
    assert (dead.name, dead.outcome, dead.task_id, dead.at, dead.attempts) == (
        DELIVERY,
        "HTTP 404",
        "a",
        1011.0,
        1,
    )
    assert (dead.url, dead.endpoint, dead.log, dead.state) == (HOOK, ENDPOINT, '{"at": 1}', "dead")
    raw = endpoint_index.connection.redis
    assert 7100 < raw.ttl(KEYS.result("a")) <= 7200
    assert claim(endpoint_index, "d2", 99999.0) == []
    assert endpoint_index.closed.reopen(
        LANE, {DELIVERY: 1500.0, "stranger:a": 1500.0, f"{ENDPOINT}:b": 1.0}, dead=True
    ) == [DELIVERY]
    assert endpoint_index.closed.dead(LANE) == []
    assert places(endpoint_index, DELIVERY) == ["retries"]
    assert claim(endpoint_index, "d2", 1499.0) == []
    assert claim(endpoint_index, "d2", 1500.0) == [DELIVERY]
    (delivery,) = endpoint_index.deliveries.load(LANE, [DELIVERY])
    assert (delivery.attempts, delivery.state, delivery.outcome, delivery.log) == (
        0,
        "pending",
        "HTTP 404",
        '{"at": 1}',
    )
    assert {
        raw.ttl(key) for key in (KEYS.task("a"), KEYS.result("a"), KEYS.delivery(DELIVERY))
    } == {-1}


@pytest.mark.parametrize("dead_first", [True, False])
def test_a_dead_letter_keeps_the_record_for_its_retention_whoever_is_closed_last(
    endpoint_index: Store, dead_first: bool
) -> None:
    add(endpoint_index, ["a"], OTHER, now=1011.0)
    other = f"{subscription_of(OTHER)}:a"
    claim(endpoint_index, "d1", 1012.0)
    if dead_first:
        bury(endpoint_index, "d1", 1013.0, DELIVERY)
    endpoint_index.deliveries.delivered(LANE, "d1", 1013.0, [Attempt(other, "HTTP 200")], 60)
    if not dead_first:
        assert endpoint_index.connection.redis.ttl(KEYS.task("a")) == -1
        bury(endpoint_index, "d1", 1013.0, DELIVERY)
    assert endpoint_index.connection.redis.ttl(KEYS.task("a")) > 7000
    assert endpoint_index.connection.redis.ttl(KEYS.result("a")) > 7000
    assert endpoint_index.closed.reopen(LANE, {DELIVERY: 1014.0}, dead=True) == [DELIVERY]


def test_one_revived_after_what_it_announced_was_forgotten_stays_dead(
    endpoint_index: Store,
) -> None:
    claim(endpoint_index, "d1", 1010.0)
    bury(endpoint_index, "d1", 1011.0, DELIVERY)
    endpoint_index.connection.redis.delete(KEYS.task("a"))
    assert endpoint_index.closed.reopen(LANE, {DELIVERY: 1500.0}, dead=True) == []
    assert places(endpoint_index, DELIVERY) == ["dead"]


def test_dead_letters_are_listed_newest_first_page_by_page_and_forgotten_in_time(
    store: Store,
) -> None:
    deliveries = owe(store, [f"x{n}" for n in range(5)], "shop")
    claim(store, "d1", 1010.0, until=9999.0)
    for number, delivery in enumerate(deliveries):
        bury(store, "d1", 1100.0 + number, delivery, kept_for=100)
    pages = [[one.name for one in store.closed.dead(LANE, 2, offset)] for offset in (0, 2, 4, 6)]
    assert pages == [deliveries[:2:-1], deliveries[2:0:-1], deliveries[:1], []]
    assert store.closed.forget_dead(LANE, 1102.0) == 3
    assert [one.name for one in store.closed.dead(LANE)] == deliveries[:2:-1]


def test_a_dropped_dead_letter_is_gone_and_the_living_are_left_alone(store: Store) -> None:
    dead, delivered, alive = owe(store, ["a", "b", "c"], "shop")
    claim(store, "d1", 1010.0)
    bury(store, "d1", 1011.0, dead)
    pay(store, "d1", 1011.0, delivered)
    delay(store, "d1", 1100.0, alive)
    assert store.closed.drop(LANE, []) == []
    assert store.closed.drop(LANE, [dead, delivered, alive, "stranger:x"]) == [dead]
    assert store.closed.drop(LANE, [dead]) == []
    assert store.closed.dead(LANE) == []
    assert [
        delivery.attempts for delivery in store.deliveries.load(LANE, [dead, delivered, alive])
    ] == [0, 1, 1]
    assert store.closed.reopen(LANE, {dead: 1200.0}, dead=True) == []
    assert reconcile(store, 1300.0, 1) == []
    assert add(store, ["a"], "shop", restart=True) == ["new"]


def test_a_dead_letter_whose_record_is_forgotten_is_none_of_a_new_record(
    endpoint_index: Store,
) -> None:
    claim(endpoint_index, "d1", 1010.0)
    bury(endpoint_index, "d1", 1011.0, DELIVERY)
    endpoint_index.connection.redis.delete(
        KEYS.task("a"), KEYS.result("a"), KEYS.delivery(DELIVERY)
    )  # what their time to live does
    assert owe(endpoint_index, ["a"], HOOK, now=1020.0) == [DELIVERY]
    assert claim(endpoint_index, "d2", 1020.0) == [DELIVERY]
    pay(endpoint_index, "d2", 1021.0, DELIVERY)
    assert endpoint_index.closed.reopen(LANE, {DELIVERY: 1022.0}, dead=True) == []
    assert endpoint_index.closed.dead(LANE) == []
    assert add(endpoint_index, ["a"], HOOK, restart=True) == ["new"]


# --- replay


def test_what_was_delivered_is_replayed_on_demand_and_keeps_its_record_again(
    endpoint_index: Store,
) -> None:
    claim(endpoint_index, "d1", 1010.0)
    assert endpoint_index.closed.reopen(LANE, {DELIVERY: 1.0}, dead=False) == []
    pay(endpoint_index, "d1", 1011.0, DELIVERY)
    assert endpoint_index.closed.reopen(LANE, {DELIVERY: 1.0}, dead=True) == []
    assert endpoint_index.closed.reopen(LANE, {}, dead=False) == []
    assert endpoint_index.closed.reopen(
        LANE, {DELIVERY: 1020.0, "stranger:a": 1020.0}, dead=False
    ) == [DELIVERY]
    assert endpoint_index.closed.reopen(LANE, {DELIVERY: 1020.0}, dead=False) == []
    assert (
        endpoint_index.connection.redis.ttl(KEYS.task("a"))
        == endpoint_index.connection.redis.ttl(KEYS.delivery(DELIVERY))
        == -1
    )
    assert add(endpoint_index, ["a"], HOOK, restart=True) == ["known"]
    assert claim(endpoint_index, "d2", 1020.0) == [DELIVERY]
    assert pay(endpoint_index, "d1", 1021.0, DELIVERY) == 0
    assert pay(endpoint_index, "d2", 1021.0, DELIVERY) == 1
    assert endpoint_index.deliveries.load(LANE, [DELIVERY])[0].attempts == 1
    assert endpoint_index.connection.redis.ttl(KEYS.task("a")) > 0


def test_a_dead_letter_is_not_replayed_as_if_it_had_been_delivered(endpoint_index: Store) -> None:
    claim(endpoint_index, "d1", 1010.0)
    bury(endpoint_index, "d1", 1011.0, DELIVERY)
    assert endpoint_index.closed.reopen(LANE, {DELIVERY: 1020.0}, dead=False) == []
    assert places(endpoint_index, DELIVERY) == ["dead"]


def test_replays_at_different_times_are_worth_a_visit_at_the_first(store: Store) -> None:
    deliveries = owe(store, ["a", "b", "c"], "shop")
    claim(store, "d1", 1010.0)
    pay(store, "d1", 1011.0, *deliveries)
    claim(store, "d1", 1050.0)
    store.closed.reopen(
        LANE, dict(zip(deliveries, (1300.0, 1100.0, 1200.0), strict=True)), dead=False
    )
    assert store.deliveries.next_visits([LANE])[0] == 1100.0
    assert [claim(store, "d2", at, until=9999.0) for at in (1100.0, 1200.0, 1300.0)] == [
        [deliveries[1]],
        [deliveries[2]],
        [deliveries[0]],
    ]


def test_what_ended_since_a_moment_is_paged_through_in_order(store: Store) -> None:
    for number in range(7):
        owe(store, [f"x{number}"], "shop", *([HOOK] if number == 3 else []), now=1010.0 + number)
    owe(store, ["quiet"], now=1012.5)
    pages = [store.closed.ended_since(LANE, 1012.0, offset, 2) for offset in (0, 2, 4, 6)]
    assert pages == [
        [("x2", 1012.0, "shop"), ("x3", 1013.0, f"shop {ENDPOINT}")],
        [("x4", 1014.0, "shop"), ("x5", 1015.0, "shop")],
        [("x6", 1016.0, "shop")],
        [],
    ]
    store.connection.redis.delete(KEYS.task("x6"))
    assert store.closed.ended_since(LANE, 1016.0, 0, 9) == [("x6", 1016.0, "")]


# --- webhooks that come late, and ids that are tracked again


def test_a_second_webhook_after_the_end_is_pending_at_once_and_brings_the_record_back_to_stay(
    endpoint_index: Store,
) -> None:
    claim(endpoint_index, "d1", 1010.0)
    pay(endpoint_index, "d1", 1011.0, DELIVERY)
    assert endpoint_index.connection.redis.ttl(KEYS.task("a")) > 0
    assert add(endpoint_index, ["a"], HOOK, OTHER, now=1020.0) == ["known"]
    assert (
        endpoint_index.connection.redis.ttl(KEYS.task("a"))
        == endpoint_index.connection.redis.ttl(KEYS.result("a"))
        == -1
    )
    other = f"{subscription_of(OTHER)}:a"
    assert claim(endpoint_index, "d2", 1020.0) == [other]
    assert endpoint_index.deliveries.load(LANE, [other])[0].url == OTHER
    assert pay(endpoint_index, "d2", 1021.0, other) == 1
    assert reconcile(endpoint_index, 1022.0, 1) == []
    assert endpoint_index.connection.redis.ttl(KEYS.task("a")) > 0


def test_again_waits_until_everything_is_closed_and_no_dead_letter_is_left(store: Store) -> None:
    one, two = owe(store, ["a"], "shop", "shop2")
    claim(store, "d1", 1010.0)
    assert add(store, ["a"], restart=True) == ["known"]
    pay(store, "d1", 1011.0, one)
    assert add(store, ["a"], restart=True) == ["known"]
    bury(store, "d1", 1011.0, two)
    assert add(store, ["a"], restart=True) == ["known"]
    store.closed.reopen(LANE, {two: 1012.0}, dead=True)
    assert add(store, ["a"], restart=True) == ["known"]
    assert claim(store, "d2", 1012.0) == [two]
    pay(store, "d2", 1013.0, two)
    assert add(store, ["a"], "shop3", restart=True) == ["new"]
    assert store.closed.reopen(LANE, {one: 1.0, two: 1.0}, dead=False) == []
    assert reconcile(store, 1014.0, 1) == []
    assert end(store, ["a"], 1020.0) == ["shop3:a"]
    assert reconcile(store, 1021.0, 1) == []
    assert claim(store, "d3", 1021.0) == ["shop3:a"]


def test_a_delivery_of_a_lost_record_closes_nothing_of_the_new_one(store: Store) -> None:
    owe(store, ["a"], "shop", "shop2")
    store.connection.redis.delete(KEYS.task("a"))
    assert add(store, ["a"], "shop", now=1011.0) == ["new"]
    assert sorted(claim(store, "d1", 1012.0)) == ["shop2:a", "shop:a"]
    assert pay(store, "d1", 1013.0, "shop:a") == bury(store, "d1", 1013.0, "shop2:a") == 1
    raw = store.connection.redis
    assert (raw.hget(KEYS.task("a"), "closed"), raw.ttl(KEYS.task("a"))) == (None, -1)
    assert end(store, ["a"], 1020.0) == ["shop:a"]
    assert raw.ttl(KEYS.task("a")) == -1
    assert add(store, ["a"], restart=True) == ["known"]
    assert claim(store, "d2", 1020.0) == ["shop:a"]


# --- the reconcile run


@pytest.mark.parametrize("page", [1, 2, 3, 7, 8, 100])
@pytest.mark.parametrize("loss", ["inbox", "queue", "retries", "index", "delivery", "all"])
def test_what_was_removed_by_hand_is_pending_again_whatever_the_page(
    store: Store, loss: str, page: int
) -> None:
    raw, ids = store.connection.redis, [f"x{n}" for n in range(7)]
    deliveries = owe(store, ids, "shop", f"{HOOK}?job=1")
    closed = owe(store, ["delivered", "dead"], "shop", now=1009.0)
    attempted = [delivery for delivery in deliveries if task_of(delivery) in ("x0", "x1")]
    claim(store, "d1", 1010.0)
    pay(store, "d1", 1010.0, closed[0])
    bury(store, "d1", 1010.0, closed[1])
    delay(store, "d1", 1020.0, *attempted)
    fresh = owe(store, ["y0", "y1"], "shop", now=1011.0)
    queued = sorted({*deliveries} - {*attempted})
    lost = {
        "inbox": fresh,
        "queue": queued,
        "retries": attempted,
        "all": [*fresh, *queued, *attempted],
    }.get(loss, [])
    both = ("shop", ENDPOINT)
    doomed = {
        "inbox": [KEYS.inbox],
        "queue": [KEYS.queue(name) for name in both],
        "retries": [KEYS.retries(name) for name in both],
        "index": [KEYS.endpoint_index],
        "delivery": [KEYS.delivery(delivery) for delivery in attempted],
    }
    assert raw.delete(*(chain(*doomed.values()) if loss == "all" else doomed[loss]))
    assert sorted(reconcile(store, 1030.0, page)) == sorted(lost)
    assert reconcile(store, 1030.0, page) == []
    for delivery in lost:
        assert places(store, delivery) == ["inbox"]
    taken = claim(store, "d2", 1060.0)
    assert sorted(taken) == sorted([*deliveries, *fresh])
    assert pay(store, "d2", 1061.0, *taken) == len(taken)
    assert reconcile(store, 1062.0, page) == []
    assert places(store, closed[0]) == []
    assert places(store, closed[1]) == ["dead"]


def test_who_held_a_delivery_that_was_missing_cannot_put_it_back_a_second_time(
    endpoint_index: Store,
) -> None:
    claim(endpoint_index, "d1", 1010.0)
    endpoint_index.connection.redis.delete(KEYS.queue(ENDPOINT))
    assert reconcile(endpoint_index, 1011.0, 1) == [DELIVERY]
    assert (
        delay(endpoint_index, "d1", 1012.0, DELIVERY)
        == pay(endpoint_index, "d1", 1012.0, DELIVERY)
        == 0
    )
    assert places(endpoint_index, DELIVERY) == ["inbox"]
    assert claim(endpoint_index, "d2", 1020.0) == [DELIVERY]
    assert pay(endpoint_index, "d2", 1021.0, DELIVERY) == 1
    assert claim(endpoint_index, "d3", 9999.0) == []


def test_a_delivery_that_is_closed_between_the_read_and_the_write_of_a_reconcile_run_stays_closed(
    store: Store,
) -> None:
    delivered, dead, still = owe(store, ["a", "b", "c"], "shop")
    claim(store, "d1", 1010.0)
    pay(store, "d1", 1011.0, delivered)
    bury(store, "d1", 1011.0, dead)
    store.connection.redis.delete(KEYS.queue("shop"))
    names, args = (
        [KEYS.inbox, KEYS.endpoint_index, KEYS.delivery_leases],
        list[object]([1012.0]),
    )
    for delivery in (delivered, dead, still, "shop2:a", "shop:nobody"):
        names += [KEYS.task(task_of(delivery)), KEYS.queue("shop"), KEYS.retries("shop")]
        args += [delivery, "shop"]
    assert store.connection.script("reconcile", names, args) == [still]


def test_forgotten_ids_leave_the_index_of_the_ended_and_hold_up_nothing(store: Store) -> None:
    ids = [f"x{n}" for n in range(6)]
    deliveries = owe(store, ids, "shop")
    raw = store.connection.redis
    raw.delete(*(KEYS.task(task_id) for task_id in ids[:4]), KEYS.inbox)
    assert [store.reconciliation.reconcile(LANE, 1011.0, 2) for _ in range(4)] == [
        [],
        [],
        deliveries[4:],
        [],
    ]
    assert raw.zrange(KEYS.ended, 0, -1) == ids[4:]


def test_an_unreadable_record_holds_up_no_reconcile_run(store: Store) -> None:
    _, fine = owe(store, ["bad", "fine"], "shop")
    store.connection.redis.delete(KEYS.inbox, KEYS.task("bad"))
    store.connection.redis.set(KEYS.task("bad"), "?")
    assert reconcile(store, 1011.0, 1) == [
        fine,
    ]
    assert reconcile(store, 1011.0, 5) == []


def test_a_pending_id_has_no_delivery_whatever_was_pending_before(store: Store) -> None:
    owe(store, ["a"], "shop")
    claim(store, "d1", 1010.0)
    pay(store, "d1", 1011.0, "shop:a")
    assert add(store, ["a"], "shop", restart=True) == ["new"]
    assert reconcile(store, 1012.0, 1) == []
    assert store.deliveries.sort([LANE], 1013.0).worth.get(LANE, []) in ([], ["shop"])
    assert claim(store, "d2", 9999.0) == []


# --- waiting


def test_what_waits_is_counted_by_endpoint_wherever_it_lies(store: Store) -> None:
    assert store.statistics([LANE]).pending_by_endpoint == {}
    owe(store, ["a", "b", "c"], "shop", f"{HOOK}?job=1", f"{HOOK}?job=2")
    assert store.statistics([LANE]).pending_by_endpoint == {"shop": 3, ENDPOINT: 6}
    taken = claim(store, "d1", 1010.0, at_most=4)
    assert store.statistics([LANE]).pending_by_endpoint == {"shop": 3, ENDPOINT: 6}
    delay(store, "d1", 1100.0, taken[0])
    assert store.statistics([LANE]).pending_by_endpoint == {"shop": 3, ENDPOINT: 6}
    owe(store, ["d"], "shop", "shop2", now=1011.0)
    assert store.statistics([LANE]).pending_by_endpoint == {"shop": 4, ENDPOINT: 6, "shop2": 1}


def test_an_endpoint_to_which_all_is_delivered_is_not_counted(endpoint_index: Store) -> None:
    claim(endpoint_index, "d1", 1010.0)
    pay(endpoint_index, "d1", 1011.0, DELIVERY)
    assert endpoint_index.statistics([LANE]).pending_by_endpoint == {}


# --- operator alerts


@pytest.mark.parametrize(("webhook", "url"), [("ops", ""), (f"{HOOK}?ops", f"{HOOK}?ops")])
def test_an_alert_is_pending_once_and_delivered_like_any_delivery(
    store: Store, webhook: str, url: str
) -> None:
    keys, delivery = LaneKeys(OPERATIONS), f"{subscription_of(webhook)}:evt 1"
    assert store.deliveries.notify("evt 1", webhook, '{"type":"endpoint.disabled"}', 1000.0)
    assert not store.deliveries.notify("evt 1", webhook, '{"type":"other"}', 1001.0)
    assert not store.deliveries.notify("evt 1", "elsewhere", '{"type":"other"}', 1001.0)
    assert store.deliveries.sort([OPERATIONS], 1001.0).worth == {
        OPERATIONS: [endpoint_in(delivery)]
    }
    assert store.deliveries.claim_delivery(
        OPERATIONS, 1001.0, 1030.0, "d1", 9, {endpoint_in(delivery): 9}
    ) == [delivery]
    assert store.deliveries.load(OPERATIONS, [delivery])[0].url == url
    loaded = store.tasks.load(OPERATIONS, ["evt 1"], with_record=True).tasks["evt 1"]
    assert (loaded.record, loaded.state, loaded.webhooks) == (
        {"type": "endpoint.disabled"},
        State.SUCCEEDED,
        (delivery.split(":", maxsplit=1)[0],),
    )
    assert (
        store.deliveries.delivered(
            OPERATIONS, "d1", 1002.0, [Attempt(delivery, "HTTP 200")], RETENTION
        )
        == 1
    )
    assert not store.deliveries.notify("evt 1", webhook, "{}", 1003.0)
    assert reconcile(store, 1004.0, 1, OPERATIONS) == []
    assert 3500 < store.connection.redis.ttl(keys.task("evt 1")) <= 3600


def test_a_lost_alert_is_pending_again(store: Store) -> None:
    store.deliveries.notify("n", "ops", "{}", 1000.0)
    store.connection.redis.delete(LaneKeys(OPERATIONS).inbox)
    assert reconcile(store, 1001.0, 5, OPERATIONS) == ["ops:n"]


# --- what nobody can read


DAMAGE = ["gone", "not a hash", "odd number"]


def damage_delivery(store: Store, kind: str, delivery: str = DELIVERY) -> None:
    raw, key = store.connection.redis, KEYS.delivery(delivery)
    raw.delete(key)
    if kind == "not a hash":
        raw.set(key, "?")
    elif kind == "odd number":
        raw.hset(key, mapping={"attempts": "many", "state": "pending"})


@pytest.mark.parametrize("kind", DAMAGE)
def test_an_unreadable_delivery_is_read_as_never_tried(endpoint_index: Store, kind: str) -> None:
    damage_delivery(endpoint_index, kind)
    (delivery,) = endpoint_index.deliveries.load(LANE, [DELIVERY])
    assert (delivery.url, delivery.attempts, delivery.state) == (HOOK, 0, "pending")
    assert delivery.outcome == ("" if kind == "gone" else "the attempts are unreadable")
    endpoint_index.connection.redis.delete(KEYS.task("a"))
    assert endpoint_index.deliveries.load(LANE, [DELIVERY])[0].url == ""


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("verb", ["delivered", "retry_later", "bury"])
def test_an_unreadable_delivery_is_written_down_all_the_same_and_costs_the_others_nothing(
    store: Store, verb: str, kind: str
) -> None:
    deliveries = owe(store, ["a", "b", "c"], HOOK)
    claim(store, "d1", 1010.0)
    damage_delivery(store, kind, deliveries[1])
    done = {"delivered": pay, "retry_later": delay, "bury": bury}[verb](
        store, "d1", 1011.0, *deliveries
    )
    assert done == 3
    assert [delivery.attempts for delivery in store.deliveries.load(LANE, deliveries)] == [1, 1, 1]
    assert store.connection.redis.hlen(KEYS.delivery_leases) == 0
    assert {tuple(places(store, delivery)) for delivery in deliveries} == {
        {"delivered": (), "retry_later": ("retries",), "bury": ("dead",)}[verb]
    }


@pytest.mark.parametrize("verb", ["delivered", "bury"])
def test_a_delivery_whose_record_is_unreadable_is_closed_and_costs_the_others_nothing(
    store: Store, verb: str
) -> None:
    deliveries = owe(store, ["a", "b", "c"], HOOK)
    claim(store, "d1", 1010.0)
    store.connection.redis.delete(KEYS.task("b"))
    store.connection.redis.set(KEYS.task("b"), "?")
    assert {"delivered": pay, "bury": bury}[verb](store, "d1", 1011.0, *deliveries) == 3
    restart = store.closed.reopen(LANE, dict.fromkeys(deliveries, 1012.0), dead=verb == "bury")
    assert restart == [deliveries[0], deliveries[2]]


@pytest.mark.parametrize("kind", DAMAGE)
def test_an_unreadable_dead_letter_is_listed_and_can_be_revived(
    endpoint_index: Store, kind: str
) -> None:
    claim(endpoint_index, "d1", 1010.0)
    bury(endpoint_index, "d1", 1011.0, DELIVERY)
    damage_delivery(endpoint_index, kind)
    assert [delivery.name for delivery in endpoint_index.closed.dead(LANE)] == [DELIVERY]
    assert endpoint_index.closed.reopen(LANE, {DELIVERY: 1012.0}, dead=True) == [DELIVERY]
    assert claim(endpoint_index, "d2", 1012.0) == [DELIVERY]
    assert pay(endpoint_index, "d2", 1013.0, DELIVERY) == 1
    assert endpoint_index.deliveries.load(LANE, [DELIVERY])[0].attempts == 1


def test_a_lane_or_a_heartbeat_that_nobody_can_read_is_passed_over(endpoint_index: Store) -> None:
    endpoint_index.connection.redis.sadd("cavendish:lanes", "nonsense", "a/b/c")
    endpoint_index.connection.redis.hset("cavendish:fleet", "x", '{"of": "another version"}')
    assert endpoint_index.tasks.lanes() == [LANE]
    assert endpoint_index.fleet.members(1000.0) == []


# --- any sequence of all that, against a small model


@dataclass
class Known:
    """What the model knows of one id.

    `kept` once a dead letter wanted its record, `life` its time to live.
    """

    ended: bool = False
    hooks: list[str] = field(default_factory=list)
    closed: set[str] = field(default_factory=set)
    kept: bool = False
    life: float | None = None

    def closes(self, subscription: str) -> None:
        self.closed.add(subscription)
        if self.closed >= {*self.hooks}:
            self.life = KEPT if self.kept else RETENTION


IDS = st.lists(st.sampled_from(["a", "a:b", "shop:a", "🍌"]), min_size=1, max_size=3, unique=True)
HOOKS = ("shop", "shop2", "shop.0a0a0a0a", HOOK, f"{HOOK}?job=1")
SOME_HOOKS = st.lists(st.sampled_from(HOOKS), max_size=3, unique=True)
ENDPOINTS = tuple(dict.fromkeys(endpoint_in(subscription_of(hook)) for hook in HOOKS))
ENDPOINT_NAMES = st.sampled_from(ENDPOINTS)
ROOMS = st.dictionaries(ENDPOINT_NAMES, st.integers(-1, 3), max_size=3) | st.just(
    dict.fromkeys(ENDPOINTS, 3)
)
TOKENS = st.sampled_from(["t1", "t2"])
PICKS = st.lists(st.integers(0, 99), min_size=1, max_size=5)
PAGES = st.integers(1, 8)
STRAY = st.sampled_from([False, False, False, True])


class Ledger(RuleBasedStateMachine):
    """The lane of operator alerts, so that `notify` takes part.

    Its time is `now`, the model says where each delivery lies.
    """

    store: Store
    lane = OPERATIONS
    keys = LaneKeys(OPERATIONS)

    def __init__(self) -> None:
        super().__init__()
        self.raw = self.store.connection.redis
        self.raw.flushall()
        self.now = 1000.0
        self.tasks: dict[str, Known] = {}
        self.lies: dict[str, tuple[str, float]] = {}
        self.lease: dict[str, str] = {}
        self.dead: dict[str, float] = {}
        self.attempts: dict[str, int] = {}
        self.excused: set[str] = (
            set()
        )  # endpoints that were postponed, or whose index was removed by hand

    def known(self, delivery: str) -> Known:
        return self.tasks[task_of(delivery)]

    def picked(self, among: Iterable[str], picks: list[int]) -> list[str]:
        names = sorted(among)
        return list(dict.fromkeys(names[pick % len(names)] for pick in picks)) if names else []

    def lying(self, endpoint: str, place: str) -> list[tuple[float, bytes, str]]:
        """In the order of Redis."""
        return sorted(
            (at, delivery.encode(), delivery)
            for delivery, (where, at) in self.lies.items()
            if (endpoint_in(delivery), where) == (endpoint, place)
        )

    def truth(self, endpoint: str) -> float | None:
        """When the first delivery in the queues of an endpoint is due."""
        return min(
            (at for place in ("queue", "retries") for at, _, _ in self.lying(endpoint, place)),
            default=None,
        )

    def owe(self, delivery: str) -> None:
        assert delivery not in self.lies, "pending twice"
        self.lies[delivery] = ("inbox", self.now)
        self.known(delivery).life = None

    # --- what befalls it

    @initialize()
    def something_is_pending(self) -> None:
        self.submit(["a", "a:b"], list(HOOKS[:3]), False)
        self.finish(["a", "a:b"])

    @rule(seconds=st.sampled_from([0.5, 5.0, 31.0, 3000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(ids=IDS, hooks=SOME_HOOKS, restart=st.booleans())
    def submit(self, ids: list[str], hooks: list[str], restart: bool) -> None:
        answers = add(self.store, ids, *hooks, now=self.now, restart=restart, lane=self.lane)
        for task_id, answer in zip(ids, answers, strict=True):
            task = self.tasks.get(task_id)
            quiet = (
                task is not None
                and task.ended
                and task.closed >= {*task.hooks}
                and not any(delivery_of(hook, task_id) in self.dead for hook in task.hooks)
            )
            assert answer == ("new" if task is None or (restart and quiet) else "known")
            if answer == "new":
                task = self.tasks[task_id] = Known()
            assert task is not None
            for subscription in map(subscription_of, hooks):
                if subscription not in task.hooks:
                    task.hooks.append(subscription)
                    self.attempts[delivery_of(subscription, task_id)] = 0
                    if task.ended:
                        self.owe(delivery_of(subscription, task_id))

    @rule(ids=IDS)
    def finish(self, ids: list[str]) -> None:
        pending = [
            task_id for task_id in ids if task_id in self.tasks and not self.tasks[task_id].ended
        ]
        expected = [
            delivery_of(hook, task_id) for task_id in pending for hook in self.tasks[task_id].hooks
        ]
        assert not pending or end(self.store, pending, self.now, self.lane) == expected
        for task_id in pending:
            self.tasks[task_id].ended, self.tasks[task_id].life = True, RETENTION
        for delivery in expected:
            self.owe(delivery)

    @rule(number=st.integers(0, 2), hook=st.sampled_from(HOOKS))
    def notify(self, number: int, hook: str) -> None:
        task_id, delivery = f"n:{number}", delivery_of(subscription_of(hook), f"n:{number}")
        assert self.store.deliveries.notify(task_id, hook, "{}", self.now) == (
            task_id not in self.tasks
        )
        if task_id not in self.tasks:
            self.tasks[task_id] = Known(ended=True, hooks=[subscription_of(hook)])
            self.attempts[delivery] = 0
            self.owe(delivery)

    @rule()
    def sort(self) -> None:
        worth = self.store.deliveries.sort([self.lane], self.now).worth.get(self.lane, [])
        inbox = {delivery for delivery, (place, _) in self.lies.items() if place == "inbox"}
        must = {endpoint_in(delivery) for delivery in inbox}
        must |= {
            name
            for name in ENDPOINTS
            if name not in self.excused and (self.truth(name) or self.now + 1) <= self.now
        }
        assert must <= {*worth} <= {*ENDPOINTS}
        assert len({*worth}) == len(worth)
        self.lies |= {delivery: ("queue", self.lies[delivery][1]) for delivery in inbox}

    @rule(
        token=TOKENS,
        rooms=ROOMS,
        at_most=st.integers(0, 8),
        lease=st.sampled_from([0.5, 10.0, 100.0]),
    )
    def claim(self, token: str, rooms: dict[str, int], at_most: int, lease: float) -> None:
        self.sort()
        self.taken(token, rooms, at_most, lease)

    def taken(self, token: str, rooms: dict[str, int], at_most: int, lease: float) -> list[str]:
        until, left, expected = self.now + lease, at_most, list[str]()
        taken = self.store.deliveries.claim_delivery(
            self.lane, self.now, until, token, at_most, rooms
        )
        room = {
            name: rooms[name] - sum(at > self.now for at, _, _ in self.lying(name, "queue"))
            for name in rooms
        }
        for place in ("queue", "retries"):
            due = {
                name: [delivery for at, _, delivery in self.lying(name, place) if at <= self.now][
                    : max(min(room[name], left), 0)
                ]
                for name in rooms
            }
            turns = [
                deliveries[turn]
                for turn in range(at_most)
                for deliveries in due.values()
                if turn < len(deliveries)
            ][:left]
            expected, left = expected + turns, left - len(turns)
            for delivery in turns:
                room[endpoint_in(delivery)] -= 1
                self.lies[delivery], self.lease[delivery] = ("queue", until), token
        assert taken == expected
        if at_most:
            self.excused -= {*rooms}
        return taken

    @rule(
        verb=st.sampled_from(["delivered", "retry_later", "bury"]),
        token=TOKENS,
        picks=PICKS,
        stray=STRAY,
        wait=st.floats(0, 99),
    )
    def answer(self, verb: str, token: str, picks: list[int], stray: bool, wait: float) -> None:
        if not self.lease:
            self.taken(token, dict.fromkeys(ENDPOINTS, 3), 4, 10.0)
        deliveries, wait = (
            self.picked(self.attempts if stray else self.lease, picks),
            round(wait, 1),
        )
        token = token if stray or not deliveries else self.lease[deliveries[0]]
        ours = [delivery for delivery in deliveries if self.lease.get(delivery) == token]
        attempts, at, charged = (
            [Attempt(delivery, verb) for delivery in deliveries],
            self.now + wait,
            wait < 50,
        )
        done = {
            "delivered": lambda: self.store.deliveries.delivered(
                self.lane, token, self.now, attempts, RETENTION
            ),
            "retry_later": lambda: self.store.deliveries.later(
                self.lane,
                token,
                self.now,
                [RetryAt(one.name, verb, "", at, charged) for one in attempts],
            ),
            "bury": lambda: self.store.deliveries.bury(self.lane, token, self.now, attempts, KEPT),
        }[verb]()
        assert done == len(ours)
        for place, delivery in enumerate(ours):
            del self.lease[delivery]
            self.lies.pop(delivery)
            self.attempts[delivery] += verb != "retry_later" or charged
            if verb == "retry_later":
                self.lies[delivery] = ("retries", at)
            if verb == "bury":
                self.dead[delivery] = round(self.now - place / 1e6, 6)  # no two at once
                self.known(delivery).kept = True
            if verb != "retry_later":
                self.known(delivery).closes(delivery.partition(":")[0])

    @rule(picks=PICKS, dead=st.booleans(), stray=STRAY, wait=st.sampled_from([-5.0, 0.0, 50.0]))
    def reopen(self, picks: list[int], dead: bool, stray: bool, wait: float) -> None:
        likely = self.dead if dead else {*self.attempts} - {*self.lies} - {*self.dead}
        deliveries, at = self.picked(self.attempts if stray else likely, picks), self.now + wait
        closed = [
            delivery
            for delivery in deliveries
            if delivery.partition(":")[0] in self.known(delivery).closed
        ]
        expected = [delivery for delivery in closed if (delivery in self.dead) == dead]
        assert (
            self.store.closed.reopen(self.lane, dict.fromkeys(deliveries, at), dead=dead)
            == expected
        )
        for delivery in expected:
            assert delivery not in self.lies
            self.lies[delivery], self.attempts[delivery] = ("retries", at), 0
            self.dead.pop(delivery, None)
            self.known(delivery).closed.remove(delivery.partition(":")[0])
            self.known(delivery).life = None

    @rule(picks=PICKS, stray=STRAY)
    def drop(self, picks: list[int], stray: bool) -> None:
        deliveries = self.picked(self.attempts if stray else self.dead, picks)
        dropped = [delivery for delivery in deliveries if delivery in self.dead]
        assert len(self.store.closed.drop(self.lane, deliveries)) == len(dropped)
        for delivery in dropped:
            del self.dead[delivery]
            self.attempts[delivery] = 0

    @rule(endpoint=ENDPOINT_NAMES, wait=st.sampled_from([None, 1.0, 500.0]))
    def postpone_or_lose_the_index(self, endpoint: str, wait: float | None) -> None:
        if wait is None:
            self.raw.zrem(self.keys.endpoint_index, endpoint)
        else:
            self.store.deliveries.postpone(self.lane, {endpoint: self.now + wait})
        self.excused.add(endpoint)

    # --- what an accident takes away, and the reconcile run that brings it back

    @rule(picks=PICKS)
    def lose_deliveries(self, picks: list[int]) -> None:
        for delivery in self.picked(
            (delivery for delivery, (place, _) in self.lies.items() if place != "lost"), picks
        ):
            endpoint, place = endpoint_in(delivery), self.lies[delivery][0]
            key = {
                "inbox": self.keys.inbox,
                "queue": self.keys.queue(endpoint),
                "retries": self.keys.retries(endpoint),
            }[place]
            assert self.raw.zrem(key, delivery) == 1
            self.lies[delivery] = ("lost", 0.0)

    @rule(picks=PICKS)
    def lose_attempts(self, picks: list[int]) -> None:
        for delivery in self.picked(self.attempts, picks):
            self.raw.delete(self.keys.delivery(delivery))
            self.attempts[delivery] = 0

    def found(self, missing: list[str]) -> None:
        assert len({*missing}) == len(missing)
        for delivery in missing:
            assert self.lies[delivery][0] == "lost"
            self.lies[delivery] = ("inbox", self.now)
            self.lease.pop(delivery, None)

    @rule()
    def forget_dead(self) -> None:
        old = [delivery for delivery, died in self.dead.items() if died <= self.now - KEPT]
        assert self.store.closed.forget_dead(self.lane, self.now - KEPT) == len(old)
        for delivery in old:
            del self.dead[delivery]

    @rule(page=PAGES)
    def reconcile_a_page(self, page: int) -> None:
        self.found(self.store.reconciliation.reconcile(self.lane, self.now, page))

    @rule(page=PAGES)
    def reconcile_all(self, page: int) -> None:
        self.found(reconcile(self.store, self.now, page, self.lane))
        assert all(place != "lost" for place, _ in self.lies.values())
        self.excused.clear()

    # --- what holds at any time

    @invariant()
    def each_open_delivery_lies_in_exactly_one_place(self) -> None:
        expected = {
            delivery_of(hook, task_id)
            for task_id, task in self.tasks.items()
            if task.ended
            for hook in task.hooks
            if hook not in task.closed
        }
        assert {*self.lies} == expected
        sets = {("inbox", ""): self.keys.inbox}
        sets |= {("queue", name): self.keys.queue(name) for name in ENDPOINTS}
        sets |= {("retries", name): self.keys.retries(name) for name in ENDPOINTS}
        pipe = self.raw.pipeline(transaction=False)
        for key in (*sets.values(), self.keys.dead):
            pipe.zrange(key, 0, -1, withscores=True)
        *rows, dead = pipe.execute()
        lies = [
            (delivery, (place, at))
            for (place, _), row in zip(sets, rows, strict=True)
            for delivery, at in row
        ]
        assert sorted(lies) == sorted(pair for pair in self.lies.items() if pair[1][0] != "lost")
        assert all(
            endpoint_in(delivery) == name
            for (_, name), row in zip(sets, rows, strict=True)
            if name
            for delivery, _ in row
        )
        assert dict(dead) == self.dead
        assert self.raw.hgetall(self.keys.delivery_leases) == self.lease

    @invariant()
    def the_index_is_never_later_than_the_truth(self) -> None:
        index = dict(self.raw.zrange(self.keys.endpoint_index, 0, -1, withscores=True))
        due = {
            name: at
            for name in ENDPOINTS
            if name not in self.excused and (at := self.truth(name)) is not None
        }
        assert [name for name, at in due.items() if name not in index or index[name] > at] == []
        first = min(
            [*due.values(), *(at for place, at in self.lies.values() if place == "inbox")],
            default=None,
        )
        visit = self.store.deliveries.next_visits([self.lane])[0]
        assert first is None or (visit is not None and visit <= first)

    @invariant()
    def records_live_as_long_as_anything_is_open_and_then_their_time(self) -> None:
        pipe = self.raw.pipeline(transaction=False)
        for task_id in self.tasks:
            pipe.hmget(self.keys.task(task_id), "webhooks", "closed")
            pipe.ttl(self.keys.task(task_id))
            pipe.ttl(self.keys.result(task_id))
        rows = pipe.execute()
        for task, (hooks, closed), *lives in zip(
            self.tasks.values(), rows[::3], rows[1::3], rows[2::3], strict=True
        ):
            assert (hooks or "").split() == task.hooks
            assert Counter((closed or "").split()) == Counter(task.closed)
            assert lives[0] == -1 if task.life is None else task.life - 60 < lives[0] <= task.life
            assert not task.ended or lives[1] == lives[0]
        attempts = {
            delivery.name: delivery.attempts
            for delivery in self.store.deliveries.load(self.lane, list(self.attempts))
        }
        assert attempts == self.attempts

    @invariant()
    def what_waits_is_counted(self) -> None:
        if not self.excused:
            lying = Counter(
                endpoint_in(delivery)
                for delivery, (place, _) in self.lies.items()
                if place != "lost"
            )
            assert self.store.statistics([self.lane]).pending_by_endpoint == lying

    def teardown(self) -> None:
        """In the end, everything that was ever pending and is not dead is delivered, once, and
        nothing is left over.
        """
        if not hasattr(self, "raw"):
            return
        self.reconcile_all(3)
        self.finish(list(self.tasks))
        self.now += 10_000
        pending, delivered = {*self.lies}, list[str]()
        while self.lies:
            self.sort()
            taken = self.taken("t1", dict.fromkeys(ENDPOINTS, 3), 8, 10.0)
            assert taken, "something is pending that nobody can claim"
            self.answer(
                "delivered",
                "t1",
                [sorted(self.lease).index(delivery) for delivery in taken],
                False,
                0.0,
            )
            delivered += taken
        assert sorted(delivered) == sorted(pending)
        assert self.store.reconciliation.reconcile(self.lane, self.now, 100) == []
        self.sort()
        assert self.taken("t2", dict.fromkeys(ENDPOINTS, 3), 8, 10.0) == []
        assert self.store.deliveries.next_visits([self.lane])[0] is None
        self.each_open_delivery_lies_in_exactly_one_place()
        self.records_live_as_long_as_anything_is_open_and_then_their_time()
        assert all(task.life for task in self.tasks.values())


@pytest.mark.timeout(0 if "FUZZ_CASES" in os.environ else 600)  # a failure is shrunk first
def test_after_any_sequence_of_events_nothing_is_lost_and_nothing_comes_back(store: Store) -> None:
    machine = type("Machine", (Ledger,), {"store": store})
    """25 sequences of 40 steps, others in each run; FUZZ_CASES=1000 makes a long run."""
    chosen = settings(
        max_examples=max(25, int(os.environ.get("FUZZ_CASES", "0"))),
        stateful_step_count=40,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=chosen)
