"""Who claims a batch remembers the records of its ids until they are settled; what others do to
them meanwhile counts all the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cavendish import Client
from cavendish.endpoints.webhook_endpoint import subscription_of
from cavendish.environment.local_paths import store_url
from cavendish.model import Lane, State
from cavendish.policy.service_health import too_many
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.keys import LaneKeys, delivery_of
from cavendish.store.tracked_tasks import BATCHES_CLAIMED, Loaded, Settled
from cavendish.submission import SubmitOptions
from cavendish_worker.polling.settle import load_claimed

LANE = Lane("default", "nano-banana")
KEYS = LaneKeys(LANE)
HOOK = "https://example.com/hook"


@pytest.fixture
def other(store: Store, settings: Settings) -> Iterator[Store]:
    """The store as another process sees it."""
    other = Store(store_url(settings))
    yield other
    other.close()


def add(store: Store, *ids: str, metadata: str = "", webhooks: tuple[str, ...] = ()) -> None:
    options = SubmitOptions("nano-banana", "default", webhooks, 100.0, metadata, "", "", False)
    store.tasks.add(ids, options, 1000.0, 1002.0)


def claim(store: Store, token: str, now: float = 1003.0, size: int = 50) -> list[str]:
    """Look at the lane and claim a batch, as a round of the dispatch does."""
    seen = store.tasks.waiting([LANE], now, size)[LANE].candidates
    (ids,) = store.tasks.claim_all(now + 60, [(LANE, token, seen)])
    assert not isinstance(ids, Exception)
    return ids


def settle(store: Store, token: str, loaded: Loaded) -> list[Settled]:
    ends = [
        (Outcome(task, State.SUCCEEDED, record={"id": name}), 0.0)
        for name, task in loaded.tasks.items()
    ]
    return store.tasks.settle(LANE, token, 1010.0, ends, 3600, 100)


def commands(store: Store, name: str) -> int:
    stats = store.connection.redis.info("commandstats")
    return int(stats.get(f"cmdstat_{name}", {}).get("calls", 0))


def test_who_claims_a_batch_does_not_read_it_again(store: Store) -> None:
    add(store, "a", "b", metadata='{"order": 7}', webhooks=(HOOK,))
    assert claim(store, "t") == ["a", "b"]
    before = commands(store, "hgetall")
    known = store.tasks.claimed(LANE, ["a", "b"], "t")
    assert commands(store, "hgetall") == before
    assert known == store.tasks.load(LANE, ["a", "b"])
    assert [one.verdict for one in settle(store, "t", known)] == ["succeeded", "succeeded"]


def test_a_second_look_finds_new_producers_and_as_many_ids_as_the_service_takes_now(
    store: Store,
) -> None:
    """It begins with what the look before needed, in one round trip less."""

    def look() -> tuple[list[str], dict[str, float | None]]:
        found = store.tasks.waiting([LANE], 1003.0, 2)[LANE]
        return [one.id for one in found.candidates], found.first_at

    add(store, "a", "b", "c")
    assert look() == (["a", "b"], {"": 1002.0})
    assert look() == (["a", "b"], {"": 1002.0})
    options = SubmitOptions("nano-banana", "default", (), 100.0, "", "", "new", False)
    store.tasks.add(["d"], options, 1000.0, 1001.0)
    assert look() == (["a", "b", "d"], {"": 1002.0, "new": 1001.0})
    assert look() == (["a", "b", "d"], {"": 1002.0, "new": 1001.0})
    store.shared_state.change_service_health(LANE, lambda known: (too_many(known, 1), None))
    assert look() == (["a", "d"], {"": 1002.0, "new": 1001.0})
    settle_all(store)
    assert look() == ([], {})


def settle_all(store: Store) -> None:
    claim(store, "t")
    ids = ["a", "b", "c", "d"]
    while left := list(store.tasks.claimed(LANE, ids, "t").tasks):
        settle(store, "t", store.tasks.load(LANE, left, token="t"))
        claim(store, "t")


def test_another_process_and_who_asks_twice_read_it(store: Store, other: Store) -> None:
    add(store, "a", "b")
    claim(store, "t")
    assert other.tasks.claimed(LANE, ["a", "b"], "t") == store.tasks.load(LANE, ["a", "b"])
    store.tasks.claimed(LANE, ["a", "b"], "t")
    store.tasks.release(LANE, "t", list(store.tasks.load(LANE, ["a"]).tasks.values()), 1004.0)
    assert list(store.tasks.claimed(LANE, ["a", "b"], "t").tasks) == ["b"]


def test_an_id_that_the_process_does_not_know_lets_it_read_all(store: Store) -> None:
    add(store, "a", "b")
    claim(store, "t", size=1)
    store.tasks.seize(LANE, ["b"], 1003.0, "t")
    assert set(store.tasks.claimed(LANE, ["a", "b"], "t").tasks) == {"a", "b"}


def test_the_record_is_that_of_the_last_change_before_the_claim(store: Store, other: Store) -> None:
    add(store, "a")
    store.tasks.waiting([LANE], 1003.0, 50)
    task = other.tasks.load(LANE, ["a"]).tasks["a"]
    assert other.tasks.set_deadline(LANE, [task], 5000.0, 1003.0) == ["a"]
    assert claim(store, "t", 1003.5) == ["a"]
    assert store.tasks.claimed(LANE, ["a"], "t").tasks["a"].deadline_at == 5000.0


def test_an_id_that_ended_under_another_lease_stays_as_it_ended(store: Store, other: Store) -> None:
    add(store, "a")
    claim(store, "t")
    other.tasks.seize(LANE, ["a"], 1004.0, "u")
    (cancelled,) = other.tasks.settle(
        LANE,
        "u",
        1004.0,
        [(Outcome(other.tasks.load(LANE, ["a"]).tasks["a"], State.CANCELLED), 0.0)],
        3600,
        100,
    )
    assert cancelled.ended
    assert [one.verdict for one in settle(store, "t", store.tasks.claimed(LANE, ["a"], "t"))] == [
        "stale"
    ]
    assert store.tasks.load(LANE, ["a"]).tasks["a"].state is State.CANCELLED


def test_a_webhook_that_is_added_after_the_claim_is_delivered(store: Store, other: Store) -> None:
    add(store, "a")
    claim(store, "t")
    add(other, "a", webhooks=(HOOK,))
    (one,) = settle(store, "t", store.tasks.claimed(LANE, ["a"], "t"))
    assert one.deliveries == (delivery_of(subscription_of(HOOK), "a"),)


def test_an_id_that_is_forgotten_after_the_claim_stays_forgotten(
    store: Store, other: Store, client: Client
) -> None:
    add(store, "a")
    claim(store, "t")
    client.forget(["a"], service="nano-banana")
    assert [one.verdict for one in settle(store, "t", store.tasks.claimed(LANE, ["a"], "t"))] == [
        "stale"
    ]
    assert other.tasks.load(LANE, ["a"]).tasks == {}


def test_a_damaged_record_is_quarantined_by_who_claimed_it(store: Store) -> None:
    add(store, "a", "b")
    store.connection.redis.hset(KEYS.task("a"), "submitted_at", "yesterday")
    assert set(claim(store, "t")) == {"a", "b"}
    assert set(load_claimed(store, LANE, ["a", "b"], "t")) == {"b"}
    assert set(store.tasks.quarantined(LANE)) == {"a"}


def test_long_metadata_is_read_again_and_not_kept(store: Store) -> None:
    text = '{"of": "' + "x" * 5000 + '"}'
    store.tasks.add(
        ["a"],
        SubmitOptions("nano-banana", "default", (), 100.0, "", "", "", False),
        1000.0,
        1002.0,
    )
    store.connection.redis.hset(KEYS.task("a"), "metadata", text)
    claim(store, "t")
    before = commands(store, "hgetall")
    loaded = store.tasks.claimed(LANE, ["a"], "t")
    assert commands(store, "hgetall") == before + 1
    assert loaded.tasks["a"].metadata == {"of": "x" * 5000}


def test_only_the_last_batches_are_remembered(store: Store) -> None:
    add(store, *(f"id-{number}" for number in range(BATCHES_CLAIMED + 1)))
    claims = [(f"t{number}", claim(store, f"t{number}", size=1)) for number in range(65)]
    before = commands(store, "hgetall")
    for token, ids in reversed(claims):
        assert list(store.tasks.claimed(LANE, ids, token).tasks) == ids
    assert commands(store, "hgetall") == before + 1  # the first was forgotten
