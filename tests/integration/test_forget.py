"""Forgotten ids leave nothing but counts: in Redis, and in its rewritten append-only file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cavendish import Client, Filter, State, Task
from cavendish.endpoints.webhook_endpoint import endpoint_of
from cavendish.model import Lane
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish.store.deliveries import Attempt, RetryAt
from cavendish.store.keys import LaneKeys
from conftest import Server

SERVICE, HOOK = "nano-banana", "https://example.com/hook"
LANE = Lane("default", SERVICE)


def end(store: Store, *ids: str, state: State = State.SUCCEEDED) -> None:
    """End pending ids, each with a record."""
    now = store.fleet.now()
    for start in range(0, len(ids), 500):
        some = list(ids[start : start + 500])
        store.tasks.seize(LANE, some, now, "t")
        tasks = store.tasks.load(LANE, some, token="t").tasks.values()
        outcomes = [
            (Outcome(task, state, record={"of": task.id, "text": f"SECRET-{task.id[:3]}"}), now)
            for task in tasks
        ]
        store.tasks.settle(LANE, "t", now, outcomes, 3600.0, 100)


def rewritten(store: Store) -> None:
    """Let Redis rewrite its append-only file, and wait for it."""
    redis, until = store.connection.redis, time.monotonic() + 60
    before = redis.info("persistence")["aof_rewrites"]
    redis.bgrewriteaof()
    while redis.info("persistence")["aof_rewrites"] == before:
        assert time.monotonic() < until
        time.sleep(0.05)
    while redis.info("persistence")["aof_rewrite_in_progress"]:
        time.sleep(0.05)


def everything(store: Store) -> str:
    """All keys and values of the store, as one text."""
    redis, found = store.connection.redis, []
    for key in map(str, redis.keys("*")):
        found.append(key)
        match redis.type(key):
            case "hash":
                found.append(str(redis.hgetall(key)))
            case "zset":
                found.append(str(redis.zrange(key, 0, -1, withscores=True)))
            case "set":
                found.append(str(redis.smembers(key)))
            case "list":
                found.append(str(redis.lrange(key, 0, -1)))
            case "stream":
                found.append(str(redis.xrange(key)))
            case _:
                found.append(str(redis.get(key)))
    return "\n".join(found)


@pytest.mark.parametrize("own", [0, 500])
def test_nothing_is_found_of_1000_of_10000_forgotten_ids_and_the_others_are_whole(
    client: Client, store: Store, server: Server, own: int
) -> None:
    """Metadata is short or long, of one id or of many, of ended and of pending ids."""
    secret = {
        f"id-{number}": f"SECRET-{number}-{'x' * (number % 2 * own)}" for number in range(1000)
    }
    gone = [
        Task(name, metadata={"name": text}, key=f"KEY-{name}" if name.endswith("7") else None)
        for name, text in secret.items()
    ]
    kept = [Task(f"kept-{number}", metadata={"name": f"KEPT-{number}"}) for number in range(9000)]
    client.submit([*gone[:500], *kept[:4000]], service=SERVICE, webhook=HOOK)
    client.submit([*gone[500:], *kept[4000:]], service=SERVICE)
    end(store, *list(secret)[:900], *(f"kept-{number}" for number in range(5000)))
    changes = client.forget(list(secret), service=SERVICE)
    assert {one.outcome for one in changes} == {"done"}
    text = everything(store)
    for trace in ("SECRET-i", "SECRET-1", "KEY-", "id-1'", ":id-1", "id-999"):
        assert trace not in text
    assert client.count() == 9000
    assert len(client.get_many([one.id for one in kept], service=SERVICE)) == 9000
    assert store.statistics().tracked[0].counts["submitted"] == 10_000
    rewritten(store)
    files = [path.read_bytes() for path in Path(server.folder).rglob("*.aof*")]
    assert any(b"KEPT-8999" in one for one in files)
    assert not any(b"SECRET-i" in one or b"SECRET-1" in one for one in files)


def deliveries(store: Store) -> list[str]:
    """Sort and claim what is pending; the names."""
    now = store.fleet.now()
    store.deliveries.sort([LANE], now)
    return store.deliveries.claim_delivery(LANE, now, now + 60, "d", 10, {endpoint_of(HOOK): 10})


@pytest.mark.parametrize("stage", ["new", "claimed", "to retry", "dead", "delivered"])
def test_deliveries_are_forgotten_wherever_they_are(
    client: Client, store: Store, stage: str
) -> None:
    client.submit(["a"], service=SERVICE, webhook=HOOK, metadata={"name": "SECRET"})
    end(store, "a")
    now = store.fleet.now()
    if stage != "new":
        (name,) = deliveries(store)
        log = '{"answer": "SECRET-ANSWER"}'
        if stage == "to retry":
            store.deliveries.later(LANE, "d", now, [RetryAt(name, "HTTP 500", log, now + 60)])
        elif stage == "dead":
            store.deliveries.bury(LANE, "d", now, [Attempt(name, "HTTP 500", log)], 3600)
        elif stage == "delivered":
            store.deliveries.delivered(LANE, "d", now, [Attempt(name, "HTTP 200", log)], 3600)
    assert [one.outcome for one in client.forget(["a"], service=SERVICE)] == ["done"]
    text = everything(store)
    assert "SECRET" not in text
    assert ":a'" not in text
    assert deliveries(store) == []
    assert (
        store.deliveries.delivered(LANE, "d", now, [Attempt(f"{endpoint_of(HOOK)}:a", "")], 60) == 0
    )


def test_a_pending_id_is_cancelled_and_its_webhooks_are_not_told(
    client: Client, store: Store
) -> None:
    client.submit(["a", "b"], service=SERVICE, webhook=HOOK)
    client.forget(Filter(endpoint=HOOK))
    assert client.count() == 0
    assert deliveries(store) == []
    assert store.statistics().tracked[0].counts["cancelled"] == 2
    assert store.tasks.candidates(LANE, 9e9, 10) == []
    client.submit(["a"], service=SERVICE)
    assert [task.id for task in client.iter()] == ["a"]


def test_metadata_that_others_share_stays_until_the_last_of_them_is_forgotten(
    client: Client, store: Store
) -> None:
    ids = [f"id-{number}" for number in range(20)]
    client.submit(ids, service=SERVICE, metadata={"name": "SECRET"})
    end(store, *ids)
    client.forget(ids[:19], service=SERVICE)
    task = client.get("id-19", service=SERVICE)
    assert task
    assert task.metadata == {"name": "SECRET"}
    client.forget(ids[19:], service=SERVICE)
    assert "SECRET" not in everything(store)


def test_what_a_killed_run_left_of_common_parts_goes_with_the_next_run(
    client: Client, store: Store
) -> None:
    ids = [f"id-{number}" for number in range(20)]
    client.submit(ids, service=SERVICE, metadata={"name": "SECRET"})
    end(store, *ids)
    tasks = list(store.tasks.load(LANE, ids).tasks.values())
    store.erasure.erase(LANE, tasks, [], store.fleet.now())
    assert "SECRET" in everything(store)  # as if it had been killed here
    assert {one.outcome for one in client.forget(ids, service=SERVICE)} == {"unknown"}
    assert "SECRET" not in everything(store)


def test_a_group_counts_what_was_forgotten(client: Client, store: Store) -> None:
    client.submit(["a", "b"], service=SERVICE, group="order", group_size=2)
    client.forget(["a"], service=SERVICE)
    group = client.group("order")
    assert group
    assert (group.joined, group.ended, group.counts) == (2, 1, {State.CANCELLED: 1})


def test_an_unreadable_record_can_be_forgotten(client: Client, store: Store) -> None:
    client.submit(["a", "b"], service=SERVICE)
    keys, redis = LaneKeys(LANE), store.connection.redis
    redis.delete(keys.task("a"))
    redis.set(keys.task("a"), "damaged")
    assert [one.outcome for one in client.forget(["a"], service=SERVICE)] == ["done"]
    assert redis.exists(keys.task("a"), keys.quarantined) == 0
    assert [one.id for one in store.tasks.candidates(LANE, 9e9, 10)] == ["b"]


def test_a_reader_of_events_goes_on_where_an_event_was_forgotten(
    client: Client, store: Store
) -> None:
    client.submit(["a", "b", "c"], service=SERVICE)
    end(store, "a")
    end(store, "b")
    first, _ = client.events(after="0", follow=False)
    client.forget(["b"], service=SERVICE)
    end(store, "c")
    assert [event.id for event in client.events(after=first.position, follow=False)] == ["c"]
