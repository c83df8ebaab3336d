"""Cancel, forget and another deadline beside all that others do to the same ids at that moment."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from cavendish import Client, Filter, State, Task
from cavendish.clock import Clock
from cavendish.model import Lane
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.keys import LaneKeys
from cavendish_worker.polling.expire import ExpiryConfig, expire_overdue
from long_run import times
from servers import Cluster, started

SERVICE, HOOK = "nano-banana", "https://example.com/hook"
LANE = Lane("default", SERVICE)
KEYS = LaneKeys(LANE)


def outcomes(changes: list[Any]) -> dict[str, str]:
    return {one.id: one.outcome for one in changes}


def end(store: Store, *ids: str, by: str = "t") -> None:
    """End pending ids."""
    now = store.fleet.now()
    store.tasks.seize(LANE, ids, now, by)
    tasks = store.tasks.load(LANE, ids, token=by).tasks.values()
    ends = [(Outcome(task, State.SUCCEEDED, record={"of": task.id}), now) for task in tasks]
    store.tasks.settle(LANE, by, now, ends, 3600.0, 100)


@contextmanager
def before(owner: Any, name: str, do: Callable[[], object]) -> Iterator[None]:
    """Another process does something once, just before the next call of a step."""
    real, done = getattr(owner, name), list[object]()

    def step(*args: Any, **options: Any) -> Any:
        if not done:
            done.append(do())
        return real(*args, **options)

    setattr(owner, name, step)
    try:
        yield
    finally:
        delattr(owner, name)
    assert done


@contextmanager
def killed_at(owner: Any, name: str) -> Iterator[None]:
    """The process ends before this step."""

    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    with pytest.raises(Killed), before(owner, name, die):
        yield


def test_a_cancel_whose_lease_a_dispatcher_takes_cancels_all_the_same(
    client: Client, store: Store
) -> None:
    """A seized id stays due, so it may be claimed before it is settled: it has not ended then."""
    client.submit(["a", "b"], service=SERVICE)
    tasks = client._store.tasks
    waiting = store.tasks.candidates(LANE, 9e9, 10)
    with before(tasks, "settle", lambda: store.tasks.claim(LANE, 9e9, "next", waiting)):
        assert outcomes(client.cancel(["a"], service=SERVICE)) == {"a": "done"}
    assert (client.get("a", service=SERVICE) or pytest.fail("it is gone")).state is State.CANCELLED
    assert list(store.tasks.load(LANE, ["a", "b"], token="next").tasks) == ["b"]


def test_a_cancel_says_ended_only_of_what_has_ended(client: Client, store: Store) -> None:
    client.submit(["a"], service=SERVICE)
    with before(client._store.tasks, "settle", lambda: end(store, "a")):
        assert outcomes(client.cancel(["a"], service=SERVICE)) == {"a": "ended"}
    assert (client.get("a", service=SERVICE) or pytest.fail("it is gone")).state is State.SUCCEEDED


def test_an_id_that_gains_a_webhook_while_it_is_forgotten_is_forgotten(
    client: Client, store: Store
) -> None:
    client.submit(["a"], service=SERVICE, webhook=HOOK)
    join = lambda: client.submit(["a"], service=SERVICE, webhook=f"{HOOK}/2")  # noqa: E731
    with before(client._store.erasure, "_erase_records", join):
        assert outcomes(client.forget(["a"], service=SERVICE)) == {"a": "done"}
    assert client.get("a", service=SERVICE) is None
    assert store.connection.redis.exists(KEYS.inbox, KEYS.ended, KEYS.minutes) == 0


def test_an_id_that_is_tracked_anew_while_it_is_forgotten_is_forgotten_whole(
    client: Client, store: Store
) -> None:
    again = [Task("a", key="order-7")]
    client.submit(again, service=SERVICE)
    end(store, "a")
    anew = lambda: client.submit(again, service=SERVICE, restart=True)  # noqa: E731
    with before(client._store.erasure, "_erase_records", anew):
        assert outcomes(client.forget(["a"], service=SERVICE)) == {"a": "done"}
    assert client.find("order-7") == []
    assert store.connection.redis.exists(KEYS.own_keys, KEYS.task("a")) == 0
    assert store.tasks.candidates(LANE, 9e9, 10) == []


def test_an_id_that_is_tracked_anew_keeps_its_deadline_when_the_old_one_is_erased(
    client: Client, store: Store
) -> None:
    client.submit(["a"], service=SERVICE)
    end(store, "a")
    (old,) = store.tasks.load(LANE, ["a"]).tasks.values()
    client.submit(["a"], service=SERVICE, restart=True)
    assert store.erasure.erase(LANE, [old], [], store.fleet.now()) == set()
    (time,) = store.connection.redis.zrange(KEYS.deadlines, 0, -1)
    assert store.connection.redis.lrange(KEYS.deadline(float(time)), 0, -1) == ["a"]


@pytest.mark.parametrize("step", ["_erase_events", "_erase_deadlines", "_erase_records"])
def test_a_killed_forget_leaves_ids_that_the_next_one_forgets(
    client: Client, store: Store, step: str
) -> None:
    ids = [Task(f"id-{number}", key=f"order-{number}") for number in range(20)]
    client.submit(ids, service=SERVICE, webhook=HOOK, metadata={"name": "SECRET"})
    with killed_at(client._store.erasure, step):
        client.forget(Filter(service=SERVICE))
    assert client.count(Filter(state="cancelled")) == 20
    assert set(outcomes(client.forget(Filter(service=SERVICE))).values()) == {"done"}
    kept = {KEYS.counts, KEYS.deadlines}
    rest = {str(key) for key in store.connection.redis.keys(KEYS.counts.replace("counts", "*"))}
    assert rest <= kept | {KEYS.events}
    assert store.connection.redis.xlen(KEYS.events) == 0


def test_what_a_killed_forget_left_of_common_parts_goes_with_the_next_one_by_the_same_filter(
    client: Client, store: Store
) -> None:
    client.submit([str(n) for n in range(20)], service=SERVICE, metadata={"name": "SECRET"})
    with killed_at(client._store.erasure, "erase_common_parts"):
        client.forget(Filter(service=SERVICE))
    assert store.connection.redis.exists(KEYS.common)
    assert client.forget(Filter(service=SERVICE)) == []
    assert not store.connection.redis.exists(KEYS.common)


def test_two_forgets_at_once_erase_each_id_once(client: Client, settings: Settings) -> None:
    ids = [f"id-{number}" for number in range(times(800, 8000))]
    client.submit(ids, service=SERVICE, webhook=HOOK, metadata={"name": "SECRET"})
    said = list[dict[str, str]]()

    def forget() -> None:
        with Client(settings=settings) as other:
            said.append(outcomes(other.forget(ids, service=SERVICE)))

    threads = [threading.Thread(target=forget) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(one[each] for one in said for each in ids)["done"] == len(ids)
    assert client.count() == 0


def test_an_id_expires_no_more_once_its_deadline_is_later(client: Client, store: Store) -> None:
    """Whoever expires it has leased and read it before."""
    client.submit(["a", "b"], service=SERVICE, deadline=1)
    now = store.fleet.now() + 100
    clock = Clock(now, 0.0)
    clock.now = lambda: now  # type: ignore[method-assign]
    later = lambda: client.set_deadline(["a"], 600, service=SERVICE)  # noqa: E731
    with before(store.tasks, "settle", later):
        assert expire_overdue(store, LANE, clock, ExpiryConfig(1.0, 3600.0, 100))[0] == 1
    states = {task.id: task.state for task in client.iter()}
    assert states == {"a": State.PENDING, "b": State.EXPIRED}
    clock.now = lambda: now + 900  # type: ignore[method-assign]
    assert expire_overdue(store, LANE, clock, ExpiryConfig(1.0, 3600.0, 100))[0] == 1


def test_an_earlier_deadline_counts_whatever_deadline_was_read_before(
    client: Client, store: Store
) -> None:
    client.submit(["a"], service=SERVICE, deadline=60)
    (read,) = store.tasks.load(LANE, ["a"]).tasks.values()
    client.set_deadline(["a"], 86400, service=SERVICE)
    now = store.fleet.now()
    assert store.deadlines.overdue(LANE, now + 300, "", 10) == []  # it waits for the new one
    assert store.tasks.set_deadline(LANE, [read], now + 600, now) == ["a"]
    assert store.deadlines.first([LANE])[0] == pytest.approx(now + 600, abs=30)


def test_what_waits_under_a_filter_is_cancelled_while_other_ids_come(
    client: Client, settings: Settings
) -> None:
    count = times(3000, 100_000)
    client.submit([f"old-{number}" for number in range(count)], service=SERVICE)
    come, stopped = list[str](), threading.Event()

    def submit() -> None:
        with Client(settings=settings) as other:
            while not stopped.is_set():
                ids = [f"new-{len(come) + number}" for number in range(50)]
                other.submit(ids, service=SERVICE)
                come.extend(ids)

    thread = threading.Thread(target=submit)
    thread.start()
    changes = client.cancel(Filter(service=SERVICE))
    stopped.set()
    thread.join()
    done = [one.id for one in changes]
    assert len(done) == len({*done})
    assert {each for each in done if each.startswith("old-")} == {
        f"old-{number}" for number in range(count)
    }
    assert {one.outcome for one in changes} == {"done"}
    states = Counter(task.state for task in client.iter())
    assert states == {State.CANCELLED: len(done), State.PENDING: count + len(come) - len(done)}


def test_a_full_redis_takes_cancels_deadlines_and_forgets(client: Client, store: Store) -> None:
    ids = [Task(f"id-{number}", key=f"order-{number}") for number in range(30)]
    more = {"webhook": HOOK, "metadata": {"name": "x" * 600}, "group": "g", "group_size": 30}
    client.submit(ids, service=SERVICE, **more)  # type: ignore[arg-type]
    redis = store.connection.redis
    redis.config_set("maxmemory", "1")
    try:
        some = [f"id-{number}" for number in range(10)]
        assert set(outcomes(client.cancel(some, service=SERVICE)).values()) == {"done"}
        assert set(outcomes(client.set_deadline(Filter(), 900)).values()) == {"done"}
        assert set(outcomes(client.forget(some, service=SERVICE)).values()) == {"done"}
        assert len(client.forget(Filter())) == 20
        assert client.count() == 0
        assert redis.exists(KEYS.minutes, KEYS.common, KEYS.own_keys, KEYS.leases) == 0
        assert (client.group("g") or pytest.fail("it is gone")).completed_at
    finally:
        redis.config_set("maxmemory", "0")


def test_the_lanes_of_a_cluster_are_changed_one_by_one() -> None:
    with started(Cluster) as cluster:
        settings = Settings.load(
            {
                "CAVENDISH_REDIS_URL": cluster.url,
                "CAVENDISH_SHARDS": "8",
                "CAVENDISH_WAIT_REPLICAS": "1",
            }
        )
        with Client(settings=settings) as client:
            ids = [Task(f"id-{number}", key=f"order-{number}") for number in range(200)]
            more = {"webhook": HOOK, "metadata": {"n": "SECRET"}, "group": "g", "group_size": 200}
            client.submit(ids, service=SERVICE, **more)  # type: ignore[arg-type]
            some = [f"id-{number}" for number in range(60)]
            assert set(outcomes(client.cancel(some, service=SERVICE)).values()) == {"done"}
            assert len(client.set_deadline(Filter(group="g"), 900)) == 140
            assert set(outcomes(client.forget(some, service=SERVICE)).values()) == {"done"}
            assert len(client.forget(Filter(group="g"))) == 140
            assert client.count() == 0
            group = client.group("g")
            assert group
            assert group.completed_at
            assert group.counts == {State.CANCELLED: 200}


def test_whatever_several_do_to_an_id_at_once_it_is_whole_or_gone(
    client: Client, store: Store, settings: Settings
) -> None:
    """Submits, ends, cancels, deadlines and forgets of the same few ids, each in a thread."""
    ids, failed = [f"id-{number}" for number in range(6)], list[Exception]()
    again: dict[str, Any] = {"service": SERVICE, "webhook": HOOK, "restart": True}
    verbs: list[Callable[[Client, list[str]], object]] = [
        lambda one, some: one.submit([Task(each, key=f"of-{each}") for each in some], **again),
        lambda one, some: one.submit([Task(each, key=f"of-{each}") for each in some], **again),
        lambda one, some: one.cancel(some, service=SERVICE, silent=len(some) > 3),
        lambda one, some: one.set_deadline(some, 60 + len(some), service=SERVICE),
        lambda one, some: one.forget(some, service=SERVICE),
        lambda one, some: end(one._store, *some, by=f"t{threading.get_ident()}"),
    ]

    def live(seed: int) -> None:
        chance = Random(seed)
        try:
            with Client(settings=settings) as one:
                for _ in range(times(60, 600)):
                    chance.choice(verbs)(one, chance.sample(ids, chance.randint(1, 6)))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=live, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    tasks = list(client.iter())
    assert len(tasks) == len({task.id for task in tasks})
    assert {task.id for task in tasks} == client.get_many(ids, service=SERVICE).keys()
    found = [[one.id for one in client.find(f"of-{task.id}")] for task in tasks]
    assert found == [[task.id] for task in tasks]
    waiting = {one.id for one in store.tasks.candidates(LANE, 9e9, 10)}
    assert waiting == {task.id for task in tasks if not task.state.terminal}
    client.forget(ids, service=SERVICE)
    redis = store.connection.redis
    assert redis.exists(KEYS.inbox, KEYS.ended, KEYS.own_keys, KEYS.minutes, KEYS.common_open) == 0
    assert [key for key in redis.keys("*") if ":task:" in str(key)] == []
