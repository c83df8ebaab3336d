"""Tracked tasks in a real Redis: submitted once, claimed by one, settled for good."""

from __future__ import annotations

import threading

import pytest

from cavendish.endpoints.webhook_endpoint import subscription_of
from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish.store.deliveries import Attempt
from cavendish.store.keys import LaneKeys
from cavendish.submission import SubmitOptions

LANE = Lane("default", "nano-banana")
KEYS = LaneKeys(LANE)
HOOK = "https://example.com/hook"
DELIVERY = f"{subscription_of(HOOK)}:a"


def options(*webhooks: str, restart: bool = False, deadline: float = 100.0) -> SubmitOptions:
    return SubmitOptions(
        "nano-banana", "default", webhooks, deadline, '{"order": 7}', "", "", restart
    )


def add(store: Store, *ids: str, now: float = 1000.0, **more: object) -> dict[str, str]:
    hooks = more.pop("webhooks", ())
    return {
        name: one.outcome
        for name, one in store.tasks.add(ids, options(*hooks, **more), now, now + 2).items()
    }  # type: ignore[misc, arg-type]


def claim(store: Store, now: float, until: float, token: str, at_most: int = 10) -> list[str]:
    """Claim whatever is due."""
    due = [one for one in store.tasks.candidates(LANE, now, at_most) if one.due <= now]
    return store.tasks.claim(LANE, until, token, due[:at_most])


def end(
    store: Store, token: str, *ids: str, state: State = State.SUCCEEDED, now: float = 1010.0
) -> dict[str, str]:
    loaded = store.tasks.load(LANE, ids).tasks
    outcomes = [
        (Outcome(loaded[name], state, record={"id": name, "response": {"success": True}}), 0.0)
        for name in ids
    ]
    return {
        one.id: one.verdict for one in store.tasks.settle(LANE, token, now, outcomes, 3600, 100)
    }


def claim_deliveries(store: Store, token: str, now: float) -> list[str]:
    """Claim whatever is pending, of all endpoints that are worth a visit."""
    worth = store.deliveries.sort([LANE], now).worth.get(LANE, [])
    return store.deliveries.claim_delivery(
        LANE, now, now + 30, token, 100, dict.fromkeys(worth, 10)
    )


def test_a_second_submit_changes_nothing_but_adds_its_webhook(store: Store) -> None:
    assert add(store, "a", "b", webhooks=(HOOK,)) == {"a": "new", "b": "new"}
    assert add(store, "b", "c", now=1050.0, webhooks=("https://other.example/x",)) == {
        "b": "known",
        "c": "new",
    }
    found = store.tasks.load(LANE, ["a", "b", "c"]).tasks
    assert found["b"].submitted_at == 1000.0
    assert found["b"].deadline_at == 1100.0
    assert [len(found[name].webhooks) for name in "abc"] == [1, 2, 1]
    assert found["b"].metadata == {"order": 7}


def test_thousands_of_ids_go_in_with_one_call(store: Store) -> None:
    ids = [f"id-{number}" for number in range(5000)]
    assert set(add(store, *ids).values()) == {"new"}
    assert store.connection.redis.zcard(KEYS.due("")) == 5000
    assert len(store.tasks.get("default", "nano-banana", ids)) == 5000


def test_ids_of_many_shards_are_found_again(server: object) -> None:
    sharded = Store(server.url, shards=4)  # type: ignore[attr-defined]
    sharded.connection.redis.flushall()
    ids = [f"id-{number}" for number in range(100)]
    sharded.tasks.add(ids, options(), 1000.0, 1002.0)
    assert len(sharded.tasks.lanes()) == 4
    assert len(sharded.tasks.get("default", "nano-banana", ids)) == 100


