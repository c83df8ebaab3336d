"""Debts in a real Redis: claimed by one, then paid, tried later or buried; and revived."""

from __future__ import annotations

import pytest

from scheduler.store import Book
from scheduler.store.keys import LaneKeys
from scheduler.submission import Wishes, endpoint_of
from scheduler.tracking import Lane, State
from scheduler.verdicts import Outcome

LANE = Lane("default", "nano-banana")
KEYS = LaneKeys(LANE)
HOOK = "https://example.com/hook"
DEBT = f"{endpoint_of(HOOK)}:a"


@pytest.fixture
def owing(book: Book) -> Book:
    """A book in which the id `a` has ended, and owes one announcement."""
    book.tasks.add(["a"], Wishes("nano-banana", "default", (HOOK,), 100.0, "", "", "", False), 1000.0, 1002.0)
    book.tasks.claim(LANE, 1100.0, "t1", book.tasks.candidates(LANE, 1002.0, 10))
    task = book.tasks.load(LANE, ["a"]).tasks["a"]
    settled = book.tasks.settle(LANE, "t1", 1010.0, [(Outcome(task, State.FAILED, record={"id": "a"}), 0.0)], 3600, 100)
    assert settled[0].debts == (DEBT,)
    return book


def test_a_debt_is_claimed_by_one_and_due_again_when_the_lease_ends(owing: Book) -> None:
    assert owing.debts.claim(LANE, 1010.0, 1020.0, "d1", 10, [DEBT, "stranger:a"]) == [DEBT]
    assert owing.debts.claim(LANE, 1010.0, 1020.0, "d2", 10) == []
    assert owing.debts.claim(LANE, 1020.0, 1030.0, "d2", 10) == [DEBT]
    assert owing.debts.paid(LANE, "d1", 1021.0, [(DEBT, "HTTP 200")], 3600) == 0
    assert owing.debts.paid(LANE, "d2", 1021.0, [(DEBT, "HTTP 200")], 3600) == 1


def test_a_paid_debt_is_struck_off_and_the_record_may_be_forgotten(owing: Book) -> None:
    owing.debts.claim(LANE, 1010.0, 1020.0, "d1", 10)
    owing.debts.paid(LANE, "d1", 1011.0, [(DEBT, "HTTP 204")], 3600)
    assert owing.debts.due(LANE, 99999.0, 10) == []
    (debt,) = owing.debts.load(LANE, [DEBT])
    assert (debt.state, debt.tries, debt.outcome) == ("paid", 1, "HTTP 204")
    assert 3500 < owing.connection.redis.ttl(KEYS.task("a")) <= 3600


def test_a_later_try_is_charged_unless_the_fault_was_ours(owing: Book) -> None:
    owing.debts.claim(LANE, 1010.0, 1020.0, "d1", 10)
    owing.debts.later(LANE, "d1", [(DEBT, 1015.0, True, "HTTP 500")])
    owing.debts.claim(LANE, 1015.0, 1020.0, "d2", 10)
    owing.debts.later(LANE, "d2", [(DEBT, 1016.0, False, "no secret")])
    assert owing.debts.load(LANE, [DEBT])[0].tries == 1
    assert owing.debts.due(LANE, 1015.9, 10) == []
    assert owing.debts.due(LANE, 1016.0, 10) == [DEBT]


def test_a_buried_debt_can_be_revived_with_all_its_tries(owing: Book) -> None:
    owing.debts.claim(LANE, 1010.0, 1020.0, "d1", 10)
    owing.debts.bury(LANE, "d1", 1011.0, [(DEBT, "HTTP 410")], 7200)
    (dead,) = owing.debts.dead(LANE)
    assert (dead.name, dead.outcome, dead.task_id, dead.at) == (DEBT, "HTTP 410", "a", 1011.0)
    assert 7100 < owing.connection.redis.ttl(KEYS.result("a")) <= 7200
    assert owing.debts.revive(LANE, 1500.0, [DEBT, "stranger:a"]) == [DEBT]
    assert owing.debts.dead(LANE) == []
    assert owing.debts.due(LANE, 1500.0, 10) == [DEBT]
    assert owing.debts.load(LANE, [DEBT])[0].tries == 0
    assert owing.connection.redis.ttl(KEYS.task("a")) == -1


def test_a_payment_never_shortens_the_life_that_a_dead_letter_gave(owing: Book) -> None:
    other = "https://other.example/x"
    owing.tasks.add(["a"], Wishes("nano-banana", "default", (other,), 100.0, "", "", "", False), 1011.0, 1012.0)
    owing.debts.claim(LANE, 1012.0, 1020.0, "d1", 10)
    owing.debts.bury(LANE, "d1", 1013.0, [(DEBT, "HTTP 410")], 7200)
    owing.debts.paid(LANE, "d1", 1013.0, [(f"{endpoint_of(other)}:a", "HTTP 200")], 60)
    assert owing.connection.redis.ttl(KEYS.task("a")) > 7000


def test_one_revived_after_what_it_announced_was_forgotten_stays_dead(owing: Book) -> None:
    owing.debts.claim(LANE, 1010.0, 1020.0, "d1", 10)
    owing.debts.bury(LANE, "d1", 1011.0, [(DEBT, "HTTP 410")], 7200)
    owing.connection.redis.delete(KEYS.task("a"))
    assert owing.debts.revive(LANE, 1500.0, [DEBT]) == []


@pytest.mark.parametrize("damage", ["gone", "not a hash", "odd number"])
def test_an_unreadable_debt_is_read_as_one_without_a_url(owing: Book, damage: str) -> None:
    raw, key = owing.connection.redis, KEYS.delivery(DEBT)
    if damage == "odd number":
        raw.hset(key, "tries", "many")
    else:
        raw.delete(key)
    if damage == "not a hash":
        raw.set(key, "?")
    assert owing.debts.load(LANE, [DEBT])[0].url == ""


def test_a_lane_or_a_heartbeat_that_nobody_can_read_is_passed_over(owing: Book) -> None:
    owing.connection.redis.sadd("cavendish:lanes", "nonsense", "a/b/c")
    owing.connection.redis.hset("cavendish:fleet", "x", '{"of": "another version"}')
    assert owing.tasks.lanes() == [LANE]
    assert owing.fleet.members(1000.0) == []
