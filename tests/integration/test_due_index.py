"""The due index with a real Redis: quiet lanes cost nothing, and no lane is ever forgotten."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish.store.deliveries import RetryAt
from cavendish.store.due_index import SOON, WRITTEN_WITHIN, DueIndex, Place
from cavendish.store.keys import DELIVERIES, LaneKeys
from cavendish.submission import SubmitOptions
from cavendish_worker.webhooks.reconcile import reconcile
from delivering import Delivering

LANE = Lane("default", "nano-banana")
OTHER = Lane("default", "flux")


@pytest.fixture
def index(store: Store) -> DueIndex:
    return DueIndex(store.connection, "default")


def written_long_ago(store: Store, tag: str = "default") -> None:
    """What was noted is surely written by now."""
    server, key = store.connection.redis, f"cavendish:{{{tag}}}:noted"
    for member in server.zrange(key, 0, -1):
        server.zadd(key, {member: store.fleet.now() - WRITTEN_WITHIN - 1})


def add(
    store: Store,
    *ids: str,
    lane: Lane = LANE,
    producer: str = "",
    webhooks: tuple[str, ...] = (),
) -> float:
    now = store.fleet.now()
    options = SubmitOptions(lane.service, lane.account, webhooks, 1000.0, "", "", producer, False)
    store.tasks.add(ids, options, now, now + 1.0)
    return now


def claim(store: Store, *ids: str) -> None:
    now = store.fleet.now()
    store.tasks.claim(LANE, now + 60, "t", store.tasks.candidates(LANE, now + 10, len(ids)))


def empty_looks(store: Store, index: DueIndex, now: float) -> float | None:
    """Look at all that is due, and find nothing."""
    groups = [name for name, at in index.groups() if at <= now]
    found = [place._replace(at=None) for place in index.due(groups, now, 10)]
    return index.looked_at(found, now)


def places(index: DueIndex, now: float) -> list[Place]:
    """All lanes that are worth a look by then, as a round finds them."""
    return index.due([name for name, at in index.groups() if at <= now], now, 10)


def test_an_earlier_time_that_is_noted_stays_and_the_longest_waiting_lane_comes_first(
    index: DueIndex,
) -> None:
    index.note([Place("a", LANE, 20.0), Place("a", OTHER, 15.0), Place("b", LANE, 30.0)], 10.0)
    index.note([Place("a", LANE, 10.0), Place("a", OTHER, 40.0)], 10.0)
    assert index.groups() == [("a", 10.0), ("b", 30.0)]
    assert index.due(["a", "b"], 20.0, 5) == [Place("a", LANE, 10.0), Place("a", OTHER, 15.0)]
    assert index.due(["a"], 20.0, 1) == [Place("a", LANE, 10.0)]


def test_a_lane_that_was_noted_lately_is_looked_at_again_since_its_write_may_still_come(
    store: Store, index: DueIndex
) -> None:
    index.note([Place("a", LANE, 10.0)], 10.0)
    assert empty_looks(store, index, 10.0) == pytest.approx(10.0 + SOON, abs=WRITTEN_WITHIN / 2)
    assert index.anything()
    written_long_ago(store)
    assert empty_looks(store, index, 20.0) is None
    assert not index.anything()
    assert store.connection.redis.keys("cavendish:{default}*") == []


def test_the_next_look_of_a_group_is_that_of_its_first_lane(store: Store, index: DueIndex) -> None:
    index.note([Place("a", LANE, 10.0), Place("a", OTHER, 15.0), Place("b", OTHER, 12.0)], 10.0)
    written_long_ago(store)
    assert index.looked_at([Place("a", LANE, 99.0), Place("b", OTHER, None)], 10.0) == 15.0
    assert index.groups() == [("a", 15.0)]


@pytest.mark.parametrize("write", ["add", "settle", "release"])
def test_a_write_that_fails_leaves_a_look_in_vain_and_no_lane_that_is_forgotten(
    store: Store, index: DueIndex, write: str
) -> None:
    now = add(store, "a")
    claim(store, "a")
    task = store.tasks.load(LANE, ["a"]).tasks["a"]
    written_long_ago(store)
    index.looked_at([Place("", LANE, now + 3600)], now)
    damaged = LaneKeys(LANE).counts if write == "add" else LaneKeys(LANE).leases
    store.connection.redis.set(damaged, "?")  # so that the index is written, and the lane is not
    writes: dict[str, Callable[[], object]] = {
        "add": lambda: add(store, "b"),
        "settle": lambda: store.tasks.settle(
            LANE, "t", now, [(Outcome(task, State.PENDING), now + 2)], 3600, 100
        ),
        "release": lambda: store.tasks.release(LANE, "t", [task], now),
    }
    with pytest.raises(redis.ResponseError):
        writes[write]()
    assert index.due([""], now + 2, 5)
    assert empty_looks(store, index, now + 2) is not None  # another writer may be about to write


def test_each_producer_of_a_lane_has_its_place(store: Store, index: DueIndex) -> None:
    now = add(store, "a", producer="one")
    add(store, "b", producer="two")
    assert {(place.group, place.lane) for place in index.due(["one", "two"], now + 9, 5)} == {
        ("one", LANE),
        ("two", LANE),
    }


def test_a_name_that_is_no_lane_is_passed_over(store: Store, index: DueIndex) -> None:
    index.note([Place("a", LANE, 10.0)], 10.0)
    store.connection.redis.zadd("cavendish:{default}:due:a", {"?": 1.0})
    assert index.due(["a"], 20.0, 5) == [Place("a", LANE, 10.0)]


def test_a_group_without_lanes_leaves_the_index_since_it_would_always_come_first(
    store: Store, index: DueIndex
) -> None:
    index.note([Place("a", LANE, 10.0), Place("b", LANE, 10.0)], 10.0)
    store.connection.redis.delete("cavendish:{default}:due:a")
    assert index.due(["a", "b"], 20.0, 5) == [Place("b", LANE, 10.0)]
    assert index.groups() == [("b", 10.0)]


@pytest.mark.parametrize("pattern", ["due*", "due", "due:*"])
def test_the_reconcile_run_mends_each_index_so_that_nothing_is_forgotten_for_ever(
    store: Store, pattern: str
) -> None:
    add(store, "a", "b", webhooks=("https://example.com/hook",))
    claim(store, "a")
    now, task = store.fleet.now(), store.tasks.load(LANE, ["a"]).tasks["a"]
    store.tasks.settle(LANE, "t", now, [(Outcome(task, State.SUCCEEDED), now)], 3600, 100)
    indices = (
        store.tasks.due("default"),
        store.deadlines.index,
        store.deliveries.index,
    )
    tags = ("default", "cavendish:deadlines", "cavendish:deliveries")
    raw, lost = store.connection.redis, [f"cavendish:{{{tag}}}:{pattern}" for tag in tags]
    raw.delete(*(key for each in lost for key in raw.keys(each)))
    assert not any(places(index, now + 5000.0) for index in indices)
    reconcile(store, "", 3600.0, 3600.0)
    assert all(places(index, now + 5000.0) for index in indices)
    before = [index.groups() for index in indices]
    reconcile(store, "", 3600.0, 3600.0)
    assert [index.groups() for index in indices] == before


@pytest.mark.parametrize("damaged", ["ended", "inbox", "dead", "common"])
def test_a_lane_whose_keys_are_damaged_does_not_keep_the_reconcile_run_from_the_others(
    store: Store, damaged: str
) -> None:
    now = add(store, "a", lane=OTHER)
    add(store, "b", lane=LANE)
    store.connection.redis.set(getattr(LaneKeys(OTHER), damaged), "?")
    store.connection.redis.delete("cavendish:{cavendish:deadlines}:due")
    reconcile(store, "", 3600.0, 3600.0)
    found = {place.lane for place in places(store.deadlines.index, now + 5000.0)}
    assert found == {LANE, OTHER}


def test_a_retry_that_is_due_before_its_lease_would_have_ended_is_found_in_time(
    store: Store,
) -> None:
    add(store, "a", webhooks=("https://example.com/hook",))
    claim(store, "a")
    now, task = store.fleet.now(), store.tasks.load(LANE, ["a"]).tasks["a"]
    store.tasks.settle(LANE, "t", now, [(Outcome(task, State.SUCCEEDED), now)], 3600, 100)
    deliveries = store.deliveries
    (endpoint,) = deliveries.sort([LANE], now).worth[LANE]
    (name,) = deliveries.claim_delivery(LANE, now, now + 60.0, "t", 1, {endpoint: 1})
    written_long_ago(store, DELIVERIES)
    (visit_at,) = deliveries.next_visits([LANE])
    assert deliveries.index.looked_at([Place("default", LANE, visit_at)], now) == now + 60.0
    assert deliveries.later(LANE, "t", now, [RetryAt(name, "HTTP 500", at=now + 5.0)]) == 1
    assert places(deliveries.index, now + 5.0) == [Place("default", LANE, now + 5.0)]


def test_a_reconcile_run_goes_through_so_many_lanes_and_the_next_goes_on_behind_them(
    store: Store,
) -> None:
    lanes = [Lane("default", f"service{number}") for number in range(5)]
    runs = [store.reconciliation.next_lanes(lanes, 2) for _ in range(4)]
    assert runs == [lanes[:2], lanes[2:4], lanes[4:], lanes[:2]]
    assert store.reconciliation.next_lanes([], 2) == []


def test_a_delivery_loop_reads_no_more_with_many_quiet_lanes_than_with_none(
    store: Store, endpoint_index: Delivering
) -> None:
    def costs(quiet: int) -> int:
        for number in range(quiet):
            add(store, "x", lane=Lane("default", f"quiet{number}"))
        before = commands(store)
        endpoint_index.deliver()
        return commands(store) - before

    costs(0)
    assert costs(300) == costs(0)


def commands(store: Store) -> int:
    stats = store.connection.redis.info("commandstats")
    return sum(row["calls"] for name, row in stats.items() if "|" not in name)