def test_a_claim_takes_what_is_due_and_nobody_else_gets_it(store: Store) -> None:
    add(store, "a", "b", "c")
    assert claim(store, 1001.0, 1100.0, "t1", 10) == []
    assert set(claim(store, 1002.0, 1100.0, "t1", 2)) <= {"a", "b", "c"}
    assert len(claim(store, 1002.0, 1100.0, "t2", 10)) == 1
    assert claim(store, 1002.0, 1100.0, "t3", 10) == []


def test_rival_claims_never_share_an_id(store: Store) -> None:
    ids = [f"id-{number}" for number in range(400)]
    add(store, *ids)
    taken: list[str] = []

    def rival(name: str) -> None:
        while any(one.due <= 1002.0 for one in store.tasks.candidates(LANE, 1002.0, 7)):
            taken.extend(claim(store, 1002.0, 1100.0, name, 7))

    rivals = [threading.Thread(target=rival, args=(f"t{number}",)) for number in range(4)]
    for one in rivals:
        one.start()
    for one in rivals:
        one.join()
    assert sorted(taken) == sorted(ids)


def test_an_expired_lease_is_simply_due_again_and_its_token_is_stale(store: Store) -> None:
    add(store, "a")
    claim(store, 1002.0, 1010.0, "dead", 10)
    assert claim(store, 1010.0, 1050.0, "alive", 10) == ["a"]
    assert end(store, "dead", "a") == {"a": "stale"}
    assert store.tasks.load(LANE, ["a"]).tasks["a"].state is State.PENDING
    assert end(store, "alive", "a") == {"a": "succeeded"}


def test_a_terminal_state_never_changes(store: Store) -> None:
    add(store, "a")
    claim(store, 1002.0, 1100.0, "t1", 10)
    assert end(store, "t1", "a") == {"a": "succeeded"}
    assert end(store, "t1", "a", state=State.FAILED) == {"a": "stale"}
    store.connection.redis.hset(KEYS.leases, "a", "t2 0")
    assert end(store, "t2", "a", state=State.FAILED) == {"a": "stale"}
    assert store.tasks.get("default", "nano-banana", ["a"])["a"].state is State.SUCCEEDED


def test_result_and_deliveries_are_one_write(store: Store) -> None:
    add(store, "a", webhooks=(HOOK, "https://other.example/x"))
    claim(store, 1002.0, 1100.0, "t1", 10)
    end(store, "t1", "a")
    task = store.tasks.get("default", "nano-banana", ["a"])["a"]
    assert task.record == {"id": "a", "response": {"success": True}}
    inbox = store.connection.redis.zrange(KEYS.inbox, 0, -1)
    assert sorted(inbox) == sorted(
        f"{subscription_of(url)}:a" for url in (HOOK, "https://other.example/x")
    )
    assert store.connection.redis.zrange(KEYS.ended, 0, -1, withscores=True) == [("a", 1010.0)]
    assert store.connection.redis.hget(KEYS.task("a"), f"to:{subscription_of(HOOK)}") == HOOK
    assert (
        store.connection.redis.zcard(KEYS.due(""))
        == store.connection.redis.scard(KEYS.producers)
        == 0
    )
    assert store.connection.redis.hlen(KEYS.leases) == 0
    assert store.connection.redis.xlen(KEYS.events) == 1


def test_what_is_still_pending_is_kept_and_what_is_not_is_forgotten_after_its_retention(
    store: Store,
) -> None:
    add(store, "endpoint-index", webhooks=(HOOK,))
    add(store, "quiet")
    claim(store, 1002.0, 1100.0, "t1", 10)
    end(store, "t1", "endpoint-index", "quiet")
    life = store.connection.redis.ttl
    assert life(KEYS.task("endpoint-index")) == life(KEYS.result("endpoint-index")) == -1
    assert 3500 < life(KEYS.task("quiet")) <= 3600
    assert 3500 < life(KEYS.result("quiet")) <= 3600


