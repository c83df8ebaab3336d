"""Groups: ids that are waited for together, and the one webhook once all of them have ended."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cavendish import AsyncClient, Client, Filter, State, SubmissionError, Task, WaitTimeout
from cavendish.endpoints.endpoint_view import names_in
from cavendish.endpoints.webhook_endpoint import GROUP, is_of_group
from cavendish.errors import StoreUnavailable
from cavendish.model import Lane
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.groups import OPEN_FOR
from cavendish.store.keys import LaneKeys
from cavendish_worker.webhooks.reconcile import reconcile
from delivering import Delivering, Receiver, Served
from servers import Cluster, started
from shell import Run

SERVICE, NAME, HOUR = "nano-banana", "order 7: 水", 3600.0


def end(
    store: Store,
    *ids: str,
    state: State = State.SUCCEEDED,
    service: str = SERVICE,
    shards: int = 1,
) -> None:
    """Let the API have said how these ids ended."""
    for task_id in ids:
        lane, now = Lane.of("default", service, task_id, shards), store.fleet.now()
        waiting = store.tasks.candidates(lane, now + 1e6, 1000)
        store.tasks.claim(lane, now + 60, task_id, [one for one in waiting if one.id == task_id])
        task = store.tasks.load(lane, [task_id]).tasks[task_id]
        store.tasks.settle(lane, task_id, now, [(Outcome(task, state), 0.0)], HOUR, 100)


def told(receiver: Receiver, kind: str = "group.completed") -> list[httpx.Request]:
    """What a receiver heard of this kind."""
    return [one for one in receiver.got if json.loads(one.content)["type"] == kind]


def counts(client: Client, name: str = NAME) -> dict[str, int]:
    found = client.group(name)
    assert found is not None
    return dict(found.counts)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def hook(receiver: Receiver, served: Served) -> str:
    return served(receiver) + "/hook"


# --- the road


def test_a_group_completes_once_all_its_ids_of_several_services_have_ended(
    endpoint_index: Delivering, store: Store, client: Client, receiver: Receiver, hook: str
) -> None:
    client.submit(["a", "b"], service=SERVICE, webhook=hook, group=NAME, group_size=3)
    client.submit([Task("c", key="mine")], service="flux", group=NAME)
    end(store, "a")
    end(store, "c", service="flux", state=State.FAILED)
    endpoint_index.deliver()
    found = client.group(NAME)
    assert found is not None
    assert (found.joined, found.size, found.ended, found.completed_at) == (3, 3, 2, None)
    end(store, "b", state=State.CANCELLED)
    endpoint_index.deliver()
    endpoint_index.deliver()
    (completion,) = told(receiver)
    assert len(told(receiver, "task.succeeded")) == len(told(receiver, "task.cancelled")) == 1
    found = client.wait_group(NAME, timeout=1)
    assert json.loads(completion.content)["data"] == {
        "group": NAME,
        "account": "default",
        "size": 3,
        "counts": {"succeeded": 1, "failed": 1, "cancelled": 1},
        "first_submitted_at": found.first_submitted_at,
        "completed_at": found.completed_at,
    }
    (body,) = map(json.loads, (one.content for one in told(receiver, "task.succeeded")))
    assert body["data"]["group"] == NAME
    assert "key" not in body["data"]


def test_ids_without_group_or_key_have_the_webhook_that_they_always_had(
    endpoint_index: Delivering, store: Store, client: Client, receiver: Receiver, hook: str
) -> None:
    client.submit(["a", Task("b", key="mine")], service=SERVICE, webhook=hook)
    end(store, "a", "b")
    endpoint_index.deliver()
    bodies = {
        body["data"]["id"]: body["data"]
        for body in (json.loads(one.content) for one in receiver.got)
    }
    assert bodies["b"].keys() - bodies["a"].keys() == {"key"}
    assert bodies["b"]["key"] == "mine"


def test_a_group_is_a_label_until_a_submit_gives_its_size_which_may_be_the_last(
    endpoint_index: Delivering, store: Store, client: Client, receiver: Receiver, hook: str
) -> None:
    client.submit(["a", "b"], service=SERVICE, group=NAME)
    end(store, "a", "b")
    endpoint_index.deliver()
    assert counts(client) == {"succeeded": 2}
    with pytest.raises(WaitTimeout, match="2 of an unknown number of ids have ended"):
        client.wait_group(NAME, timeout=0)
    assert client.submit([], service=SERVICE, webhook=hook, group=NAME, group_size=2) == []
    endpoint_index.deliver()
    assert len(told(receiver)) == 1
    assert client.wait_group(NAME).size == 2


def test_a_webhook_that_joins_a_complete_group_hears_of_it_under_the_same_webhook_id(
    endpoint_index: Delivering, store: Store, client: Client, receiver: Receiver, hook: str
) -> None:
    client.submit(["a"], service=SERVICE, webhook=hook, group=NAME, group_size=1)
    end(store, "a")
    endpoint_index.deliver()
    endpoint_index.deliver()
    for _ in range(2):
        client.submit(["a"], service=SERVICE, webhook=f"{hook}?late", group=NAME, group_size=1)
    endpoint_index.deliver()
    first, late = told(receiver)
    assert first.headers["webhook-id"] == late.headers["webhook-id"]
    assert first.content == late.content


def test_a_known_id_joins_a_group_and_one_that_has_ended_is_counted(
    endpoint_index: Delivering, store: Store, client: Client, receiver: Receiver, hook: str
) -> None:
    client.submit(["a", "b"], service=SERVICE, group="first")
    end(store, "a")
    endpoint_index.deliver()
    (a, b) = client.submit(["a", "b"], service=SERVICE, webhook=hook, group=NAME, group_size=2)
    assert (a.outcome, b.outcome) == ("known", "known")
    end(store, "b")
    endpoint_index.deliver()
    endpoint_index.deliver()
    assert counts(client, "first") == counts(client) == {"succeeded": 2}
    assert len(told(receiver)) == 1
    task = client.get("a", service=SERVICE)
    assert task is not None
    assert (task.group, len(task.webhooks)) == ("first", 1)


def test_of_an_id_that_is_tracked_anew_the_first_end_counts(
    endpoint_index: Delivering, store: Store, client: Client, receiver: Receiver, hook: str
) -> None:
    options: dict[str, Any] = {"service": SERVICE, "webhook": hook, "group": NAME}
    client.submit(["a", "b"], **options, group_size=2)
    end(store, "a", state=State.EXPIRED)
    endpoint_index.deliver()
    (again,) = client.submit(["a"], **options, restart=True)
    assert again.outcome == "new"
    end(store, "a")
    endpoint_index.deliver()
    assert counts(client) == {"expired": 1}
    end(store, "b")
    endpoint_index.deliver()
    endpoint_index.deliver()
    assert len(told(receiver)) == 1
    assert counts(client) == {"succeeded": 1, "expired": 1}


# --- what is refused


def test_another_size_and_more_ids_than_the_size_are_refused_in_a_sentence_and_nothing_is_written(
    client: Client, store: Store
) -> None:
    client.submit(["a", "b"], service=SERVICE, group=NAME, group_size=2)
    for ids, size, said in (
        (["a"], 3, "has the size 2, not 3"),
        (["c"], None, "would have 3 ids with this submit, and it may have 2"),
    ):
        with pytest.raises(SubmissionError, match=said) as refused:
            client.submit(ids, service=SERVICE, group=NAME, group_size=size)
        assert "\n" not in str(refused.value)
    assert client.get("c", service=SERVICE) is None
    assert (client.group(NAME) or pytest.fail("it is gone")).joined == 2
    client.submit(["x", "y"], service=SERVICE, group="other")
    with pytest.raises(SubmissionError, match="would have 2 ids with this submit, and it may have"):
        client.submit(["x"], service=SERVICE, group="other", group_size=1)
    with pytest.raises(SubmissionError, match="it may have 10000"):
        client.submit([f"n{n}" for n in range(10_001)], service=SERVICE, group="large")
    assert client.group("large") is None
    usage = store.producer_usage.used(store.fleet.now())[""]
    assert usage.ids == 4


@pytest.mark.parametrize(
    ("group", "size", "said"),
    [
        ("", None, "printable text of 1 to 100"),
        (" x", None, "without white space around it"),
        ("x\n", None, "printable text"),
        ("x" * 101, None, "at most 100"),
        (7, None, "printable text"),
        (None, 5, "needs the name of a group"),
        ("x", 0, "whole number of 1 to 10000, not 0"),
        ("x", True, "whole number"),
        ("x", 2.0, "whole number"),
        ("x", 10_001, "whole number"),
    ],
)
def test_what_is_no_group_is_refused(client: Client, group: Any, size: Any, said: str) -> None:
    with pytest.raises(SubmissionError, match=said):
        client.submit(["a"], service=SERVICE, group=group, group_size=size)
    assert client.get("a", service=SERVICE) is None


def test_no_submit_can_name_the_lanes_in_which_groups_lie_or_their_endpoint(
    client: Client, run: Run
) -> None:
    with pytest.raises(SubmissionError, match="The service"):
        client.submit(["a"], service="+groups")
    with pytest.raises(SubmissionError, match="name of an endpoint"):
        client.submit(["a"], service=SERVICE, webhook=GROUP)
    assert run("endpoint", "add", GROUP, "https://example.com/").exit_code != 0


# --- nothing of it is lost or told twice


def test_a_group_that_was_told_twice_counts_each_id_once(
    endpoint_index: Delivering,
    store: Store,
    client: Client,
    receiver: Receiver,
    hook: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client.submit(["a", "b"], service=SERVICE, webhook=hook, group=NAME, group_size=2)
    end(store, "a")
    told_before = store.deliveries.told

    def dying(*_: object) -> int:
        raise StoreUnavailable("the process died before it could say that it had told the group")

    monkeypatch.setattr(store.deliveries, "told", dying)
    with pytest.raises(StoreUnavailable):
        endpoint_index.deliver()
    monkeypatch.setattr(store.deliveries, "told", told_before)
    lane = Lane("default", SERVICE)
    queue = LaneKeys(lane).queue(GROUP)
    (name,) = store.connection.redis.zrange(queue, 0, -1)
    store.connection.redis.zadd(queue, {name: 1})  # its lease ran out
    store.connection.redis.zadd(LaneKeys(lane).endpoint_index, {GROUP: 1})
    endpoint_index.deliver()
    assert counts(client) == {"succeeded": 1}
    end(store, "b")
    endpoint_index.deliver()
    endpoint_index.deliver()
    assert len(told(receiver)) == 1


def test_a_producer_that_died_behind_the_join_submits_again(client: Client, store: Store) -> None:
    first = client.submit([], service=SERVICE, group=NAME, group_size=2)
    assert first == []
    options = store_options(client)
    assert store.groups.join(["a", "b"], options, store.fleet.now(), HOUR) is None
    client.submit(["a", "b"], service=SERVICE, group=NAME, group_size=2)
    assert (client.group(NAME) or pytest.fail("it is gone")).joined == 2


def store_options(client: Client) -> Any:
    return client._submitter._options(SERVICE, "default", *[None] * 5, False, None, NAME, 2)


def test_what_lies_in_no_queue_reaches_its_group_and_its_receivers_by_the_reconcile_run(
    endpoint_index: Delivering, store: Store, client: Client, receiver: Receiver, hook: str
) -> None:
    client.submit(["a"], service=SERVICE, webhook=hook, group=NAME, group_size=1)
    end(store, "a")
    raw = store.connection.redis
    raw.delete(LaneKeys(Lane("default", SERVICE)).inbox)
    assert reconcile(store, "", HOUR, HOUR).restored == 2
    endpoint_index.deliver()
    assert client.wait_group(NAME, timeout=1).counts == {"succeeded": 1}
    keys = LaneKeys(store.groups.lane("default", NAME))
    raw.delete(keys.inbox)
    for key in raw.scan_iter(keys.queue("*")):
        raw.delete(key)
    reconcile(store, "", HOUR, HOUR)
    endpoint_index.deliver()
    names = {one.headers["webhook-id"] for one in told(receiver)}
    assert len(names) == 1


def test_a_damaged_group_does_not_keep_the_others_waiting(
    endpoint_index: Delivering, store: Store, client: Client
) -> None:
    client.submit(["a"], service=SERVICE, group="bad", group_size=1)
    client.submit(["b"], service=SERVICE, group=NAME, group_size=1)
    raw, key = store.connection.redis, LaneKeys(store.groups.lane("default", "bad")).task("bad")
    raw.rename(key, "kept")
    raw.set(key, "no hash")
    end(store, "a", "b")
    endpoint_index.deliver()
    assert client.wait_group(NAME, timeout=1).ended == 1
    assert client.group("bad") is None
    raw.delete(key)
    raw.rename("kept", key)  # somebody mended it, and the leases of its ends run out
    keys = LaneKeys(Lane("default", SERVICE))
    raw.zadd(keys.queue(GROUP), dict.fromkeys(raw.zrange(keys.queue(GROUP), 0, -1), 1))
    raw.zadd(keys.endpoint_index, {GROUP: 1})
    endpoint_index.deliver()
    assert client.wait_group("bad", timeout=1).ended == 1


def test_ends_are_counted_and_a_group_completes_while_memory_is_full(
    endpoint_index: Delivering, store: Store, client: Client, receiver: Receiver, hook: str
) -> None:
    client.submit(["a", "b"], service=SERVICE, webhook=hook, group=NAME, group_size=2)
    end(store, "a", "b")
    raw = store.connection.redis
    raw.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable):
            client.submit(["c"], service=SERVICE, group="other")
        endpoint_index.deliver()
        endpoint_index.deliver()
    finally:
        raw.config_set("maxmemory", 0)
    assert len(told(receiver)) == 1
    assert client.group("other") is None


# --- how long it is kept


def test_an_open_group_is_kept_for_a_week_after_the_last_deadline_and_a_complete_one_as_ended_ids(
    endpoint_index: Delivering, store: Store, client: Client, hook: str
) -> None:
    raw, keys = store.connection.redis, LaneKeys(store.groups.lane("default", NAME))
    client.submit(["a"], service=SERVICE, group=NAME, deadline=10 * HOUR, webhook=hook)
    client.submit(["b"], service=SERVICE, group=NAME, deadline=1 * HOUR, group_size=2)
    for key in (keys.task(NAME), keys.members(NAME)):
        assert 10 * HOUR + OPEN_FOR - 60 < raw.ttl(key) <= 10 * HOUR + OPEN_FOR + 1
    end(store, "a", "b")
    endpoint_index.deliver()
    endpoint_index.deliver()
    for key in (keys.task(NAME), keys.result(NAME)):
        assert 0 < raw.ttl(key) <= HOUR
    plain = LaneKeys(store.groups.lane("default", "no webhook"))
    client.submit(["c"], service=SERVICE, group="no webhook", group_size=1)
    end(store, "c")
    endpoint_index.deliver()
    for key in (plain.task("no webhook"), plain.result("no webhook")):
        assert 0 < raw.ttl(key) <= HOUR
    assert raw.ttl(LaneKeys(Lane("default", SERVICE)).task("c")) > 0
    assert not [key for key in raw.scan_iter("*:delivery:*") if is_of_group(key.split(":")[-2])]


def test_another_deadline_of_an_id_keeps_its_group_for_longer(client: Client, store: Store) -> None:
    raw, keys = store.connection.redis, LaneKeys(store.groups.lane("default", NAME))
    client.submit(["a"], service=SERVICE, group=NAME, group_size=2, deadline=60)
    client.set_deadline(["a"], 20 * 86400, service=SERVICE)
    for key in (keys.task(NAME), keys.members(NAME)):
        assert raw.ttl(key) > 20 * 86400 + OPEN_FOR - 60
    client.set_deadline(["a"], 60, service=SERVICE)
    assert raw.ttl(keys.task(NAME)) > 20 * 86400


# --- undone


@pytest.mark.parametrize("silent", [False, True])
def test_a_cancelled_id_is_an_end_for_all_its_groups_silent_or_not(
    endpoint_index: Delivering,
    store: Store,
    client: Client,
    receiver: Receiver,
    hook: str,
    silent: bool,
) -> None:
    options: dict[str, Any] = {"service": SERVICE, "webhook": hook, "group_size": 2}
    for name in (NAME, "second"):
        client.submit(["a", "b"], **options, group=name)
    client.cancel(["a"], service=SERVICE, silent=silent)
    end(store, "b")
    endpoint_index.deliver()
    endpoint_index.deliver()
    assert counts(client) == counts(client, "second") == {"succeeded": 1, "cancelled": 1}
    assert len(told(receiver, "task.cancelled")) == (not silent)
    assert len(told(receiver)) == 2


def test_a_forgotten_id_was_an_end_for_its_groups_and_nothing_names_it_any_more(
    endpoint_index: Delivering, store: Store, client: Client, receiver: Receiver, hook: str
) -> None:
    ended, pending = "the-ended-one", "the-pending-one"
    for name in (NAME, "second"):
        client.submit([ended, pending], service=SERVICE, webhook=hook, group=name, group_size=2)
    end(store, ended, state=State.FAILED)
    client.forget([ended, pending], service=SERVICE)
    raw = store.connection.redis
    named = [key for key in raw.scan_iter("*") if ended in key or pending in key]
    assert named == []
    endpoint_index.deliver()
    endpoint_index.deliver()
    assert counts(client) == counts(client, "second") == {"failed": 1, "cancelled": 1}
    assert len(told(receiver)) == 2
    assert [one.id for one in client.iter(Filter(group=NAME))] == []


def test_ids_of_a_group_are_listed_by_it_whether_it_is_their_first_or_not(client: Client) -> None:
    client.submit(["a", "b"], service=SERVICE, group="first")
    client.submit(["b", "c"], service=SERVICE, group=NAME)
    assert {task.id for task in client.iter(Filter(group=NAME))} == {"b", "c"}
    assert {task.id for task in client.iter(Filter(group="first"))} == {"a", "b"}
    assert (client.get("b", service=SERVICE) or pytest.fail("it is gone")).groups == ("first", NAME)


# --- how it shows


def test_the_endpoint_of_groups_is_no_receiver_in_any_number(
    endpoint_index: Delivering, store: Store, client: Client, run: Run
) -> None:
    client.submit(["a", "b"], service=SERVICE, group=NAME, group_size=2)
    end(store, "a", "b")
    for _ in range(2):
        found = store.statistics()
        assert found.pending_by_endpoint == {}
        assert [one.lane.service for one in found.tracked] == [SERVICE]
        assert sum(one.deliveries_pending for one in found.lanes) == 0
        assert names_in(found) == []
        store.deliveries.sort([Lane("default", SERVICE)], store.fleet.now())
    endpoint_index.deliver()
    found = store.statistics()
    assert all(one.counts["delivered"] == 0 for one in found.lanes)
    shown = json.loads(run("show", "--json", "a").stdout)
    assert (shown["group"], shown["deliveries"], shown["key"]) == (NAME, [], "")
    for words in ("status", "dead list", "endpoint list", "metrics", "list"):
        assert "+group" not in run(*words.split()).output, words
    assert {event.id for event in client.events(after="0", follow=False)} == {"a", "b"}


def test_the_commands_submit_to_a_group_show_it_and_wait_for_it(
    endpoint_index: Delivering, store: Store, client: Client, run: Run
) -> None:
    common = ("--service", SERVICE, "--group", NAME)
    unknown = run("group", NAME).exception
    assert str(unknown) == f"No group of the account 'default' is called {NAME!r}."
    assert run("submit", *common, "--group-size", "2", "a").exit_code == 0
    line = json.dumps({"id": "b", "group": NAME})
    assert run("submit", "--service", SERVICE, "-", stdin=line).exit_code == 0
    late = run("wait", "--group", NAME, "--timeout", "0", "--json")
    assert late.exit_code == 1
    assert json.loads(late.stdout)["joined"] == 2
    assert "0 of 2 ids have ended, 2 are known after 0 s" in str(late.exception)
    end(store, "a")
    end(store, "b", state=State.FAILED)
    endpoint_index.deliver()
    done = run("wait", "--group", NAME)
    assert done.exit_code == 1
    assert "1 succeeded · 1 failed" in done.stdout
    assert json.loads(run("group", NAME, "--json").stdout)["counts"] == {
        "succeeded": 1,
        "failed": 1,
    }
    assert run("wait", "--group", NAME, "a", "--service", SERVICE).exit_code == 2
    assert run("wait", "a").exit_code == 2
    client.submit(["c"], service=SERVICE, group="good", group_size=1)
    end(store, "c")
    endpoint_index.deliver()
    assert run("wait", "--group", "good").exit_code == 0


def test_a_wait_for_a_group_is_told_of_progress_and_wakes_when_it_is_complete(
    endpoint_index: Delivering, store: Store, client: Client
) -> None:
    client.submit(["a", "b"], service=SERVICE, group=NAME, group_size=2)
    seen, waiting = list[int](), threading.Event()

    def go_on() -> None:
        waiting.wait(10)
        end(store, "a", "b")
        endpoint_index.deliver()

    other = threading.Thread(target=go_on)
    other.start()

    def progress(group: Any) -> None:
        seen.append(group.ended)
        waiting.set()

    assert client.wait_group(NAME, timeout=20, progress=progress).counts == {"succeeded": 2}
    other.join()
    assert (seen[0], seen[-1]) == (0, 2)
    with pytest.raises(SubmissionError, match="No group of the account 'default'"):
        client.wait_group("nobody's", timeout=0)


async def waited(settings: Settings) -> Any:
    async with AsyncClient(settings=settings) as client:
        return await client.group(NAME), await client.wait_group(NAME, timeout=10)


def test_an_async_client_waits_for_a_group_too(
    endpoint_index: Delivering, store: Store, client: Client, settings: Settings
) -> None:
    import asyncio  # noqa: PLC0415

    client.submit(["a"], service=SERVICE, group=NAME, group_size=1)
    end(store, "a")
    endpoint_index.deliver()
    read, complete = asyncio.run(waited(settings))
    assert read == complete


# --- several slots


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with started(Cluster) as nodes:
        yield nodes


@pytest.mark.timeout(120)
def test_in_a_cluster_groups_of_several_slots_hear_of_ids_in_others(
    cluster: Cluster, served: Served, loop: Any, receiver: Receiver, hook: str
) -> None:
    shards = 4
    settings = Settings.load(
        {
            "CAVENDISH_REDIS_URL": cluster.url,
            "CAVENDISH_SHARDS": str(shards),
            "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8",
        }
    )
    store = Store(cluster.url, shards)
    bench = Delivering(store, loop)
    ids = [f"id-{n}" for n in range(12)]
    with Client(settings=settings) as client:
        for number in range(3):
            some = ids[4 * number : 4 * number + 4]
            options: dict[str, Any] = {"webhook": hook, "group": f"g{number}", "group_size": 4}
            client.submit([Task(each, key="k") for each in some], service=SERVICE, **options)
        lanes = {Lane.of("default", SERVICE, each, shards) for each in ids}
        assert len(lanes | {store.groups.lane("default", f"g{n}") for n in range(3)}) > 4
        end(store, *ids, shards=shards)
        for _ in range(3):
            bench.deliver()
        for number in range(3):
            found = client.wait_group(f"g{number}", timeout=10)
            assert found.counts == {"succeeded": 4}
        assert {task.id for task in client.find("k")} == set(ids)
    assert len(told(receiver)) == len({one.headers["webhook-id"] for one in told(receiver)}) == 3
    for transport in bench.transports.values():
        loop.run(transport.aclose(), timeout=5)
    store.close()
