"""Tracked tasks in a real Redis: submitted once, claimed by one, settled for good."""

from __future__ import annotations

import threading

import pytest

from scheduler.endpoints import subscription_of
from scheduler.store import Book
from scheduler.store.debts import Try
from scheduler.store.keys import LaneKeys
from scheduler.submission import Wishes
from scheduler.tracking import Lane, State
from scheduler.verdicts import Outcome

LANE = Lane("default", "nano-banana")
KEYS = LaneKeys(LANE)
HOOK = "https://example.com/hook"
DEBT = f"{subscription_of(HOOK)}:a"


def wishes(*webhooks: str, again: bool = False, deadline: float = 100.0) -> Wishes:
    return Wishes("nano-banana", "default", webhooks, deadline, '{"order": 7}', "", "", again)


def add(book: Book, *ids: str, now: float = 1000.0, **options: object) -> dict[str, str]:
    hooks = options.pop("webhooks", ())
    return {name: one.outcome for name, one in book.tasks.add(ids, wishes(*hooks, **options), now, now + 2).items()}  # type: ignore[misc, arg-type]


def claim(book: Book, now: float, until: float, token: str, at_most: int = 10) -> list[str]:
    """Claim whatever is due."""
    due = [one for one in book.tasks.candidates(LANE, now, at_most) if one.due <= now]
    return book.tasks.claim(LANE, until, token, due[:at_most])


def end(book: Book, token: str, *ids: str, state: State = State.SUCCEEDED, now: float = 1010.0) -> dict[str, str]:
    loaded = book.tasks.load(LANE, ids).tasks
    outcomes = [(Outcome(loaded[name], state, record={"id": name, "response": {"success": True}}), 0.0) for name in ids]
    return {one.id: one.verdict for one in book.tasks.settle(LANE, token, now, outcomes, 3600, 100)}


def claim_debts(book: Book, token: str, now: float) -> list[str]:
    """Claim whatever is owed, of all endpoints that are worth a visit."""
    worth = book.debts.sort([LANE], now).worth.get(LANE, [])
    return book.debts.claim_delivery(LANE, now, now + 30, token, 100, dict.fromkeys(worth, 10))


def test_a_second_submit_changes_nothing_but_adds_its_webhook(book: Book) -> None:
    assert add(book, "a", "b", webhooks=(HOOK,)) == {"a": "new", "b": "new"}
    assert add(book, "b", "c", now=1050.0, webhooks=("https://other.example/x",)) == {"b": "known", "c": "new"}
    found = book.tasks.load(LANE, ["a", "b", "c"]).tasks
    assert found["b"].submitted_at == 1000.0
    assert found["b"].deadline_at == 1100.0
    assert [len(found[name].webhooks) for name in "abc"] == [1, 2, 1]
    assert found["b"].metadata == {"order": 7}


def test_thousands_of_ids_go_in_with_one_call(book: Book) -> None:
    ids = [f"id-{number}" for number in range(5000)]
    assert set(add(book, *ids).values()) == {"new"}
    assert book.connection.redis.zcard(KEYS.due("")) == 5000
    assert len(book.tasks.get("default", "nano-banana", ids)) == 5000


def test_ids_of_many_shards_are_found_again(server: object) -> None:
    sharded = Book(server.url, shards=4)  # type: ignore[attr-defined]
    sharded.connection.redis.flushall()
    ids = [f"id-{number}" for number in range(100)]
    sharded.tasks.add(ids, wishes(), 1000.0, 1002.0)
    assert len(sharded.tasks.lanes()) == 4
    assert len(sharded.tasks.get("default", "nano-banana", ids)) == 100


def test_a_claim_takes_what_is_due_and_nobody_else_gets_it(book: Book) -> None:
    add(book, "a", "b", "c")
    assert claim(book, 1001.0, 1100.0, "t1", 10) == []
    assert set(claim(book, 1002.0, 1100.0, "t1", 2)) <= {"a", "b", "c"}
    assert len(claim(book, 1002.0, 1100.0, "t2", 10)) == 1
    assert claim(book, 1002.0, 1100.0, "t3", 10) == []


def test_rival_claims_never_share_an_id(book: Book) -> None:
    ids = [f"id-{number}" for number in range(400)]
    add(book, *ids)
    taken: list[str] = []

    def rival(name: str) -> None:
        while any(one.due <= 1002.0 for one in book.tasks.candidates(LANE, 1002.0, 7)):
            taken.extend(claim(book, 1002.0, 1100.0, name, 7))

    rivals = [threading.Thread(target=rival, args=(f"t{number}",)) for number in range(4)]
    for one in rivals:
        one.start()
    for one in rivals:
        one.join()
    assert sorted(taken) == sorted(ids)


def test_an_expired_lease_is_simply_due_again_and_its_token_is_stale(book: Book) -> None:
    add(book, "a")
    claim(book, 1002.0, 1010.0, "dead", 10)
    assert claim(book, 1010.0, 1050.0, "alive", 10) == ["a"]
    assert end(book, "dead", "a") == {"a": "stale"}
    assert book.tasks.load(LANE, ["a"]).tasks["a"].state is State.PENDING
    assert end(book, "alive", "a") == {"a": "succeeded"}


