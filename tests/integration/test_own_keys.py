"""Keys: names of the producer's own, under which its ids are found."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from cavendish import Client, SubmissionError, Task
from cavendish.model import Lane
from cavendish.store import Store, key_index
from cavendish.store.keys import LaneKeys
from cavendish_worker.celeryapp import submit_message
from cavendish_worker.webhooks.reconcile import reconcile
from shell import Run

SERVICE, HOUR = "nano-banana", 3600.0
LANE = Lane("default", SERVICE)
KEYS = LaneKeys(LANE)


def found(client: Client, key: str | UUID, **where: str) -> list[tuple[str, str]]:
    return sorted((task.service, task.id) for task in client.find(key, **where))


def entries(store: Store) -> list[str]:
    with_zero: list[str] = store.connection.redis.zrange(KEYS.own_keys, 0, -1)  # type: ignore[assignment]
    return [entry.replace("\0", " ") for entry in with_zero]


@pytest.mark.parametrize("others", [0, 20], ids=["few", "many"])
def test_ids_are_found_by_their_key_in_all_services_and_accounts(
    client: Client, store: Store, others: int
) -> None:
    more = [f"more-{number}" for number in range(others)]
    ids = [Task("a", key="order-1"), Task("b", {"n": 1}, "order-1"), Task("c", key="order-10")]
    client.submit([*ids, Task("d", {"n": 1}), *more], service=SERVICE)
    client.submit(["e"], service="flux", account="other", key="order-1")
    assert found(client, "order-1") == [("flux", "e"), (SERVICE, "a"), (SERVICE, "b")]
    assert found(client, "order-1", service=SERVICE) == [(SERVICE, "a"), (SERVICE, "b")]
    assert found(client, "order-1", account="other") == [("flux", "e")]
    assert found(client, "order-10") == [(SERVICE, "c")]
    assert [found(client, key) for key in ("order", "order-1\0a", "", "order-1 ")] == [[]] * 4
    b = client.get("b", service=SERVICE)
    assert b is not None
    assert (b.key, b.metadata) == ("order-1", {"n": 1})
    assert len(entries(store)) == 3


def test_a_key_may_be_any_printable_text_and_a_uuid_is_its_text(client: Client) -> None:
    odd = ["水彩 '{}: *", "k" * 200, UUID(int=7)]
    for number, key in enumerate(odd):
        client.submit([f"id-{number}"], service=SERVICE, key=key)
    assert [found(client, key) for key in odd] == [[(SERVICE, f"id-{n}")] for n in range(3)]
    assert found(client, str(UUID(int=7))) == [(SERVICE, "id-2")]


def test_a_wrong_key_refuses_its_id_alone_and_a_key_of_several_ids_is_refused_as_a_whole(
    client: Client,
) -> None:
    wrong: list[Any] = ["", "x" * 201, "a\nb", 7, "a\0b"]
    ids = [Task(f"id-{number}", key=each) for number, each in enumerate(wrong)]
    answers = client.submit([*ids, "good"], service=SERVICE)
    assert [one.outcome for one in answers] == ["refused"] * 5 + ["new"]
    assert all("The key must be a printable text of 1 to 200" in one.reason for one in answers[:5])
    for some in ([], ["a", "b"]):
        with pytest.raises(SubmissionError, match="A key belongs to one id"):
            client.submit(some, service=SERVICE, key="order-1")


def test_a_known_id_keeps_its_key_and_one_that_is_tracked_anew_has_the_new_one(
    client: Client, store: Store
) -> None:
    client.submit(["a"], service=SERVICE, key="first")
    assert client.submit(["a"], service=SERVICE, key="second")[0].outcome == "known"
    assert found(client, "second") == []
    assert found(client, "first") == [(SERVICE, "a")]
    store.connection.redis.hset(KEYS.task("a"), "state", "failed")
    assert client.submit(["a"], service=SERVICE, key="third", restart=True)[0].outcome == "new"
    assert found(client, "third") == [(SERVICE, "a")]
    assert found(client, "first") == []
    assert entries(store) == ["third a"]


def test_entries_of_records_that_are_gone_leave_the_index_when_they_are_found(
    client: Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_index, "PAGE", 3)
    client.submit([Task(f"id-{n}", key="order-1") for n in range(10)], service=SERVICE)
    for number in range(0, 10, 2):
        store.connection.redis.delete(KEYS.task(f"id-{number}"))
    store.connection.redis.delete(KEYS.task("id-9"))
    store.connection.redis.set(KEYS.task("id-9"), "damaged: somebody may mend it")
    assert found(client, "order-1") == [(SERVICE, f"id-{n}") for n in (1, 3, 5, 7)]
    assert entries(store) == [f"order-1 id-{n}" for n in (1, 3, 5, 7, 9)]


def test_entries_of_records_that_are_gone_leave_the_index_by_the_reconcile_run_page_by_page(
    client: Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_index, "PAGE", 3)
    client.submit([Task(f"id-{n}", key=f"order-{n}") for n in range(10)], service=SERVICE)
    for number in range(8):
        store.connection.redis.delete(KEYS.task(f"id-{number}"))
    assert store.key_index.reconcile(LANE)  # a run that ended here goes on behind the first page
    assert len(entries(store)) == 7
    reconcile(store, "", HOUR, HOUR)
    assert entries(store) == ["order-8 id-8", "order-9 id-9"]
    assert not store.connection.redis.exists(KEYS.own_keys_checked)
    client.forget(["id-8"], service=SERVICE)
    assert entries(store) == ["order-9 id-9"]


def test_an_id_without_a_key_is_in_no_index(client: Client, store: Store) -> None:
    client.submit(["a", Task("b", {"n": 1})], service=SERVICE)
    assert not store.connection.redis.exists(KEYS.own_keys)
    assert (client.get("a", service=SERVICE) or pytest.fail("it is gone")).key == ""


def test_the_command_its_lines_and_a_message_give_keys_and_show_them(
    client: Client, run: Run
) -> None:
    assert run("submit", "--service", SERVICE, "--key", "order-1", "a").exit_code == 0
    lines = [json.dumps({"id": f"id-{n}", "key": f"order-{n}"}) for n in range(2, 30)]
    done = run("submit", "--service", SERVICE, "-", stdin="\n".join([*lines, "plain"]))
    assert (done.exit_code, done.stdout) == (0, "29 new\n")
    options = {"service": SERVICE, "key": "order-0", "group": "g", "group_size": 1}
    assert submit_message.take_in(client, ["m"], options) == "1 new"
    for key, name in (("order-1", "a"), ("order-7", "id-7"), ("order-0", "m")):
        assert found(client, key) == [(SERVICE, name)]
    assert "order-1" in run("show", "a").stdout
    assert json.loads(run("show", "m", "--json").stdout)["key"] == "order-0"
