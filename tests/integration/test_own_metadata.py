"""Ids of one submit, some with metadata of their own."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cavendish import Client, QuotaExceeded, Task
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.keys import LaneKeys
from shell import Run

SERVICE, HOOK = "nano-banana", "https://example.com/hook"
KEYS = LaneKeys(Lane("default", SERVICE))


@pytest.mark.parametrize("others", [0, 20], ids=["few", "many"])
def test_each_id_has_its_own_metadata_or_that_of_the_submit(
    client: Client, store: Store, others: int
) -> None:
    more = [f"more-{number}" for number in range(others)]
    ids = [Task("a", {"n": 1}), "b", Task("c"), Task("d", {"n": 2}), Task("e", {"n": 2}), *more]
    answers = client.submit(ids, service=SERVICE, webhook=HOOK, metadata={"common": True})
    assert {answer.outcome for answer in answers} == {"new"}
    found = client.get_many(["a", "b", "c", "d", "e", *more], service=SERVICE)
    own = {"a": {"n": 1}, "d": {"n": 2}, "e": {"n": 2}}
    said = {name: task.metadata for name, task in found.items()}
    assert said == {name: {"common": True} for name in found} | own
    assert len({task.webhooks for task in found.values()}) == 1
    assert store.connection.redis.zcard(KEYS.due("")) == len(ids)


def test_wrong_metadata_refuses_its_id_alone_and_a_known_id_keeps_its_own(client: Client) -> None:
    wrong: list[object] = ["text", {"x": "y" * 9000}, {"x": {1}}, [1]]
    ids = [Task(f"id-{number}", each) for number, each in enumerate(wrong)]  # type: ignore[arg-type]
    answers = client.submit([*ids, Task("good", {"n": 1}), Task("good", {"n": 2})], service=SERVICE)
    assert [one.outcome for one in answers] == ["refused"] * 4 + ["new"] * 2
    assert all("metadata" in one.reason for one in answers[:4])
    assert [one.id for one in answers[:4]] == [f"id-{number}" for number in range(4)]
    assert client.get("good", service=SERVICE).metadata == {"n": 1}  # type: ignore[union-attr]
    assert client.submit([Task("good", {"n": 3})], service=SERVICE)[0].outcome == "known"
    assert client.get("good", service=SERVICE).metadata == {"n": 1}  # type: ignore[union-attr]


def test_equal_long_metadata_of_many_ids_is_stored_once(client: Client, store: Store) -> None:
    raw = store.connection.redis
    before = raw.info("memory")["used_memory"]
    client.submit([Task(f"id-{n}", {"note": "m" * 8000}) for n in range(1000)], service=SERVICE)
    assert raw.info("memory")["used_memory"] - before < 1_000_000


def test_metadata_of_ids_counts_to_the_quota_of_their_producer_and_what_is_known_only_once(
    settings: Settings, store: Store
) -> None:
    own = [Task(f"id-{number}", {"note": "x" * 1000, "n": number}) for number in range(4)]
    room = 4 * 1100 + 4 * 2000
    limited = Client(settings=replace(settings, producer_bytes=room))
    with pytest.raises(QuotaExceeded):
        limited.submit(
            [Task(f"id-{n}", {"note": "x" * 7000, "n": n}) for n in range(4)], service=SERVICE
        )
    limited.submit(own, service=SERVICE)
    used = store.producer_usage.used(store.fleet.now())[""]
    limited.submit(own, service=SERVICE)
    assert store.producer_usage.used(store.fleet.now())[""] == used
    assert used.bytes > 4 * 1000
    limited.close()


def test_lines_with_metadata_of_their_own_are_one_submit(run: Run, client: Client) -> None:
    lines = [json.dumps({"id": f"id-{n}", "metadata": {"n": n}}) for n in range(50)]
    lines.append(json.dumps({"id": "odd", "metadata": "text"}))
    done = run("submit", "--service", SERVICE, "-", stdin="\n".join(lines))
    assert (done.exit_code, done.stdout) == (1, "50 new · 1 refused\n")
    found = client.get_many([f"id-{n}" for n in range(50)], service=SERVICE)
    assert [found[f"id-{n}"].metadata for n in range(50)] == [{"n": n} for n in range(50)]