def test_a_terminal_state_never_changes(book: Book) -> None:
    add(book, "a")
    claim(book, 1002.0, 1100.0, "t1", 10)
    assert end(book, "t1", "a") == {"a": "succeeded"}
    assert end(book, "t1", "a", state=State.FAILED) == {"a": "stale"}
    book.connection.redis.hset(KEYS.leases, "a", "t2 0")
    assert end(book, "t2", "a", state=State.FAILED) == {"a": "stale"}
    assert book.tasks.get("default", "nano-banana", ["a"])["a"].state is State.SUCCEEDED


def test_result_and_debts_are_one_write(book: Book) -> None:
    add(book, "a", webhooks=(HOOK, "https://other.example/x"))
    claim(book, 1002.0, 1100.0, "t1", 10)
    end(book, "t1", "a")
    task = book.tasks.get("default", "nano-banana", ["a"])["a"]
    assert task.record == {"id": "a", "response": {"success": True}}
    owed = book.connection.redis.zrange(KEYS.owed, 0, -1)
    assert sorted(owed) == sorted(f"{subscription_of(url)}:a" for url in (HOOK, "https://other.example/x"))
    assert book.connection.redis.zrange(KEYS.ended, 0, -1, withscores=True) == [("a", 1010.0)]
    assert book.connection.redis.hget(KEYS.task("a"), f"to:{subscription_of(HOOK)}") == HOOK
    assert book.connection.redis.zcard(KEYS.due("")) == book.connection.redis.zcard(KEYS.deadlines) == 0
    assert book.connection.redis.hlen(KEYS.leases) == 0
    assert book.connection.redis.xlen(KEYS.events) == 1


def test_what_is_still_owed_is_kept_and_what_is_not_is_forgotten_after_its_retention(book: Book) -> None:
    add(book, "owing", webhooks=(HOOK,))
    add(book, "quiet")
    claim(book, 1002.0, 1100.0, "t1", 10)
    end(book, "t1", "owing", "quiet")
    life = book.connection.redis.ttl
    assert life(KEYS.task("owing")) == life(KEYS.result("owing")) == -1
    assert 3500 < life(KEYS.task("quiet")) <= 3600
    assert 3500 < life(KEYS.result("quiet")) <= 3600


def test_a_webhook_that_comes_after_the_end_is_owed_at_once(book: Book) -> None:
    add(book, "a")
    claim(book, 1002.0, 1100.0, "t1", 10)
    end(book, "t1", "a")
    assert book.connection.redis.exists(KEYS.ended) == 0
    add(book, "a", now=1020.0, webhooks=(HOOK,))
    assert book.connection.redis.zrange(KEYS.owed, 0, -1, withscores=True) == [(DEBT, 1020.0)]
    assert book.connection.redis.zrange(KEYS.ended, 0, -1, withscores=True) == [("a", 1020.0)]
    assert book.connection.redis.ttl(KEYS.task("a")) == book.connection.redis.ttl(KEYS.result("a")) == -1
    assert add(book, "a", now=1021.0, webhooks=(HOOK,)) == {"a": "known"}
    assert claim_debts(book, "d1", 1030.0) == [DEBT]
    assert claim_debts(book, "d1", 1030.0) == []


def test_tracking_again_takes_an_explicit_wish_and_a_paid_debt(book: Book) -> None:
    add(book, "a", webhooks=(HOOK,))
    claim(book, 1002.0, 1100.0, "t1", 10)
    end(book, "t1", "a")
    assert add(book, "a", now=1020.0) == {"a": "known"}
    assert add(book, "a", now=1020.0, again=True) == {"a": "known"}
    assert claim_debts(book, "d1", 1020.0) == [DEBT]
    assert add(book, "a", now=1020.0, again=True) == {"a": "known"}
    book.debts.paid(LANE, "d1", 1021.0, [Try(DEBT, "HTTP 200")], 3600)
    assert add(book, "a", now=1030.0, again=True, webhooks=(HOOK,)) == {"a": "new"}
    task = book.tasks.get("default", "nano-banana", ["a"])["a"]
    assert (task.state, task.round, task.record, task.looks) == (State.PENDING, 1, None, 0)
    assert book.connection.redis.ttl(KEYS.task("a")) == -1


def test_a_release_charges_no_look_and_restores_the_due_time(book: Book) -> None:
    add(book, "a", "b")
    claim(book, 1005.0, 1100.0, "t1", 10)
    task = book.tasks.load(LANE, ["a", "b"]).tasks
    assert book.tasks.release(LANE, "t1", [task["a"]]) == 1
    assert book.tasks.release(LANE, "stranger", [task["b"]]) == 0
    assert book.tasks.release(LANE, "t1", [task["b"]], not_before=1050.0) == 1
    assert book.connection.redis.zscore(KEYS.due(""), "a") == 1002.0
    assert book.connection.redis.zscore(KEYS.due(""), "b") == 1050.0
    assert book.tasks.load(LANE, ["a"]).tasks["a"].looks == 0


