"""Debts in a real Redis: sorted, claimed by one, then paid, tried later or buried; reopened, swept, and never lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from scheduler.endpoints import endpoint_in, subscription_of
from scheduler.store import Book
from scheduler.store.debts import SORTED_AT_ONCE, Later, Try
from scheduler.store.keys import LaneKeys, debt_of, task_of
from scheduler.submission import Wishes
from scheduler.tracking import OPERATIONS, Lane, State
from scheduler.verdicts import Outcome

LANE = Lane("default", "nano-banana")
KEYS = LaneKeys(LANE)
HOOK = "https://example.com/hook"
ENDPOINT = subscription_of(HOOK)
DEBT = f"{ENDPOINT}:a"
OTHER = "https://other.example/x"
RETENTION, KEPT = 3600.0, 7200.0
#: Names that contain each other, and ids that look like parts of a debt.
NESTED = ("shop", "shop2", "shop.0a0a0a0a", "ashop", "sho")
STRANGE_IDS = ("a", "aa", "a:b", ":a", "shop:a", "shop.0a0a0a0a:a", "идентификатор 🍌", "a b", "%5B*?{x}")


def wishes(*webhooks: str, again: bool = False, lane: Lane = LANE) -> Wishes:
    return Wishes(lane.service, lane.account, webhooks, 100.0, "", "", "", again)


def add(book: Book, ids: Iterable[str], *webhooks: str, now: float = 1000.0, again: bool = False, lane: Lane = LANE) -> list[str]:
    told = wishes(*webhooks, again=again, lane=lane)
    return [one.outcome for one in book.tasks.add(list(ids), told, now, now + 2).values()]


def end(book: Book, ids: Iterable[str], now: float = 1010.0, lane: Lane = LANE) -> list[str]:
    """End pending ids. Returns what is owed for them."""
    ids = list(ids)
    book.connection.redis.hset(LaneKeys(lane).leases, mapping=dict.fromkeys(ids, "look 0"))
    loaded = book.tasks.load(lane, ids).tasks
    outcomes = [(Outcome(loaded[name], State.FAILED, record={"id": name}), 0.0) for name in ids]
    settled = book.tasks.settle(lane, "look", now, outcomes, int(RETENTION), 100)
    assert all(one.ended for one in settled)
    return [debt for one in settled for debt in one.debts]


def owe(book: Book, ids: Iterable[str], *webhooks: str, now: float = 1010.0) -> list[str]:
    ids = list(ids)
    assert set(add(book, ids, *webhooks)) == {"new"}
    return end(book, ids, now)


def claim(book: Book, token: str, now: float, *, until: float | None = None, at_most: int = 1000, room: int = 1000) -> list[str]:
    """What a worker does: sort, and claim of all endpoints that are worth a visit."""
    worth = book.debts.sort([LANE], now).worth.get(LANE, [])
    return book.debts.claim_delivery(LANE, now, until or now + 30, token, at_most, dict.fromkeys(worth, room))


def pay(book: Book, token: str, now: float, *debts: str) -> int:
    return book.debts.paid(LANE, token, now, [Try(debt, "HTTP 200") for debt in debts], RETENTION)


def bury(book: Book, token: str, now: float, *debts: str, kept_for: float = KEPT) -> int:
    return book.debts.bury(LANE, token, now, [Try(debt, "HTTP 404") for debt in debts], kept_for)


def delay(book: Book, token: str, at: float, *debts: str, charged: bool = True) -> int:
    return book.debts.later(LANE, token, [Later(debt, "HTTP 500", "{}", at, charged) for debt in debts])


def places(book: Book, debt: str, keys: LaneKeys = KEYS) -> list[str]:
    """Where a debt lies."""
    endpoint, raw = endpoint_in(debt), book.connection.redis
    lies = {"inbox": keys.owed, "queue": keys.queue(endpoint), "retries": keys.retries(endpoint), "dead": keys.dead}
    return [place for place, key in lies.items() if raw.zscore(key, debt) is not None]


def sweep(book: Book, now: float, page: int, lane: Lane = LANE) -> list[str]:
    """Go all the way round from wherever the last sweep ended."""
    laps = 2 * (book.connection.redis.zcard(LaneKeys(lane).ended) // page + 2)
    return [debt for _ in range(laps) for debt in book.debts.reowe(lane, now, page)]


@pytest.fixture
def owing(book: Book) -> Book:
    """A book in which the id `a` has ended, and owes one announcement."""
    assert owe(book, ["a"], HOOK) == [DEBT]
    return book


# --- claimed by one


def test_a_debt_is_claimed_by_one_and_due_again_when_the_lease_ends(owing: Book) -> None:
    assert claim(owing, "d1", 1010.0, until=1020.0) == [DEBT]
    assert claim(owing, "d2", 1019.9) == []
    assert owing.debts.next_visit([LANE]) == 1020.0
    assert claim(owing, "d2", 1020.0) == [DEBT]
    assert pay(owing, "d1", 1021.0, DEBT) == 0
    assert delay(owing, "d1", 1021.0, DEBT) == 0
    assert bury(owing, "d1", 1021.0, DEBT) == 0
    assert places(owing, DEBT) == ["queue"]
    assert pay(owing, "d2", 1021.0, DEBT) == 1
    assert pay(owing, "d2", 1021.0, DEBT) == 0


def test_a_lease_that_ran_out_still_counts_while_nobody_else_took_the_debt(owing: Book) -> None:
    claim(owing, "d1", 1010.0, until=1020.0)
    assert pay(owing, "d1", 5000.0, DEBT) == 1
    assert claim(owing, "d2", 5000.0) == []


def test_a_stranger_can_do_nothing_to_a_debt_that_nobody_claimed(owing: Book) -> None:
    owing.debts.sort([LANE], 1010.0)
    assert pay(owing, "", 1010.0, DEBT) + bury(owing, "x", 1010.0, DEBT) + delay(owing, "", 1010.0, DEBT) == 0
    assert owing.connection.redis.hget(KEYS.task("a"), "closed") is None


def test_an_endpoint_without_room_is_not_claimed_from_and_stays_worth_a_visit(owing: Book) -> None:
    for rooms in ({}, {ENDPOINT: 0}, {ENDPOINT: -3}, {"stranger": 5}):
        owing.debts.sort([LANE], 1010.0)
        assert owing.debts.claim_delivery(LANE, 1010.0, 1020.0, "d1", 10, rooms) == []
    assert owing.debts.claim_delivery(LANE, 1010.0, 1020.0, "d1", 0, {ENDPOINT: 5}) == []
    assert owing.debts.sort([LANE], 1010.0).worth == {LANE: [ENDPOINT]}
    assert claim(owing, "d1", 1010.0) == [DEBT]


# --- whose turn it is


def test_what_is_fresh_goes_before_retries_also_across_endpoints(book: Book) -> None:
    old = owe(book, ["r1", "r2"], "busy", "calm")
    claim(book, "d1", 1010.0)
    assert delay(book, "d1", 1015.0, *old) == 4
    fresh = owe(book, ["f1", "f2"], "calm", now=1040.0)
    rooms = {"busy": 10, "calm": 10}
    book.debts.sort([LANE], 1050.0)
    assert book.debts.claim_delivery(LANE, 1050.0, 1080.0, "d2", 3, rooms) == [*fresh, "busy:r1"]
    assert book.debts.claim_delivery(LANE, 1050.0, 1080.0, "d2", 10, rooms) == ["busy:r2", "calm:r1", "calm:r2"]
    assert all(places(book, debt) == ["queue"] for debt in (*old, *fresh))


def test_few_slots_go_to_the_endpoints_in_turn(book: Book) -> None:
    owe(book, [f"x{n}" for n in range(5)], "flood")
    owe(book, ["y0", "y1"], "small")
    owe(book, ["z0"], "tiny")
    book.debts.sort([LANE], 1010.0)
    rooms = dict.fromkeys(["flood", "small", "tiny"], 10)
    taken = [book.debts.claim_delivery(LANE, 1010.0, 1040.0, "d1", n, rooms) for n in (1, 4, 10)]
    assert taken[0] == ["flood:x0"]
    assert taken[1] == ["flood:x1", "small:y0", "tiny:z0", "flood:x2"]
    assert taken[2] == ["flood:x3", "small:y1", "flood:x4"]


def test_the_longest_due_is_visited_and_claimed_first(book: Book) -> None:
    owe(book, ["late"], "b", now=1030.0)
    owe(book, ["early"], "a", now=1020.0)
    owe(book, ["mid"], "a", now=1025.0)
    book.debts.sort([LANE], 1030.0)
    assert book.debts.sort([LANE], 1030.0).worth == {LANE: ["a", "b"]}
    assert book.debts.claim_delivery(LANE, 1030.0, 1060.0, "d1", 2, {"a": 2, "b": 0}) == ["a:early", "a:mid"]


def test_the_room_of_an_endpoint_counts_what_other_tokens_hold_in_flight(book: Book) -> None:
    owe(book, [f"x{n}" for n in range(6)], "shop")
    assert len(claim(book, "d1", 1010.0, until=1020.0, room=2)) == 2
    assert len(claim(book, "d2", 1011.0, until=1050.0, room=3)) == 1
    assert claim(book, "d3", 1012.0, room=3) == []
    assert pay(book, "d2", 1013.0, "shop:x2") == 1
    assert claim(book, "d3", 1014.0, room=3) == ["shop:x3"]
    assert claim(book, "d4", 1020.0, room=3) == ["shop:x4", "shop:x5"]  # those of the lease that ended are due since it did
    assert claim(book, "d5", 1049.0, room=3) == ["shop:x0"]


def test_a_retry_in_flight_takes_room_and_one_that_waits_takes_none(book: Book) -> None:
    first, second = owe(book, ["x0", "x1"], "shop")
    claim(book, "d1", 1010.0)
    delay(book, "d1", 1100.0, first, second)
    owe(book, ["x2"], "shop", now=1020.0)
    assert claim(book, "d2", 1020.0, room=1) == ["shop:x2"]
    pay(book, "d2", 1021.0, "shop:x2")
    assert claim(book, "d3", 1100.0, room=1) == [first]
    assert claim(book, "d4", 1100.0, room=1) == []


# --- paid


def test_a_paid_debt_is_struck_off_and_the_record_may_be_forgotten(owing: Book) -> None:
    claim(owing, "d1", 1010.0)
    assert owing.debts.paid(LANE, "d1", 1011.0, [Try(DEBT, "HTTP 204", '{"at": 1}')], RETENTION) == 1
    assert claim(owing, "d2", 99999.0) == []
    (debt,) = owing.debts.load(LANE, [DEBT])
    assert (debt.state, debt.tries, debt.outcome, debt.log) == ("paid", 1, "HTTP 204", '{"at": 1}')
    raw = owing.connection.redis
    for key in (KEYS.task("a"), KEYS.result("a"), KEYS.delivery(DEBT)):
        assert 3500 < raw.ttl(key) <= 3600
    assert raw.hget(KEYS.task("a"), "closed").split() == [ENDPOINT]
    assert raw.hlen(KEYS.debt_leases) == raw.zcard(KEYS.queue(ENDPOINT)) == 0
    assert raw.hget(KEYS.counts, "paid") == "1"


def test_the_record_stays_until_the_last_of_its_debts_is_closed(book: Book) -> None:
    debts = owe(book, ["a"], *NESTED)
    claim(book, "d1", 1010.0)
    raw = book.connection.redis
    for debt in debts:
        assert raw.ttl(KEYS.task("a")) == raw.ttl(KEYS.result("a")) == -1
        assert pay(book, "d1", 1011.0, debt) == 1
    assert 3500 < raw.ttl(KEYS.task("a")) <= 3600
    assert sorted(raw.hget(KEYS.task("a"), "closed").split()) == sorted(NESTED)


@pytest.mark.parametrize("name", NESTED)
def test_names_that_contain_each_other_are_closed_and_reopened_each_for_itself(book: Book, name: str) -> None:
    owe(book, STRANGE_IDS, *NESTED)
    claim(book, "d1", 1010.0)
    mine = [debt_of(name, task_id) for task_id in STRANGE_IDS]
    assert pay(book, "d1", 1011.0, *mine) == len(mine)
    raw = book.connection.redis
    assert {raw.hget(KEYS.task(task_id), "closed").strip() for task_id in STRANGE_IDS} == {name}
    assert {raw.ttl(KEYS.task(task_id)) for task_id in STRANGE_IDS} == {-1}
    others = [debt_of(other, task_id) for other in NESTED if other != name for task_id in STRANGE_IDS]
    assert book.debts.reopen(LANE, dict.fromkeys([*others, *mine], 1012.0), dead=False) == mine
    assert all(places(book, debt) == ["retries"] for debt in mine)
    assert all(places(book, debt) == ["queue"] for debt in others)


def test_ids_with_colons_and_any_script_find_their_way(book: Book) -> None:
    debts = owe(book, STRANGE_IDS, "shop", f"{HOOK}?job=7", HOOK)
    assert sorted(claim(book, "d1", 1010.0)) == sorted(debts)
    loaded = book.debts.load(LANE, debts)
    assert sorted({debt.task_id for debt in loaded}) == sorted(STRANGE_IDS)
    assert {(debt.endpoint, debt.url) for debt in loaded} == {("shop", ""), (ENDPOINT, HOOK), (ENDPOINT, f"{HOOK}?job=7")}
    assert pay(book, "d1", 1011.0, *debts) == len(debts)
    assert sweep(book, 1012.0, 2) == []


# --- later


def test_a_later_try_is_charged_unless_the_fault_was_ours(owing: Book) -> None:
    claim(owing, "d1", 1010.0)
    assert delay(owing, "d1", 1015.0, DEBT) == 1
    assert places(owing, DEBT) == ["retries"]
    assert claim(owing, "d2", 1014.9) == []
    assert claim(owing, "d2", 1015.0) == [DEBT]
    assert places(owing, DEBT) == ["queue"]
    assert delay(owing, "d2", 1016.0, DEBT, charged=False) == 1
    (debt,) = owing.debts.load(LANE, [DEBT])
    assert (debt.tries, debt.outcome, debt.log) == (1, "HTTP 500", "{}")
    assert owing.debts.next_visit([LANE]) == 1016.0
    assert claim(owing, "d3", 1015.9) == []
    assert owing.debts.next_visit([LANE]) == 1016.0
    assert claim(owing, "d3", 1016.0) == [DEBT]


def test_a_retry_far_ahead_hides_nothing_that_is_due_before(book: Book) -> None:
    first, second, third = owe(book, ["a", "b", "c"], "shop")
    assert claim(book, "d1", 1010.0, at_most=2) == [first, second]
    delay(book, "d1", 5000.0, first)
    assert book.debts.sort([LANE], 1010.0).worth == {LANE: ["shop"]}
    assert claim(book, "d2", 1011.0, until=1041.0) == [third]
    delay(book, "d2", 6000.0, third)
    assert book.debts.next_visit([LANE]) == 1040.0
    assert claim(book, "d3", 1040.0) == [second]


def test_one_that_is_owed_anew_while_it_is_in_flight_keeps_its_place(owing: Book) -> None:
    claim(owing, "d1", 1010.0, until=1050.0)
    owing.connection.redis.zadd(KEYS.owed, {DEBT: 1011.0})
    assert claim(owing, "d2", 1012.0) == []
    assert places(owing, DEBT) == ["queue"]
    assert pay(owing, "d1", 1013.0, DEBT) == 1
    assert claim(owing, "d2", 9999.0) == []


def test_an_endpoint_is_visited_later_and_earlier_only_for_what_is_fresh(owing: Book) -> None:
    owing.debts.sort([LANE], 1010.0)
    owing.debts.postpone(LANE, {ENDPOINT: 1100.0, "stranger": 1.0})
    assert owing.debts.sort([LANE], 1099.9).worth == {}
    assert owing.debts.next_visit([LANE]) == 1100.0
    owe(owing, ["b"], HOOK, now=1050.0)
    assert owing.debts.sort([LANE], 1050.0).worth == {LANE: [ENDPOINT]}
    assert owing.debts.next_visit([LANE]) == 1050.0
    owing.debts.postpone(LANE, {ENDPOINT: 1200.0})
    assert owing.debts.sort([LANE], 1199.9).worth == {}
    assert owing.debts.sort([LANE], 1200.0).worth == {LANE: [ENDPOINT]}
    assert sorted(claim(owing, "d1", 1200.0)) == [DEBT, f"{ENDPOINT}:b"]


def test_what_waits_for_a_retry_can_be_hastened_and_is_then_visited(book: Book) -> None:
    debts = owe(book, ["a", "b"], "shop", "shop2")
    claim(book, "d1", 1010.0)
    delay(book, "d1", 5000.0, *debts)
    book.debts.hasten(LANE, "shop", 1020.0)
    book.debts.postpone(LANE, {"shop": 1020.0})
    assert claim(book, "d2", 1019.0) == []
    assert claim(book, "d2", 1020.0) == ["shop:a", "shop:b"]
    assert book.debts.waiting(LANE) == {"shop": 2, "shop2": 2}
    assert claim(book, "d3", 5000.0)[:2] == ["shop:a", "shop:b"]


def test_the_sweep_ends_a_postponement(owing: Book) -> None:
    owing.debts.sort([LANE], 1010.0)
    owing.debts.postpone(LANE, {ENDPOINT: 9999.0})
    assert owing.debts.reowe(LANE, 1011.0, 10) == []
    assert owing.debts.sort([LANE], 1011.0).worth == {LANE: [ENDPOINT]}


def test_nothing_owed_means_no_next_visit(book: Book) -> None:
    assert book.debts.next_visit([]) is None
    assert book.debts.next_visit([LANE, OPERATIONS]) is None
    assert book.debts.sort([], 1.0).worth == {}
    assert book.debts.sort([LANE], 1.0).worth == {}
    book.debts.postpone(LANE, {})
    book.debts.postpone(LANE, {"stranger": 5.0})
    assert book.debts.next_visit([LANE]) is None


def test_more_fresh_debts_than_one_sorting_takes_stay_worth_a_visit(book: Book) -> None:
    ids = [f"x{n:05}" for n in range(SORTED_AT_ONCE + 7)]
    owe(book, ids, "shop")
    assert book.debts.next_visit([LANE]) == 1010.0
    assert book.debts.waiting(LANE) == {"shop": len(ids)}
    assert book.debts.sort([LANE], 1010.0).worth == {LANE: ["shop"]}
    assert book.connection.redis.zcard(KEYS.owed) == 7
    assert len(book.debts.claim_delivery(LANE, 1010.0, 1040.0, "d1", 9999, {"shop": 9999})) == SORTED_AT_ONCE
    assert book.debts.next_visit([LANE]) == 1010.0
    assert claim(book, "d1", 1011.0, room=9999) == [f"shop:{task_id}" for task_id in ids[-7:]]
    assert book.debts.next_visit([LANE]) == 1040.0


def test_one_sorting_serves_many_lanes(book: Book) -> None:
    other = Lane("default", "suno")
    owe(book, ["a"], "shop")
    add(book, ["a"], "art", lane=other)
    end(book, ["a"], lane=other)
    assert book.debts.sort([other, LANE, OPERATIONS], 1010.0).worth == {other: ["art"], LANE: ["shop"]}


# --- dead letters


def test_a_buried_debt_can_be_revived_with_all_its_tries(owing: Book) -> None:
    claim(owing, "d1", 1010.0)
    assert owing.debts.bury(LANE, "d1", 1011.0, [Try(DEBT, "HTTP 404", '{"at": 1}')], KEPT) == 1
    assert places(owing, DEBT) == ["dead"]
    (dead,) = owing.debts.dead(LANE)
    assert (dead.name, dead.outcome, dead.task_id, dead.at, dead.tries) == (DEBT, "HTTP 404", "a", 1011.0, 1)
    assert (dead.url, dead.endpoint, dead.log, dead.state) == (HOOK, ENDPOINT, '{"at": 1}', "dead")
    raw = owing.connection.redis
    assert 7100 < raw.ttl(KEYS.result("a")) <= 7200
    assert claim(owing, "d2", 99999.0) == []
    assert owing.debts.reopen(LANE, {DEBT: 1500.0, "stranger:a": 1500.0, f"{ENDPOINT}:b": 1.0}, dead=True) == [DEBT]
    assert owing.debts.dead(LANE) == []
    assert places(owing, DEBT) == ["retries"]
    assert claim(owing, "d2", 1499.0) == []
    assert claim(owing, "d2", 1500.0) == [DEBT]
    (debt,) = owing.debts.load(LANE, [DEBT])
    assert (debt.tries, debt.state, debt.outcome, debt.log) == (0, "owed", "HTTP 404", '{"at": 1}')
    assert {raw.ttl(key) for key in (KEYS.task("a"), KEYS.result("a"), KEYS.delivery(DEBT))} == {-1}


@pytest.mark.parametrize("dead_first", [True, False])
def test_a_dead_letter_keeps_the_record_for_its_retention_whoever_is_closed_last(owing: Book, dead_first: bool) -> None:
    add(owing, ["a"], OTHER, now=1011.0)
    other = f"{subscription_of(OTHER)}:a"
    claim(owing, "d1", 1012.0)
    if dead_first:
        bury(owing, "d1", 1013.0, DEBT)
    owing.debts.paid(LANE, "d1", 1013.0, [Try(other, "HTTP 200")], 60)
    if not dead_first:
        assert owing.connection.redis.ttl(KEYS.task("a")) == -1
        bury(owing, "d1", 1013.0, DEBT)
    assert owing.connection.redis.ttl(KEYS.task("a")) > 7000
    assert owing.connection.redis.ttl(KEYS.result("a")) > 7000
    assert owing.debts.reopen(LANE, {DEBT: 1014.0}, dead=True) == [DEBT]


def test_one_revived_after_what_it_announced_was_forgotten_stays_dead(owing: Book) -> None:
    claim(owing, "d1", 1010.0)
    bury(owing, "d1", 1011.0, DEBT)
    owing.connection.redis.delete(KEYS.task("a"))
    assert owing.debts.reopen(LANE, {DEBT: 1500.0}, dead=True) == []
    assert places(owing, DEBT) == ["dead"]


def test_dead_letters_are_listed_newest_first_page_by_page_and_forgotten_in_time(book: Book) -> None:
    debts = owe(book, [f"x{n}" for n in range(5)], "shop")
    claim(book, "d1", 1010.0, until=9999.0)
    for number, debt in enumerate(debts):
        bury(book, "d1", 1100.0 + number, debt, kept_for=100)
    pages = [[one.name for one in book.debts.dead(LANE, 2, offset)] for offset in (0, 2, 4, 6)]
    assert pages == [debts[:2:-1], debts[2:0:-1], debts[:1], []]
    assert book.debts.forget_dead(LANE, 1102.0) == 3
    assert [one.name for one in book.debts.dead(LANE)] == debts[:2:-1]


def test_a_dropped_dead_letter_is_gone_and_the_living_are_left_alone(book: Book) -> None:
    dead, paid, alive = owe(book, ["a", "b", "c"], "shop")
    claim(book, "d1", 1010.0)
    bury(book, "d1", 1011.0, dead)
    pay(book, "d1", 1011.0, paid)
    delay(book, "d1", 1100.0, alive)
    assert book.debts.drop(LANE, []) == 0
    assert book.debts.drop(LANE, [dead, paid, alive, "stranger:x"]) == 1
    assert book.debts.drop(LANE, [dead]) == 0
    assert book.debts.dead(LANE) == []
    assert [debt.tries for debt in book.debts.load(LANE, [dead, paid, alive])] == [0, 1, 1]
    assert book.debts.reopen(LANE, {dead: 1200.0}, dead=True) == []
    assert sweep(book, 1300.0, 1) == []
    assert add(book, ["a"], "shop", again=True) == ["new"]


def test_a_dead_letter_whose_record_is_forgotten_is_none_of_a_new_record(owing: Book) -> None:
    claim(owing, "d1", 1010.0)
    bury(owing, "d1", 1011.0, DEBT)
    owing.connection.redis.delete(KEYS.task("a"), KEYS.result("a"), KEYS.delivery(DEBT))  # what their time to live does
    assert owe(owing, ["a"], HOOK, now=1020.0) == [DEBT]
    assert claim(owing, "d2", 1020.0) == [DEBT]
    pay(owing, "d2", 1021.0, DEBT)
    assert owing.debts.reopen(LANE, {DEBT: 1022.0}, dead=True) == []
    assert owing.debts.dead(LANE) == []
    assert add(owing, ["a"], HOOK, again=True) == ["new"]


# --- replay


def test_what_was_paid_is_replayed_on_demand_and_keeps_its_record_again(owing: Book) -> None:
    claim(owing, "d1", 1010.0)
    assert owing.debts.reopen(LANE, {DEBT: 1.0}, dead=False) == []
    pay(owing, "d1", 1011.0, DEBT)
    assert owing.debts.reopen(LANE, {DEBT: 1.0}, dead=True) == []
    assert owing.debts.reopen(LANE, {}, dead=False) == []
    assert owing.debts.reopen(LANE, {DEBT: 1020.0, "stranger:a": 1020.0}, dead=False) == [DEBT]
    assert owing.debts.reopen(LANE, {DEBT: 1020.0}, dead=False) == []
    assert owing.connection.redis.ttl(KEYS.task("a")) == owing.connection.redis.ttl(KEYS.delivery(DEBT)) == -1
    assert add(owing, ["a"], HOOK, again=True) == ["known"]
    assert claim(owing, "d2", 1020.0) == [DEBT]
    assert pay(owing, "d1", 1021.0, DEBT) == 0
    assert pay(owing, "d2", 1021.0, DEBT) == 1
    assert owing.debts.load(LANE, [DEBT])[0].tries == 1
    assert owing.connection.redis.ttl(KEYS.task("a")) > 0


def test_a_dead_letter_is_not_replayed_as_if_it_had_been_paid(owing: Book) -> None:
    claim(owing, "d1", 1010.0)
    bury(owing, "d1", 1011.0, DEBT)
    assert owing.debts.reopen(LANE, {DEBT: 1020.0}, dead=False) == []
    assert places(owing, DEBT) == ["dead"]


def test_replays_at_different_times_are_worth_a_visit_at_the_first(book: Book) -> None:
    debts = owe(book, ["a", "b", "c"], "shop")
    claim(book, "d1", 1010.0)
    pay(book, "d1", 1011.0, *debts)
    claim(book, "d1", 1050.0)
    book.debts.reopen(LANE, dict(zip(debts, (1300.0, 1100.0, 1200.0), strict=True)), dead=False)
    assert book.debts.next_visit([LANE]) == 1100.0
    assert [claim(book, "d2", at, until=9999.0) for at in (1100.0, 1200.0, 1300.0)] == [[debts[1]], [debts[2]], [debts[0]]]


def test_what_ended_since_a_moment_is_paged_through_in_order(book: Book) -> None:
    for number in range(7):
        owe(book, [f"x{number}"], "shop", *([HOOK] if number == 3 else []), now=1010.0 + number)
    owe(book, ["quiet"], now=1012.5)
    pages = [book.debts.ended_since(LANE, 1012.0, offset, 2) for offset in (0, 2, 4, 6)]
    assert pages == [
        [("x2", 1012.0, "shop"), ("x3", 1013.0, f"shop {ENDPOINT}")],
        [("x4", 1014.0, "shop"), ("x5", 1015.0, "shop")],
        [("x6", 1016.0, "shop")],
        [],
    ]
    book.connection.redis.delete(KEYS.task("x6"))
    assert book.debts.ended_since(LANE, 1016.0, 0, 9) == [("x6", 1016.0, "")]


# --- webhooks that come late, and ids that are tracked again


def test_a_second_webhook_after_the_end_is_owed_at_once_and_brings_the_record_back_to_stay(owing: Book) -> None:
    claim(owing, "d1", 1010.0)
    pay(owing, "d1", 1011.0, DEBT)
    assert owing.connection.redis.ttl(KEYS.task("a")) > 0
    assert add(owing, ["a"], HOOK, OTHER, now=1020.0) == ["known"]
    assert owing.connection.redis.ttl(KEYS.task("a")) == owing.connection.redis.ttl(KEYS.result("a")) == -1
    other = f"{subscription_of(OTHER)}:a"
    assert claim(owing, "d2", 1020.0) == [other]
    assert owing.debts.load(LANE, [other])[0].url == OTHER
    assert pay(owing, "d2", 1021.0, other) == 1
    assert sweep(owing, 1022.0, 1) == []
    assert owing.connection.redis.ttl(KEYS.task("a")) > 0


def test_again_waits_until_everything_is_closed_and_no_dead_letter_is_left(book: Book) -> None:
    one, two = owe(book, ["a"], "shop", "shop2")
    claim(book, "d1", 1010.0)
    assert add(book, ["a"], again=True) == ["known"]
    pay(book, "d1", 1011.0, one)
    assert add(book, ["a"], again=True) == ["known"]
    bury(book, "d1", 1011.0, two)
    assert add(book, ["a"], again=True) == ["known"]
    book.debts.reopen(LANE, {two: 1012.0}, dead=True)
    assert add(book, ["a"], again=True) == ["known"]
    assert claim(book, "d2", 1012.0) == [two]
    pay(book, "d2", 1013.0, two)
    assert add(book, ["a"], "shop3", again=True) == ["new"]
    assert book.debts.reopen(LANE, {one: 1.0, two: 1.0}, dead=False) == []
    assert sweep(book, 1014.0, 1) == []
    assert end(book, ["a"], 1020.0) == ["shop3:a"]
    assert sweep(book, 1021.0, 1) == []
    assert claim(book, "d3", 1021.0) == ["shop3:a"]


def test_a_debt_of_a_lost_record_closes_nothing_of_the_new_one(book: Book) -> None:
    owe(book, ["a"], "shop", "shop2")
    book.connection.redis.delete(KEYS.task("a"))
    assert add(book, ["a"], "shop", now=1011.0) == ["new"]
    assert sorted(claim(book, "d1", 1012.0)) == ["shop2:a", "shop:a"]
    assert pay(book, "d1", 1013.0, "shop:a") == bury(book, "d1", 1013.0, "shop2:a") == 1
    raw = book.connection.redis
    assert (raw.hget(KEYS.task("a"), "closed"), raw.ttl(KEYS.task("a"))) == (None, -1)
    assert end(book, ["a"], 1020.0) == ["shop:a"]
    assert raw.ttl(KEYS.task("a")) == -1
    assert add(book, ["a"], again=True) == ["known"]
    assert claim(book, "d2", 1020.0) == ["shop:a"]


# --- the sweep


@pytest.mark.parametrize("page", [1, 2, 3, 7, 8, 100])
@pytest.mark.parametrize("loss", ["inbox", "queue", "retries", "index", "delivery", "all"])
def test_what_was_removed_by_hand_is_owed_again_whatever_the_page(book: Book, loss: str, page: int) -> None:
    raw, ids = book.connection.redis, [f"x{n}" for n in range(7)]
    debts = owe(book, ids, "shop", f"{HOOK}?job=1")
    closed = owe(book, ["paid", "dead"], "shop", now=1009.0)
    tried = [debt for debt in debts if task_of(debt) in ("x0", "x1")]
    claim(book, "d1", 1010.0)
    pay(book, "d1", 1010.0, closed[0])
    bury(book, "d1", 1010.0, closed[1])
    delay(book, "d1", 1020.0, *tried)
    fresh = owe(book, ["y0", "y1"], "shop", now=1011.0)
    queued = sorted({*debts} - {*tried})
    lost = {"inbox": fresh, "queue": queued, "retries": tried, "all": [*fresh, *queued, *tried]}.get(loss, [])
    both = ("shop", ENDPOINT)
    doomed = {
        "inbox": [KEYS.owed],
        "queue": [KEYS.queue(name) for name in both],
        "retries": [KEYS.retries(name) for name in both],
        "index": [KEYS.owing],
        "delivery": [KEYS.delivery(debt) for debt in tried],
    }
    assert raw.delete(*(chain(*doomed.values()) if loss == "all" else doomed[loss]))
    assert sorted(sweep(book, 1030.0, page)) == sorted(lost)
    assert sweep(book, 1030.0, page) == []
    for debt in lost:
        assert places(book, debt) == ["inbox"]
    taken = claim(book, "d2", 1060.0)
    assert sorted(taken) == sorted([*debts, *fresh])
    assert pay(book, "d2", 1061.0, *taken) == len(taken)
    assert sweep(book, 1062.0, page) == []
    assert places(book, closed[0]) == []
    assert places(book, closed[1]) == ["dead"]


def test_who_held_a_debt_that_was_missing_cannot_put_it_back_a_second_time(owing: Book) -> None:
    claim(owing, "d1", 1010.0)
    owing.connection.redis.delete(KEYS.queue(ENDPOINT))
    assert sweep(owing, 1011.0, 1) == [DEBT]
    assert delay(owing, "d1", 1012.0, DEBT) == pay(owing, "d1", 1012.0, DEBT) == 0
    assert places(owing, DEBT) == ["inbox"]
    assert claim(owing, "d2", 1020.0) == [DEBT]
    assert pay(owing, "d2", 1021.0, DEBT) == 1
    assert claim(owing, "d3", 9999.0) == []


def test_one_that_is_closed_between_the_look_of_the_sweep_and_its_writing_stays_closed(book: Book) -> None:
    paid, dead, still = owe(book, ["a", "b", "c"], "shop")
    claim(book, "d1", 1010.0)
    pay(book, "d1", 1011.0, paid)
    bury(book, "d1", 1011.0, dead)
    book.connection.redis.delete(KEYS.queue("shop"))
    names, args = [KEYS.owed, KEYS.owing, KEYS.debt_leases], list[object]([1012.0])
    for debt in (paid, dead, still, "shop2:a", "shop:nobody"):
        names += [KEYS.task(task_of(debt)), KEYS.queue("shop"), KEYS.retries("shop")]
        args += [debt, "shop"]
    assert book.connection.script("reowe", names, args) == [still]


def test_forgotten_ids_leave_the_index_of_the_ended_and_hold_up_nothing(book: Book) -> None:
    ids = [f"x{n}" for n in range(6)]
    debts = owe(book, ids, "shop")
    raw = book.connection.redis
    raw.delete(*(KEYS.task(task_id) for task_id in ids[:4]), KEYS.owed)
    assert [book.debts.reowe(LANE, 1011.0, 2) for _ in range(4)] == [[], [], debts[4:], []]
    assert raw.zrange(KEYS.ended, 0, -1) == ids[4:]


def test_an_unreadable_record_holds_up_no_sweep(book: Book) -> None:
    _, fine = owe(book, ["bad", "fine"], "shop")
    book.connection.redis.delete(KEYS.owed, KEYS.task("bad"))
    book.connection.redis.set(KEYS.task("bad"), "?")
    assert sweep(book, 1011.0, 1) == [
        fine,
    ]
    assert sweep(book, 1011.0, 5) == []


def test_a_pending_id_owes_nothing_whatever_it_owed_before(book: Book) -> None:
    owe(book, ["a"], "shop")
    claim(book, "d1", 1010.0)
    pay(book, "d1", 1011.0, "shop:a")
    assert add(book, ["a"], "shop", again=True) == ["new"]
    assert sweep(book, 1012.0, 1) == []
    assert book.debts.sort([LANE], 1013.0).worth.get(LANE, []) in ([], ["shop"])
    assert claim(book, "d2", 9999.0) == []


# --- waiting


def test_what_waits_is_counted_by_endpoint_wherever_it_lies(book: Book) -> None:
    assert book.debts.waiting(LANE) == {}
    owe(book, ["a", "b", "c"], "shop", f"{HOOK}?job=1", f"{HOOK}?job=2")
    assert book.debts.waiting(LANE) == {"shop": 3, ENDPOINT: 6}
    taken = claim(book, "d1", 1010.0, at_most=4)
    assert book.debts.waiting(LANE) == {"shop": 3, ENDPOINT: 6}
    delay(book, "d1", 1100.0, taken[0])
    assert book.debts.waiting(LANE) == {"shop": 3, ENDPOINT: 6}
    owe(book, ["d"], "shop", "shop2", now=1011.0)
    assert book.debts.waiting(LANE) == {"shop": 4, ENDPOINT: 6, "shop2": 1}
    assert book.view(LANE, 1011.0).owed == {"shop": 4, ENDPOINT: 6, "shop2": 1}


def test_an_endpoint_to_which_all_is_paid_is_not_counted(owing: Book) -> None:
    claim(owing, "d1", 1010.0)
    pay(owing, "d1", 1011.0, DEBT)
    assert owing.debts.waiting(LANE) == {}


# --- notices of our own


@pytest.mark.parametrize(("webhook", "url"), [("ops", ""), (f"{HOOK}?ops", f"{HOOK}?ops")])
def test_a_notice_is_owed_once_and_delivered_like_any_debt(book: Book, webhook: str, url: str) -> None:
    keys, debt = LaneKeys(OPERATIONS), f"{subscription_of(webhook)}:evt 1"
    assert book.debts.notify("evt 1", webhook, '{"type":"endpoint.disabled"}', 1000.0)
    assert not book.debts.notify("evt 1", webhook, '{"type":"other"}', 1001.0)
    assert not book.debts.notify("evt 1", "elsewhere", '{"type":"other"}', 1001.0)
    assert book.debts.sort([OPERATIONS], 1001.0).worth == {OPERATIONS: [endpoint_in(debt)]}
    assert book.debts.claim_delivery(OPERATIONS, 1001.0, 1030.0, "d1", 9, {endpoint_in(debt): 9}) == [debt]
    assert book.debts.load(OPERATIONS, [debt])[0].url == url
    loaded = book.tasks.load(OPERATIONS, ["evt 1"], with_record=True).tasks["evt 1"]
    assert (loaded.record, loaded.state, loaded.webhooks) == (
        {"type": "endpoint.disabled"},
        State.SUCCEEDED,
        (debt.split(":", maxsplit=1)[0],),
    )
    assert book.debts.paid(OPERATIONS, "d1", 1002.0, [Try(debt, "HTTP 200")], RETENTION) == 1
    assert not book.debts.notify("evt 1", webhook, "{}", 1003.0)
    assert sweep(book, 1004.0, 1, OPERATIONS) == []
    assert 3500 < book.connection.redis.ttl(keys.task("evt 1")) <= 3600


def test_a_lost_notice_is_owed_again(book: Book) -> None:
    book.debts.notify("n", "ops", "{}", 1000.0)
    book.connection.redis.delete(LaneKeys(OPERATIONS).owed)
    assert sweep(book, 1001.0, 5, OPERATIONS) == ["ops:n"]


# --- what nobody can read


DAMAGE = ["gone", "not a hash", "odd number"]


def damage_delivery(book: Book, kind: str, debt: str = DEBT) -> None:
    raw, key = book.connection.redis, KEYS.delivery(debt)
    raw.delete(key)
    if kind == "not a hash":
        raw.set(key, "?")
    elif kind == "odd number":
        raw.hset(key, mapping={"tries": "many", "state": "owed"})


@pytest.mark.parametrize("kind", DAMAGE)
def test_an_unreadable_debt_is_read_as_never_tried(owing: Book, kind: str) -> None:
    damage_delivery(owing, kind)
    (debt,) = owing.debts.load(LANE, [DEBT])
    assert (debt.url, debt.tries, debt.state) == (HOOK, 0, "owed")
    assert debt.outcome == ("" if kind == "gone" else "what was tried is unreadable")
    owing.connection.redis.delete(KEYS.task("a"))
    assert owing.debts.load(LANE, [DEBT])[0].url == ""


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("verb", ["paid", "later", "bury"])
def test_an_unreadable_debt_is_written_down_all_the_same_and_costs_the_others_nothing(book: Book, verb: str, kind: str) -> None:
    debts = owe(book, ["a", "b", "c"], HOOK)
    claim(book, "d1", 1010.0)
    damage_delivery(book, kind, debts[1])
    done = {"paid": pay, "later": delay, "bury": bury}[verb](book, "d1", 1011.0, *debts)
    assert done == 3
    assert [debt.tries for debt in book.debts.load(LANE, debts)] == [1, 1, 1]
    assert book.connection.redis.hlen(KEYS.debt_leases) == 0
    assert {tuple(places(book, debt)) for debt in debts} == {{"paid": (), "later": ("retries",), "bury": ("dead",)}[verb]}


@pytest.mark.parametrize("verb", ["paid", "bury"])
def test_a_debt_whose_record_is_unreadable_is_closed_and_costs_the_others_nothing(book: Book, verb: str) -> None:
    debts = owe(book, ["a", "b", "c"], HOOK)
    claim(book, "d1", 1010.0)
    book.connection.redis.delete(KEYS.task("b"))
    book.connection.redis.set(KEYS.task("b"), "?")
    assert {"paid": pay, "bury": bury}[verb](book, "d1", 1011.0, *debts) == 3
    again = book.debts.reopen(LANE, dict.fromkeys(debts, 1012.0), dead=verb == "bury")
    assert again == [debts[0], debts[2]]


@pytest.mark.parametrize("kind", DAMAGE)
def test_an_unreadable_dead_letter_is_listed_and_can_be_revived(owing: Book, kind: str) -> None:
    claim(owing, "d1", 1010.0)
    bury(owing, "d1", 1011.0, DEBT)
    damage_delivery(owing, kind)
    assert [debt.name for debt in owing.debts.dead(LANE)] == [DEBT]
    assert owing.debts.reopen(LANE, {DEBT: 1012.0}, dead=True) == [DEBT]
    assert claim(owing, "d2", 1012.0) == [DEBT]
    assert pay(owing, "d2", 1013.0, DEBT) == 1
    assert owing.debts.load(LANE, [DEBT])[0].tries == 1


def test_a_lane_or_a_heartbeat_that_nobody_can_read_is_passed_over(owing: Book) -> None:
    owing.connection.redis.sadd("cavendish:lanes", "nonsense", "a/b/c")
    owing.connection.redis.hset("cavendish:fleet", "x", '{"of": "another version"}')
    assert owing.tasks.lanes() == [LANE]
    assert owing.fleet.members(1000.0) == []


# --- any sequence of all that, against a small model


@dataclass
class Known:
    """What the model knows of one id: `kept` once a dead letter wanted its record, `life` its time to live."""

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
ROOMS = st.dictionaries(ENDPOINT_NAMES, st.integers(-1, 3), max_size=3) | st.just(dict.fromkeys(ENDPOINTS, 3))
TOKENS = st.sampled_from(["t1", "t2"])
PICKS = st.lists(st.integers(0, 99), min_size=1, max_size=5)
PAGES = st.integers(1, 8)
STRAY = st.sampled_from([False, False, False, True])


class Ledger(RuleBasedStateMachine):
    """The lane of our own notices, so that `notify` takes part; its time is `now`, the model says where each debt lies."""

    book: Book
    lane = OPERATIONS
    keys = LaneKeys(OPERATIONS)

    def __init__(self) -> None:
        super().__init__()
        self.raw = self.book.connection.redis
        self.raw.flushall()
        self.now = 1000.0
        self.tasks: dict[str, Known] = {}
        self.lies: dict[str, tuple[str, float]] = {}
        self.lease: dict[str, str] = {}
        self.dead: dict[str, float] = {}
        self.tries: dict[str, int] = {}
        self.excused: set[str] = set()  # endpoints that were postponed, or whose index was removed by hand

    def known(self, debt: str) -> Known:
        return self.tasks[task_of(debt)]

    def picked(self, among: Iterable[str], picks: list[int]) -> list[str]:
        names = sorted(among)
        return list(dict.fromkeys(names[pick % len(names)] for pick in picks)) if names else []

    def lying(self, endpoint: str, place: str) -> list[tuple[float, bytes, str]]:
        """In the order of Redis."""
        return sorted(
            (at, debt.encode(), debt)
            for debt, (where, at) in self.lies.items()
            if (endpoint_in(debt), where) == (endpoint, place)
        )

    def truth(self, endpoint: str) -> float | None:
        """When the first debt in the queues of an endpoint is due."""
        return min((at for place in ("queue", "retries") for at, _, _ in self.lying(endpoint, place)), default=None)

    def owe(self, debt: str) -> None:
        assert debt not in self.lies, "owed twice"
        self.lies[debt] = ("inbox", self.now)
        self.known(debt).life = None

    # --- what befalls it

    @initialize()
    def something_is_owed(self) -> None:
        self.submit(["a", "a:b"], list(HOOKS[:3]), False)
        self.finish(["a", "a:b"])

    @rule(seconds=st.sampled_from([0.5, 5.0, 31.0, 3000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(ids=IDS, hooks=SOME_HOOKS, again=st.booleans())
    def submit(self, ids: list[str], hooks: list[str], again: bool) -> None:
        answers = add(self.book, ids, *hooks, now=self.now, again=again, lane=self.lane)
        for task_id, answer in zip(ids, answers, strict=True):
            task = self.tasks.get(task_id)
            quiet = (
                task is not None
                and task.ended
                and task.closed >= {*task.hooks}
                and not any(debt_of(hook, task_id) in self.dead for hook in task.hooks)
            )
            assert answer == ("new" if task is None or (again and quiet) else "known")
            if answer == "new":
                task = self.tasks[task_id] = Known()
            assert task is not None
            for subscription in map(subscription_of, hooks):
                if subscription not in task.hooks:
                    task.hooks.append(subscription)
                    self.tries[debt_of(subscription, task_id)] = 0
                    if task.ended:
                        self.owe(debt_of(subscription, task_id))

    @rule(ids=IDS)
    def finish(self, ids: list[str]) -> None:
        pending = [task_id for task_id in ids if task_id in self.tasks and not self.tasks[task_id].ended]
        expected = [debt_of(hook, task_id) for task_id in pending for hook in self.tasks[task_id].hooks]
        assert not pending or end(self.book, pending, self.now, self.lane) == expected
        for task_id in pending:
            self.tasks[task_id].ended, self.tasks[task_id].life = True, RETENTION
        for debt in expected:
            self.owe(debt)

    @rule(number=st.integers(0, 2), hook=st.sampled_from(HOOKS))
    def notify(self, number: int, hook: str) -> None:
        task_id, debt = f"n:{number}", debt_of(subscription_of(hook), f"n:{number}")
        assert self.book.debts.notify(task_id, hook, "{}", self.now) == (task_id not in self.tasks)
        if task_id not in self.tasks:
            self.tasks[task_id] = Known(ended=True, hooks=[subscription_of(hook)])
            self.tries[debt] = 0
            self.owe(debt)

    @rule()
    def sort(self) -> None:
        worth = self.book.debts.sort([self.lane], self.now).worth.get(self.lane, [])
        inbox = {debt for debt, (place, _) in self.lies.items() if place == "inbox"}
        must = {endpoint_in(debt) for debt in inbox}
        must |= {name for name in ENDPOINTS if name not in self.excused and (self.truth(name) or self.now + 1) <= self.now}
        assert must <= {*worth} <= {*ENDPOINTS}
        assert len({*worth}) == len(worth)
        self.lies |= {debt: ("queue", self.lies[debt][1]) for debt in inbox}

    @rule(token=TOKENS, rooms=ROOMS, at_most=st.integers(0, 8), lease=st.sampled_from([0.5, 10.0, 100.0]))
    def claim(self, token: str, rooms: dict[str, int], at_most: int, lease: float) -> None:
        self.sort()
        self.taken(token, rooms, at_most, lease)

    def taken(self, token: str, rooms: dict[str, int], at_most: int, lease: float) -> list[str]:
        until, left, expected = self.now + lease, at_most, list[str]()
        taken = self.book.debts.claim_delivery(self.lane, self.now, until, token, at_most, rooms)
        room = {name: rooms[name] - sum(at > self.now for at, _, _ in self.lying(name, "queue")) for name in rooms}
        for place in ("queue", "retries"):
            due = {
                name: [debt for at, _, debt in self.lying(name, place) if at <= self.now][: max(min(room[name], left), 0)]
                for name in rooms
            }
            turns = [debts[turn] for turn in range(at_most) for debts in due.values() if turn < len(debts)][:left]
            expected, left = expected + turns, left - len(turns)
            for debt in turns:
                room[endpoint_in(debt)] -= 1
                self.lies[debt], self.lease[debt] = ("queue", until), token
        assert taken == expected
        if at_most:
            self.excused -= {*rooms}
        return taken

    @rule(verb=st.sampled_from(["paid", "later", "bury"]), token=TOKENS, picks=PICKS, stray=STRAY, wait=st.floats(0, 99))
    def answer(self, verb: str, token: str, picks: list[int], stray: bool, wait: float) -> None:
        if not self.lease:
            self.taken(token, dict.fromkeys(ENDPOINTS, 3), 4, 10.0)
        debts, wait = self.picked(self.tries if stray else self.lease, picks), round(wait, 1)
        token = token if stray or not debts else self.lease[debts[0]]
        ours = [debt for debt in debts if self.lease.get(debt) == token]
        tries, at, charged = [Try(debt, verb) for debt in debts], self.now + wait, wait < 50
        done = {
            "paid": lambda: self.book.debts.paid(self.lane, token, self.now, tries, RETENTION),
            "later": lambda: self.book.debts.later(self.lane, token, [Later(one.name, verb, "", at, charged) for one in tries]),
            "bury": lambda: self.book.debts.bury(self.lane, token, self.now, tries, KEPT),
        }[verb]()
        assert done == len(ours)
        for debt in ours:
            del self.lease[debt]
            self.lies.pop(debt)
            self.tries[debt] += verb != "later" or charged
            if verb == "later":
                self.lies[debt] = ("retries", at)
            if verb == "bury":
                self.dead[debt], self.known(debt).kept = self.now, True
            if verb != "later":
                self.known(debt).closes(debt.partition(":")[0])

    @rule(picks=PICKS, dead=st.booleans(), stray=STRAY, wait=st.sampled_from([-5.0, 0.0, 50.0]))
    def reopen(self, picks: list[int], dead: bool, stray: bool, wait: float) -> None:
        likely = self.dead if dead else {*self.tries} - {*self.lies} - {*self.dead}
        debts, at = self.picked(self.tries if stray else likely, picks), self.now + wait
        closed = [debt for debt in debts if debt.partition(":")[0] in self.known(debt).closed]
        expected = [debt for debt in closed if (debt in self.dead) == dead]
        assert self.book.debts.reopen(self.lane, dict.fromkeys(debts, at), dead=dead) == expected
        for debt in expected:
            assert debt not in self.lies
            self.lies[debt], self.tries[debt] = ("retries", at), 0
            self.dead.pop(debt, None)
            self.known(debt).closed.remove(debt.partition(":")[0])
            self.known(debt).life = None

    @rule(picks=PICKS, stray=STRAY)
    def drop(self, picks: list[int], stray: bool) -> None:
        debts = self.picked(self.tries if stray else self.dead, picks)
        dropped = [debt for debt in debts if debt in self.dead]
        assert self.book.debts.drop(self.lane, debts) == len(dropped)
        for debt in dropped:
            del self.dead[debt]
            self.tries[debt] = 0

    @rule(endpoint=ENDPOINT_NAMES, wait=st.sampled_from([None, 1.0, 500.0]))
    def postpone_or_lose_the_index(self, endpoint: str, wait: float | None) -> None:
        if wait is None:
            self.raw.zrem(self.keys.owing, endpoint)
        else:
            self.book.debts.postpone(self.lane, {endpoint: self.now + wait})
        self.excused.add(endpoint)

    # --- what an accident takes away, and the sweep that brings it back

    @rule(picks=PICKS)
    def lose_debts(self, picks: list[int]) -> None:
        for debt in self.picked((debt for debt, (place, _) in self.lies.items() if place != "lost"), picks):
            endpoint, place = endpoint_in(debt), self.lies[debt][0]
            key = {"inbox": self.keys.owed, "queue": self.keys.queue(endpoint), "retries": self.keys.retries(endpoint)}[place]
            assert self.raw.zrem(key, debt) == 1
            self.lies[debt] = ("lost", 0.0)

    @rule(picks=PICKS)
    def lose_deliveries(self, picks: list[int]) -> None:
        for debt in self.picked(self.tries, picks):
            self.raw.delete(self.keys.delivery(debt))
            self.tries[debt] = 0

    def found(self, missing: list[str]) -> None:
        assert len({*missing}) == len(missing)
        for debt in missing:
            assert self.lies[debt][0] == "lost"
            self.lies[debt] = ("inbox", self.now)
            self.lease.pop(debt, None)

    @rule()
    def forget_dead(self) -> None:
        old = [debt for debt, died in self.dead.items() if died <= self.now - KEPT]
        assert self.book.debts.forget_dead(self.lane, self.now - KEPT) == len(old)
        for debt in old:
            del self.dead[debt]

    @rule(page=PAGES)
    def sweep_a_page(self, page: int) -> None:
        self.found(self.book.debts.reowe(self.lane, self.now, page))

    @rule(page=PAGES)
    def sweep_all(self, page: int) -> None:
        self.found(sweep(self.book, self.now, page, self.lane))
        assert all(place != "lost" for place, _ in self.lies.values())
        self.excused.clear()

    # --- what holds at any time

    @invariant()
    def each_open_debt_lies_in_exactly_one_place(self) -> None:
        expected = {
            debt_of(hook, task_id)
            for task_id, task in self.tasks.items()
            if task.ended
            for hook in task.hooks
            if hook not in task.closed
        }
        assert {*self.lies} == expected
        sets = {("inbox", ""): self.keys.owed}
        sets |= {("queue", name): self.keys.queue(name) for name in ENDPOINTS}
        sets |= {("retries", name): self.keys.retries(name) for name in ENDPOINTS}
        pipe = self.raw.pipeline(transaction=False)
        for key in (*sets.values(), self.keys.dead):
            pipe.zrange(key, 0, -1, withscores=True)
        *rows, dead = pipe.execute()
        lies = [(debt, (place, at)) for (place, _), row in zip(sets, rows, strict=True) for debt, at in row]
        assert sorted(lies) == sorted(pair for pair in self.lies.items() if pair[1][0] != "lost")
        assert all(endpoint_in(debt) == name for (_, name), row in zip(sets, rows, strict=True) if name for debt, _ in row)
        assert dict(dead) == self.dead
        assert self.raw.hgetall(self.keys.debt_leases) == self.lease

    @invariant()
    def the_index_is_never_later_than_the_truth(self) -> None:
        index = dict(self.raw.zrange(self.keys.owing, 0, -1, withscores=True))
        due = {name: at for name in ENDPOINTS if name not in self.excused and (at := self.truth(name)) is not None}
        assert [name for name, at in due.items() if name not in index or index[name] > at] == []
        first = min([*due.values(), *(at for place, at in self.lies.values() if place == "inbox")], default=None)
        visit = self.book.debts.next_visit([self.lane])
        assert first is None or (visit is not None and visit <= first)

    @invariant()
    def records_live_as_long_as_anything_is_open_and_then_their_time(self) -> None:
        pipe = self.raw.pipeline(transaction=False)
        for task_id in self.tasks:
            pipe.hmget(self.keys.task(task_id), "webhooks", "closed")
            pipe.ttl(self.keys.task(task_id))
            pipe.ttl(self.keys.result(task_id))
        rows = pipe.execute()
        for task, (hooks, closed), *lives in zip(self.tasks.values(), rows[::3], rows[1::3], rows[2::3], strict=True):
            assert (hooks or "").split() == task.hooks
            assert Counter((closed or "").split()) == Counter(task.closed)
            assert lives[0] == -1 if task.life is None else task.life - 60 < lives[0] <= task.life
            assert not task.ended or lives[1] == lives[0]
        tries = {debt.name: debt.tries for debt in self.book.debts.load(self.lane, list(self.tries))}
        assert tries == self.tries

    @invariant()
    def what_waits_is_counted(self) -> None:
        if not self.excused:
            lying = Counter(endpoint_in(debt) for debt, (place, _) in self.lies.items() if place != "lost")
            assert self.book.debts.waiting(self.lane) == lying

    def teardown(self) -> None:
        """In the end, everything that was ever owed and is not dead is paid, once, and nothing is left over."""
        if not hasattr(self, "raw"):
            return
        self.sweep_all(3)
        self.finish(list(self.tasks))
        self.now += 10_000
        owed, paid = {*self.lies}, list[str]()
        while self.lies:
            self.sort()
            taken = self.taken("t1", dict.fromkeys(ENDPOINTS, 3), 8, 10.0)
            assert taken, "something is owed that nobody can claim"
            self.answer("paid", "t1", [sorted(self.lease).index(debt) for debt in taken], False, 0.0)
            paid += taken
        assert sorted(paid) == sorted(owed)
        assert self.book.debts.reowe(self.lane, self.now, 100) == []
        self.sort()
        assert self.taken("t2", dict.fromkeys(ENDPOINTS, 3), 8, 10.0) == []
        assert self.book.debts.next_visit([self.lane]) is None
        self.each_open_debt_lies_in_exactly_one_place()
        self.records_live_as_long_as_anything_is_open_and_then_their_time()
        assert all(task.life for task in self.tasks.values())


@pytest.mark.timeout(600)  # a failure is shrunk first
def test_after_any_sequence_of_events_nothing_is_lost_and_nothing_comes_back(book: Book) -> None:
    machine = type("Machine", (Ledger,), {"book": book})
    chosen = settings(max_examples=100, stateful_step_count=40, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=chosen)