def test_a_webhook_that_comes_after_the_end_is_pending_at_once(store: Store) -> None:
    add(store, "a")
    claim(store, 1002.0, 1100.0, "t1", 10)
    end(store, "t1", "a")
    assert store.connection.redis.exists(KEYS.ended) == 0
    add(store, "a", now=1020.0, webhooks=(HOOK,))
    assert store.connection.redis.zrange(KEYS.inbox, 0, -1, withscores=True) == [(DELIVERY, 1020.0)]
    assert store.connection.redis.zrange(KEYS.ended, 0, -1, withscores=True) == [("a", 1020.0)]
    assert (
        store.connection.redis.ttl(KEYS.task("a"))
        == store.connection.redis.ttl(KEYS.result("a"))
        == -1
    )
    assert add(store, "a", now=1021.0, webhooks=(HOOK,)) == {"a": "known"}
    assert claim_deliveries(store, "d1", 1030.0) == [DELIVERY]
    assert claim_deliveries(store, "d1", 1030.0) == []


def test_tracking_again_takes_an_explicit_wish_and_a_delivered_delivery(store: Store) -> None:
    add(store, "a", webhooks=(HOOK,))
    claim(store, 1002.0, 1100.0, "t1", 10)
    end(store, "t1", "a")
    assert add(store, "a", now=1020.0) == {"a": "known"}
    assert add(store, "a", now=1020.0, restart=True) == {"a": "known"}
    assert claim_deliveries(store, "d1", 1020.0) == [DELIVERY]
    assert add(store, "a", now=1020.0, restart=True) == {"a": "known"}
    store.deliveries.delivered(LANE, "d1", 1021.0, [Attempt(DELIVERY, "HTTP 200")], 3600)
    assert add(store, "a", now=1030.0, restart=True, webhooks=(HOOK,)) == {"a": "new"}
    task = store.tasks.get("default", "nano-banana", ["a"])["a"]
    assert (task.state, task.restarts, task.record, task.polls) == (State.PENDING, 1, None, 0)
    assert store.connection.redis.ttl(KEYS.task("a")) == -1


def test_a_release_charges_no_poll_and_restores_the_due_time(store: Store) -> None:
    add(store, "a", "b")
    claim(store, 1005.0, 1100.0, "t1", 10)
    task = store.tasks.load(LANE, ["a", "b"]).tasks
    assert store.tasks.release(LANE, "t1", [task["a"]], 1001.0) == 1
    assert store.tasks.release(LANE, "stranger", [task["b"]], 1001.0) == 0
    assert store.tasks.release(LANE, "t1", [task["b"]], 1001.0, not_before=1050.0) == 1
    assert store.connection.redis.zscore(KEYS.due(""), "a") == 1002.0
    assert store.connection.redis.zscore(KEYS.due(""), "b") == 1050.0
    assert store.tasks.load(LANE, ["a"]).tasks["a"].polls == 0


@pytest.mark.parametrize("damage", ["gone", "odd state", "not a hash", "odd time", "metadata"])
def test_an_unreadable_record_is_set_aside_and_the_rest_goes_on(store: Store, damage: str) -> None:
    add(store, "bad", "good")
    raw, key = store.connection.redis, KEYS.task("bad")
    match damage:
        case "gone":
            raw.delete(key)
        case "odd state":
            raw.hset(key, "state", "marinating")
        case "not a hash":
            raw.delete(key)
            raw.set(key, "?")
        case "odd time":
            raw.hset(key, "submitted_at", "yesterday")
        case "metadata":
            raw.hset(key, "metadata", "{")
    ids = claim(store, 1002.0, 1100.0, "t1", 10)
    loaded = store.tasks.load(LANE, ids, token="t1")
    assert set(loaded.tasks) == {"good"}
    assert set(loaded.unreadable) == {"bad"}
    store.tasks.quarantine(LANE, loaded.unreadable)
    assert set(store.tasks.quarantined(LANE)) == {"bad"}
    assert claim(store, 9999.0, 19999.0, "t2", 10) == ["good"]