@pytest.mark.parametrize("damage", ["gone", "no state", "not a hash", "odd time", "metadata"])
def test_an_unreadable_record_is_set_aside_and_the_rest_goes_on(book: Book, damage: str) -> None:
    add(book, "bad", "good")
    raw, key = book.connection.redis, KEYS.task("bad")
    match damage:
        case "gone":
            raw.delete(key)
        case "no state":
            raw.hdel(key, "state")
        case "not a hash":
            raw.delete(key)
            raw.set(key, "?")
        case "odd time":
            raw.hset(key, "submitted_at", "yesterday")
        case "metadata":
            raw.hset(key, "metadata", "{")
    ids = claim(book, 1002.0, 1100.0, "t1", 10)
    loaded = book.tasks.load(LANE, ids, token="t1")
    assert set(loaded.tasks) == {"good"}
    assert set(loaded.unreadable) == {"bad"}
    book.tasks.set_aside(LANE, loaded.unreadable)
    assert set(book.aside(LANE)) == {"bad"}
    assert claim(book, 9999.0, 19999.0, "t2", 10) == ["good"]


def test_an_overdue_id_is_taken_whatever_it_waits_for(book: Book) -> None:
    add(book, "a", deadline=10.0)
    claim(book, 1002.0, 5000.0, "t1", 10)
    assert book.tasks.overdue(LANE, 1009.0, "t2", 10) == []
    assert book.tasks.overdue(LANE, 1010.0, "t2", 10) == ["a"]
    assert end(book, "t1", "a") == {"a": "stale"}
    assert end(book, "t2", "a", state=State.EXPIRED) == {"a": "expired"}


def test_an_id_that_is_being_asked_about_is_no_candidate(book: Book) -> None:
    add(book, "a", "b")
    book.tasks.claim(LANE, 1100.0, "t1", [one for one in book.tasks.candidates(LANE, 1002.0, 10) if one.id == "a"])
    assert [one.id for one in book.tasks.candidates(LANE, 1002.0, 10)] == ["b"]
    assert {one.id for one in book.tasks.candidates(LANE, 1100.0, 10)} == {"a", "b"}


def test_a_candidate_that_somebody_else_took_is_not_claimed(book: Book) -> None:
    add(book, "a")
    seen = book.tasks.candidates(LANE, 1002.0, 10)
    assert book.tasks.claim(LANE, 1100.0, "t1", seen) == ["a"]
    assert book.tasks.claim(LANE, 1100.5, "t2", seen) == []


def test_each_producer_has_its_own_line_and_is_forgotten_when_it_is_empty(book: Book) -> None:
    for producer, ids in (("big", ["b1", "b2", "b3"]), ("small", ["s1"])):
        told = Wishes("nano-banana", "default", (), 100.0, "", "", producer, False)
        book.tasks.add(ids, told, 1000.0, 1002.0)
    assert {(one.producer, one.id) for one in book.tasks.candidates(LANE, 1002.0, 2)} >= {("small", "s1"), ("big", "b1")}
    claim(book, 1002.0, 1100.0, "t1")
    end(book, "t1", "s1")
    assert book.connection.redis.smembers(KEYS.producers) == {"big"}


def test_a_dead_letter_keeps_an_id_from_being_tracked_again_until_it_is_revived_and_paid(book: Book) -> None:
    add(book, "a", webhooks=(HOOK,))
    claim(book, 1002.0, 1100.0, "t1")
    end(book, "t1", "a")
    assert claim_debts(book, "d1", 1020.0) == [DEBT]
    book.debts.bury(LANE, "d1", 1021.0, [Try(DEBT, "HTTP 410")], 3600)
    assert add(book, "a", now=1030.0, again=True, webhooks=(HOOK,)) == {"a": "known"}
    assert book.debts.reopen(LANE, {DEBT: 1040.0}, dead=True) == [DEBT]
    assert add(book, "a", now=1040.0, again=True, webhooks=(HOOK,)) == {"a": "known"}
    assert claim_debts(book, "d2", 1040.0) == [DEBT]
    assert book.debts.paid(LANE, "d2", 1041.0, [Try(DEBT, "HTTP 200")], 3600) == 1
    assert add(book, "a", now=1050.0, again=True, webhooks=(HOOK,)) == {"a": "new"}


def test_a_record_nested_beyond_reason_ends_the_task_without_being_kept(book: Book) -> None:
    add(book, "a")
    claim(book, 1002.0, 1100.0, "t1")
    deep: list[object] = []
    for _ in range(150):
        deep = [deep]
    task = book.tasks.load(LANE, ["a"]).tasks["a"]
    book.tasks.settle(LANE, "t1", 1010.0, [(Outcome(task, State.SUCCEEDED, record={"deep": deep}), 0.0)], 3600, 100)
    found = book.tasks.get("default", "nano-banana", ["a"])["a"]
    assert found.state is State.SUCCEEDED
    assert "was not kept" in str(found.record)
