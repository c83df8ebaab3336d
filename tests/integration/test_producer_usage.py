"""The quota of a producer, over all its lanes and through each door, in a real Redis."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from cavendish import Client, QuotaExceeded
from cavendish.errors import StoreUnavailable
from cavendish.model import Lane, State
from cavendish.policy.producer_quota import (
    DELIVERY_BYTES,
    HOUR,
    ID_BYTES,
    HourlyUsage,
    ProducerQuota,
    Usage,
)
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store, keys
from cavendish_worker.celeryapp.submit_message import take_in
from cavendish_worker.cli import cli
from cavendish_worker.telemetry import snapshot
from cavendish_worker.telemetry.metrics import scraped, serving
from conftest import Server
from servers import Cluster, started

SERVICE = "nano-banana"
LANE = Lane("default", SERVICE)


def client_of(store: Store, ids: int = 0, size: int = 0) -> Client:
    """A client whose settings allow each producer so many ids and bytes."""
    return Client(
        settings=replace(
            Settings.load({}),
            redis_url=store.connection._url,
            producer_ids=ids,
            producer_bytes=size,
        )
    )


def used(store: Store, producer: str = "shop", after: float = 0.0) -> Usage:
    return store.producer_usage.used(store.fleet.now() + after).get(producer, Usage(0, 0))


def test_a_quota_holds_over_all_services_and_accounts_and_each_producer_has_its_own(
    store: Store,
) -> None:
    with client_of(store, ids=3) as client:
        client.submit(["a", "b"], service=SERVICE, producer="shop")
        client.submit(["a"], service="flux", account="other", producer="shop")
        with pytest.raises(QuotaExceeded, match=r"producer 'shop' has 3 of 3 ids .* 1 more"):
            client.submit(["c"], service=SERVICE, producer="shop")
        client.submit(["c", "d", "e"], service=SERVICE)
        with pytest.raises(QuotaExceeded, match="producer without a name has 3 of 3 ids"):
            client.submit(["f"], service="flux")


def test_a_submit_is_refused_as_a_whole_and_may_be_repeated_at_any_time(store: Store) -> None:
    with client_of(store, ids=3) as client:
        with pytest.raises(QuotaExceeded, match="has 0 of 3 ids"):
            client.submit(["a", "b", "c", "d"], service=SERVICE, producer="shop")
        assert store.tasks.get("default", SERVICE, ["a", "b", "c", "d"]) == {}
        assert used(store) == Usage(0, 0)
        for outcome in ("new", "known", "known"):
            answers = client.submit(["a", "b", "c"], service=SERVICE, producer="shop")
            assert {answer.outcome for answer in answers} == {outcome}
            assert used(store) == Usage(3, 3 * ID_BYTES)
        with pytest.raises(QuotaExceeded, match=r"has 3 of 3 ids .* for 1 more"):
            client.submit(["a", "b", "c", "d"], service=SERVICE, producer="shop")


def test_a_quota_of_bytes_counts_ids_deliveries_metadata_and_urls(store: Store) -> None:
    hooks, metadata = ["https://example.com/a", "https://example.com/b"], {"note": "x" * 1000}
    size = 2 * (ID_BYTES + 2 * DELIVERY_BYTES) + len(json.dumps(metadata)) - 1 + 2 * len(hooks[0])
    with client_of(store, size=size) as client:
        told: dict[str, Any] = {"service": SERVICE, "producer": "shop", "webhook": hooks}
        client.submit(["a", "b"], **told, metadata=metadata)
        assert used(store) == Usage(2, size)
        with pytest.raises(QuotaExceeded, match=r"bytes .*\(CAVENDISH_PRODUCER_BYTES\)"):
            client.submit(["c"], **told)


def test_a_submit_that_is_repeated_counts_once_and_has_room_where_it_filled_the_quota(
    store: Store,
) -> None:
    metadata = {"note": "x" * 1000}
    size = ID_BYTES + len(json.dumps(metadata)) - 1
    told: dict[str, Any] = {"service": SERVICE, "producer": "shop", "metadata": metadata}
    for most in (size, 100 * size):
        with client_of(store, size=most) as client:
            for _ in range(3):
                client.submit(["a"], **told)
                assert used(store) == Usage(1, size)


def test_a_count_that_is_damaged_begins_anew_and_stops_no_submit(store: Store) -> None:
    store.connection.redis.set(keys.usage("shop"), "?")
    with client_of(store, ids=1) as client:
        client.submit(["a"], service=SERVICE, producer="shop")
    assert used(store).ids == 1


def test_without_a_limit_nothing_is_counted(store: Store) -> None:
    with client_of(store) as client:
        client.submit(["a"], service=SERVICE, producer="shop")
    assert store.connection.redis.exists(keys.PRODUCERS, keys.usage("shop")) == 0


def test_an_id_counts_until_its_deadline_and_if_it_ends_until_its_record_is_gone(
    store: Store,
) -> None:
    with client_of(store, ids=10) as client:
        client.submit(["a", "b"], service=SERVICE, producer="shop", deadline=2 * HOUR)
    assert [used(store, after=hours * HOUR).ids for hours in (0, 1.9, 3.1)] == [2, 2, 0]
    now = store.fleet.now()
    due = [one for one in store.tasks.candidates(LANE, now + 1e6, 9) if one.id == "a"]
    store.tasks.claim(LANE, now + 100, "t", due)
    task = store.tasks.load(LANE, ["a"]).tasks["a"]
    outcome = Outcome(task, State.SUCCEEDED, record={"id": "a"})
    store.tasks.settle(LANE, "t", now, [(outcome, 0.0)], 10 * HOUR, 100)
    assert [used(store, after=hours * HOUR).ids for hours in (0, 3.1, 11.1)] == [2, 1, 0]
    assert used(store, after=3.1 * HOUR).bytes == ID_BYTES + len('{"id":"a"}')


def test_an_id_that_another_process_has_ended_meanwhile_counts_as_one_end(store: Store) -> None:
    """It is counted in the step that settles, before anybody knows that it comes too late."""
    ends_count_once(store)


def test_in_a_cluster_it_does_so_too() -> None:
    """There another primary counts, and only when the end is written: it may be away."""
    with started(Cluster) as cluster:
        ends_count_once(Store(cluster.url))


def ends_count_once(store: Store) -> None:
    with client_of(store, ids=10) as client:
        client.submit(["a", "b"], service=SERVICE, producer="shop", deadline=2 * HOUR)
    now = store.fleet.now()
    store.tasks.claim(LANE, now + 100, "t", store.tasks.candidates(LANE, now + 1e6, 9))
    tasks = store.tasks.load(LANE, ["a", "b"]).tasks
    ends = [(Outcome(task, State.SUCCEEDED, record={"id": "?"}), 0.0) for task in tasks.values()]
    verdicts = []
    for some in (ends[:1], ends):
        settled = store.tasks.settle(LANE, "t", now, some, 10 * HOUR, 100, calls=1)
        verdicts.append([one.verdict for one in settled])
    assert verdicts == [["succeeded"], ["stale", "succeeded"]]
    assert [used(store, after=hours * HOUR).ids for hours in (0, 3.1, 11.1)] == [2, 2, 0]
    assert used(store).bytes == 2 * (ID_BYTES + len('{"id":"?"}'))
    counts = store.statistics([LANE], ends=1, models=1).lanes[0].counts
    assert (counts["calls"], counts["succeeded"]) == (2, 2)


def end(store: Store, task_id: str) -> None:
    """Settle an id, as a worker does."""
    now = store.fleet.now()
    due = [one for one in store.tasks.candidates(LANE, now + 1e6, 9) if one.id == task_id]
    store.tasks.claim(LANE, now + 100, "t", due)
    outcome = Outcome(store.tasks.load(LANE, [task_id]).tasks[task_id], State.SUCCEEDED)
    outcome = replace(outcome, record={"id": task_id})
    store.tasks.settle(LANE, "t", now, [(outcome, 0.0)], 10 * HOUR, 100)


def test_an_id_that_is_tracked_anew_again_and_again_counts_once(store: Store) -> None:
    settings = replace(Settings.load({}), redis_url=store.connection._url, producer_ids=2)
    options: dict[str, Any] = {
        "service": SERVICE,
        "producer": "shop",
        "deadline": 2 * HOUR,
        "restart": True,
    }
    with Client(settings=replace(settings, retention=10 * HOUR)) as client:
        for _ in range(4):
            assert [one.outcome for one in client.submit(["a"], **options)] == ["new"]
            assert [used(store, after=hours * HOUR).ids for hours in (0, 3.1)] == [1, 0]
            assert used(store).bytes == ID_BYTES
            end(store, "a")
            assert [used(store, after=hours * HOUR).ids for hours in (0, 3.1, 11.1)] == [1, 1, 0]
        assert client.submit(["a", "b"], **options)[1].outcome == "new"
        assert used(store) == Usage(2, 2 * ID_BYTES)


def test_a_submit_that_is_stored_and_fails_for_want_of_a_replica_counts_once(
    own_server: Server,
) -> None:
    settings = replace(Settings.load({}), redis_url=own_server.url, wait_replicas=1)
    settings = replace(settings, wait_timeout=0.05)
    store = Store(own_server.url)
    with Client(settings=replace(settings, producer_ids=3)) as client:
        for _ in range(4):
            with pytest.raises(StoreUnavailable):
                client.submit(["a", "b"], service=SERVICE, producer="shop")
            assert used(store) == Usage(2, 2 * ID_BYTES)
    store.close()


def test_a_count_that_went_wrong_is_right_again_when_its_hour_has_passed(store: Store) -> None:
    usage, now = store.producer_usage, store.fleet.now()
    hour, quota = int(now // HOUR), ProducerQuota(2, 0)
    names, raw = [keys.usage("shop"), keys.PRODUCERS], store.connection.redis

    def count(at: float, until: int) -> list[int]:
        """One id, as by a process that dies before its submit is stored."""
        found: list[int] = store.connection.script(
            "count_usage", names, ["shop", int(at // HOUR), quota.ids, 0, until, 1, 7]
        )
        return found

    assert count(now, hour + 1) == [1, 0, 0]
    assert count(now, hour + 3) == [1, 1, 7]
    assert count(now, hour + 3) == [0, 2, 14]
    raw.hset(keys.usage("shop"), mapping={"ids": 99, "bytes": "-5"})  # sums that went wrong
    assert count(now, hour + 3)[0] == 0
    assert count(now + HOUR, hour + 3) == [1, 1, 7]
    assert count(now + 2 * HOUR, hour + 3) == [0, 2, 14]
    assert count(now + 3 * HOUR, hour + 5) == [1, 0, 0]
    assert 0 < raw.ttl(keys.usage("shop")) <= 3 * HOUR
    assert usage.used(now + 5 * HOUR) == {}
    usage.correct("nobody", [HourlyUsage(hour + 9, 5, 5)], now)
    assert raw.exists(keys.usage("nobody")) == 0


def test_producers_that_count_no_longer_leave_the_list(store: Store) -> None:
    now, raw = store.fleet.now(), store.connection.redis
    hour = int(now // HOUR)
    for name, at in (("old", 0), ("new", 5)):
        args = [name, hour + at, 9, 9, hour + at + 1, 1, 1]
        store.connection.script("count_usage", [keys.usage(name), keys.PRODUCERS], args)
    assert raw.zrange(keys.PRODUCERS, 0, -1) == ["new"]


def test_rivals_never_exceed_the_quota_together(store: Store) -> None:
    accepted: list[str] = []

    def rival(name: str) -> None:
        with client_of(store, ids=20) as client:
            for number in range(10):
                try:
                    client.submit([f"{name}{number}"], service=SERVICE, producer="shop")
                except QuotaExceeded:
                    continue
                accepted.append(name)

    rivals = [threading.Thread(target=rival, args=(name,)) for name in "abcd"]
    for one in rivals:
        one.start()
    for one in rivals:
        one.join()
    assert len(accepted) == 20
    assert used(store).ids == 20


def test_where_memory_is_full_nothing_is_counted_for_a_submit_that_is_refused(
    store: Store,
) -> None:
    raw = store.connection.redis
    with client_of(store, ids=10) as client:
        client.submit(["a"], service=SERVICE, producer="shop")
        raw.config_set("maxmemory", 1)
        try:
            with pytest.raises(StoreUnavailable):
                client.submit(["b"], service=SERVICE, producer="shop")
            store.producer_usage.correct("shop", [HourlyUsage(10**6, -1, -1)], store.fleet.now())
        finally:
            raw.config_set("maxmemory", 0)
    assert used(store).ids == 0


def test_a_message_and_the_command_are_refused_in_the_same_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "The producer 'shop' has 0 of 1 ids in the store (CAVENDISH_PRODUCER_IDS), too many for"
    with client_of(store, ids=1) as client, pytest.raises(QuotaExceeded) as refused:
        take_in(client, ["a", "b"], {"service": SERVICE, "producer": "shop"})
    assert str(refused.value).startswith(said)
    monkeypatch.setenv("CAVENDISH_REDIS_URL", store.connection._url)
    monkeypatch.setenv("CAVENDISH_PRODUCER_IDS", "1")
    done = CliRunner().invoke(cli, ["submit", "--service", SERVICE, "--producer", "shop", "a", "b"])
    assert done.exit_code == 1
    assert "2 refused" in done.output
    assert said in done.output


def test_the_metrics_and_status_show_who_uses_how_much_for_a_bounded_number_of_producers(
    store: Store,
) -> None:
    with client_of(store, ids=10) as client:
        client.submit(["a", "b"], service=SERVICE, producer="shop")
        for number in range(scraped.MOST_PRODUCERS):
            client.submit([f"x{number}"], service=SERVICE, producer=f"p{number:02}")
    text = serving.text(scraped.registry_of(store, 50, quota=ProducerQuota(10, 0)))
    lines = [line for line in text.splitlines() if line.startswith("cavendish_producer_quota")]
    assert len(lines) == scraped.MOST_PRODUCERS
    assert 'cavendish_producer_quota_used_ratio{producer="shop"} 0.2' in lines
    shown = snapshot.gather(store, replace(Settings.load({}), producer_ids=10))["producers"]
    assert next(iter(shown)) == "shop"
    assert shown["shop"] == {"ids": 2, "bytes": 2 * ID_BYTES} | {
        "ids_most": 10,
        "bytes_most": Settings().producer_bytes,
    }