def test_an_overdue_id_is_taken_whatever_it_waits_for(store: Store) -> None:
    add(store, "a", deadline=10.0)
    claim(store, 1002.0, 5000.0, "t1", 10)
    assert store.deadlines.overdue(LANE, 1009.0, "t2", 10) == []
    assert store.deadlines.overdue(LANE, 1010.0, "t2", 10) == ["a"]
    assert end(store, "t1", "a") == {"a": "stale"}
    assert end(store, "t2", "a", state=State.EXPIRED) == {"a": "expired"}


def test_an_id_that_is_being_asked_about_is_no_candidate(store: Store) -> None:
    add(store, "a", "b")
    store.tasks.claim(
        LANE,
        1100.0,
        "t1",
        [one for one in store.tasks.candidates(LANE, 1002.0, 10) if one.id == "a"],
    )
    assert [one.id for one in store.tasks.candidates(LANE, 1002.0, 10)] == ["b"]
    assert {one.id for one in store.tasks.candidates(LANE, 1100.0, 10)} == {"a", "b"}


def test_a_candidate_that_somebody_else_took_is_not_claimed(store: Store) -> None:
    add(store, "a")
    seen = store.tasks.candidates(LANE, 1002.0, 10)
    assert store.tasks.claim(LANE, 1100.0, "t1", seen) == ["a"]
    assert store.tasks.claim(LANE, 1100.5, "t2", seen) == []


def test_each_producer_has_its_own_line_and_is_forgotten_when_it_is_empty(store: Store) -> None:
    for producer, ids in (("big", ["b1", "b2", "b3"]), ("small", ["s1"])):
        told = SubmitOptions("nano-banana", "default", (), 100.0, "", "", producer, False)
        store.tasks.add(ids, told, 1000.0, 1002.0)
    assert {(one.producer, one.id) for one in store.tasks.candidates(LANE, 1002.0, 2)} >= {
        ("small", "s1"),
        ("big", "b1"),
    }
    claim(store, 1002.0, 1100.0, "t1")
    end(store, "t1", "s1")
    assert store.connection.redis.smembers(KEYS.producers) == {"big"}


def test_a_dead_letter_keeps_an_id_from_being_tracked_again_until_it_is_revived_and_delivered(
    store: Store,
) -> None:
    add(store, "a", webhooks=(HOOK,))
    claim(store, 1002.0, 1100.0, "t1")
    end(store, "t1", "a")
    assert claim_deliveries(store, "d1", 1020.0) == [DELIVERY]
    store.deliveries.bury(LANE, "d1", 1021.0, [Attempt(DELIVERY, "HTTP 410")], 3600)
    assert add(store, "a", now=1030.0, restart=True, webhooks=(HOOK,)) == {"a": "known"}
    assert store.closed.reopen(LANE, {DELIVERY: 1040.0}, dead=True) == [DELIVERY]
    assert add(store, "a", now=1040.0, restart=True, webhooks=(HOOK,)) == {"a": "known"}
    assert claim_deliveries(store, "d2", 1040.0) == [DELIVERY]
    assert (
        store.deliveries.delivered(LANE, "d2", 1041.0, [Attempt(DELIVERY, "HTTP 200")], 3600) == 1
    )
    assert add(store, "a", now=1050.0, restart=True, webhooks=(HOOK,)) == {"a": "new"}


def test_a_record_nested_beyond_reason_ends_the_task_without_being_kept(store: Store) -> None:
    add(store, "a")
    claim(store, 1002.0, 1100.0, "t1")
    deep: list[object] = []
    for _ in range(150):
        deep = [deep]
    task = store.tasks.load(LANE, ["a"]).tasks["a"]
    store.tasks.settle(
        LANE,
        "t1",
        1010.0,
        [(Outcome(task, State.SUCCEEDED, record={"deep": deep}), 0.0)],
        3600,
        100,
    )
    found = store.tasks.get("default", "nano-banana", ["a"])["a"]
    assert found.state is State.SUCCEEDED
    assert "was not kept" in str(found.record)
