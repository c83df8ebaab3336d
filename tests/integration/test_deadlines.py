"""Deadlines are looked at in lists, and no pending id is ever missing from all of them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish.store.deadlines import first_look_at
from cavendish.store.keys import LaneKeys
from cavendish.submission import LONGEST_DEADLINE, SHORTEST_DEADLINE, SubmitOptions

LANE = Lane("default", "nano-banana")
KEYS = LaneKeys(LANE)


def add(store: Store, *ids: str, now: float = 1000.0, seconds: float = 3600.0) -> None:
    options = SubmitOptions(LANE.service, LANE.account, (), seconds, "", "", "", restart=True)
    store.tasks.add(ids, options, now, now)


def end(store: Store, *ids: str, now: float = 1001.0) -> None:
    some = [one for one in store.tasks.candidates(LANE, now + 1e6, 9999) if one.id in {*ids}]
    claimed = store.tasks.claim(LANE, now + 60, "end", some)
    tasks = store.tasks.load(LANE, claimed).tasks
    outcomes = [(Outcome(tasks[each], State.SUCCEEDED, record={}), now) for each in claimed]
    assert all(one.ended for one in store.tasks.settle(LANE, "end", now, outcomes, 60, 100))


def times(store: Store) -> dict[float, list[str]]:
    """The lists as they are stored."""
    raw: Any = store.connection.redis
    found = dict(raw.zrange(KEYS.deadlines, 0, -1, withscores=True))
    assert all(float(name) == at for name, at in found.items())
    lists = {at: raw.lrange(KEYS.deadline(at), 0, -1) for at in found.values()}
    assert len(raw.keys(KEYS.deadline(0)[:-1] + "*")) == len(lists)
    return lists


@pytest.mark.parametrize("seconds", [SHORTEST_DEADLINE, 1.7, 59.0, 3600.0, LONGEST_DEADLINE])
def test_the_first_look_comes_before_the_deadline_and_many_share_it(seconds: float) -> None:
    ends = [1_790_000_000.0 + seconds + number * seconds / 1000 for number in range(1000)]
    looks = [first_look_at(at, seconds) for at in ends]
    assert all(0 <= at - look <= max(seconds / 32, 1) for at, look in zip(ends, looks, strict=True))
    assert all(look == int(look) for look in looks)
    assert len(set(looks)) <= 70


def test_ids_wait_in_one_list_and_those_that_ended_are_dropped_when_its_time_comes(
    store: Store,
) -> None:
    ids = [f"id-{number}" for number in range(1200)]
    add(store, *ids)
    (at,) = times(store)
    assert times(store)[at] == ids
    end(store, *ids[:-1])
    assert times(store)[at] == ids  # nothing is changed there at an end
    assert store.deadlines.overdue(LANE, at, "t", 500) == []
    assert times(store) == {4601.0: ids[-1:]}  # the second in which its deadline has passed
    assert store.deadlines.overdue(LANE, 4600.5, "t", 500) == []
    assert store.deadlines.overdue(LANE, 4601.0, "t", 500) == ids[-1:]


def test_an_overdue_id_is_looked_at_again_if_the_process_that_took_it_dies(store: Store) -> None:
    add(store, "a", seconds=10.0)
    assert store.deadlines.overdue(LANE, 1011.0, "dies", 10) == ["a"]
    assert store.deadlines.overdue(LANE, 1015.0, "t", 10) == []
    assert store.deadlines.overdue(LANE, 1080.0, "t", 10) == ["a"]
    assert set(store.tasks.load(LANE, ["a"], token="t").tasks) == {"a"}
    end(store, "a", now=1e6)
    assert store.deadlines.overdue(LANE, 1200.0, "t", 10) == []
    assert times(store) == {}
    assert store.connection.redis.hlen(KEYS.leases) == 0


def test_an_id_that_is_tracked_anew_ends_by_its_new_deadline(store: Store) -> None:
    add(store, "a", seconds=100.0)
    end(store, "a")
    add(store, "a", now=1050.0, seconds=1000.0)
    assert store.deadlines.overdue(LANE, 1500.0, "t", 10) == []
    assert store.deadlines.overdue(LANE, 2051.0, "t", 10) == ["a"]


def test_a_record_that_is_gone_or_set_aside_is_not_leased_and_an_unreadable_one_is(
    store: Store,
) -> None:
    add(store, "gone", "aside", "odd", "unreadable", "good", seconds=10.0)
    store.tasks.quarantine(LANE, {"aside": "for a test"})
    raw = store.connection.redis
    raw.delete(KEYS.task("gone"), KEYS.task("unreadable"))
    raw.set(KEYS.task("unreadable"), "?")
    raw.hset(KEYS.task("odd"), "deadline_at", "tomorrow")
    leased = store.deadlines.overdue(LANE, 1020.0, "t", 10)
    assert sorted(leased) == ["good", "odd", "unreadable"]


def test_two_processes_that_look_at_once_lease_no_id_twice(store: Store) -> None:
    ids = [f"id-{number}" for number in range(40)]
    add(store, *ids, seconds=10.0)
    look = store.deadlines._go_on
    first = look(LANE, (1010.0, 1050.0), ids, 1020.0, "one")
    assert (first, look(LANE, (1010.0, 1050.0), ids, 1020.0, "two")) == (ids, [])


def test_a_lane_without_pending_ids_keeps_no_deadlines_and_what_is_pending_keeps_its_own(
    store: Store,
) -> None:
    add(store, "a", "b")
    add(store, "c", seconds=50.0)
    end(store, "a", "b", "c")
    add(store, "d", seconds=77.0)
    assert not store.deadlines.drop_ended(LANE, 100)
    assert times(store) == {1078.0: ["d"]}
    end(store, "d")
    assert store.deadlines.drop_ended(LANE, 100)
    assert times(store) == {}
    assert store.deadlines.drop_ended(LANE, 100)


def test_many_ended_ids_are_dropped_part_by_part(store: Store) -> None:
    ids = [f"id-{number}" for number in range(1300)]
    add(store, *ids)
    end(store, *ids)
    assert not store.deadlines.drop_ended(LANE, 700)
    assert sum(map(len, times(store).values())) == 600
    assert store.deadlines.drop_ended(LANE, 600)


def test_an_id_whose_due_set_is_lost_ends_by_its_deadline_all_the_same(store: Store) -> None:
    add(store, "a", "odd", seconds=100.0)
    raw = store.connection.redis
    raw.delete(KEYS.due(""))
    raw.hset(KEYS.task("odd"), "deadline_at", "tomorrow")
    assert not store.deadlines.drop_ended(LANE, 100)
    assert raw.hlen(KEYS.leases) == 0
    found = [each for _ in range(2) for each in store.deadlines.overdue(LANE, 1102.0, "t", 10)]
    assert sorted(found) == ["a", "odd"]


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_every_pending_id_stands_in_a_list_no_later_than_its_deadline(
    store: Store, seed: int
) -> None:
    rolled, now, ends_at = random.Random(seed), 1000.0, dict[str, float]()
    for step in range(120):
        now += rolled.random() * 5
        match rolled.randrange(4):
            case 0 | 1:
                ids = {f"id-{rolled.randrange(60)}" for _ in range(rolled.choice((1, 3, 12)))}
                seconds = rolled.choice((1.0, 7.5, 40.0, 300.0))
                known = store.tasks.get("default", LANE.service, sorted(ids))
                add(store, *sorted(ids), now=now, seconds=seconds)
                ends_at |= {
                    each: round(now + seconds, 3)
                    for each in ids
                    if each not in known or known[each].state.terminal
                }
            case 2:
                end(store, *rolled.sample(sorted(ends_at), min(len(ends_at), 9)), now=now)
            case _:
                taken = store.deadlines.overdue(LANE, now, f"t{step}", 7)
                assert all(ends_at[each] <= now for each in taken)
                overdue = store.tasks.load(LANE, taken, token=f"t{step}").tasks.values()
                some = [(Outcome(task, State.EXPIRED, "late"), now) for task in overdue]
                if rolled.random() < 0.8:  # else this process died
                    store.tasks.settle(LANE, f"t{step}", now, some, 600, 100)
        tasks = store.tasks.get("default", LANE.service, sorted(ends_at))
        lists = times(store)
        for each, task in tasks.items():
            if task.state is State.PENDING:
                assert task.deadline_at == ends_at[each]
                looks = [at for at, ids in lists.items() if each in ids]
                assert min(looks) <= max(ends_at[each] + 1, now + 60)
