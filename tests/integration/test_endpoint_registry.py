"""Registered and disabled webhook endpoints in a real Redis."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from cavendish.endpoints.webhook_endpoint import Disabled, Endpoint, Key
from cavendish.store import Store
from cavendish.store.keys import DISABLED, ENDPOINTS

T = 1_700_000_000.0
SHOP = Endpoint(
    "shop",
    "https://shop.example/x",
    T,
    (Key("encrypted ñ", T, None, "public"),),
    consent=True,
    per_minute=12.5,
)
UNREADABLE = [
    "",
    "{",
    "5",
    "null",
    "[]",
    '"x"',
    "{}",
    '{"url": "https://x.example/", "keys": 1, "created_at": 1}',
    "[" * 5000,
]


def test_a_registered_endpoint_is_read_back_as_it_went(store: Store) -> None:
    other = replace(SHOP, name="art", keys=(), consent=False, per_minute=None)
    assert store.endpoints.add(SHOP)
    assert store.endpoints.add(other)
    assert list(store.endpoints.all().items()) == [("art", other), ("shop", SHOP)]


def test_a_name_that_is_taken_stays_as_it_was(store: Store) -> None:
    store.endpoints.add(SHOP)
    assert not store.endpoints.add(replace(SHOP, url="https://other.example/"))
    assert store.endpoints.all() == {"shop": SHOP}


def test_names_under_which_nothing_is_registered_are_told_in_their_order(store: Store) -> None:
    store.endpoints.add(SHOP)
    assert store.endpoints.missing([]) == []
    assert store.endpoints.missing(["shop"]) == []
    assert store.endpoints.missing(name for name in ("shop2", "shop", "sho", "art")) == [
        "shop2",
        "sho",
        "art",
    ]


def test_a_change_replaces_and_of_an_unknown_name_there_is_none(store: Store) -> None:
    store.endpoints.add(SHOP)
    changed = store.endpoints.change(
        "shop", lambda known: replace(known, url="https://new.example/")
    )
    assert changed == replace(SHOP, url="https://new.example/")
    assert store.endpoints.all() == {"shop": changed}
    assert store.endpoints.change("shop2", lambda known: known) is None
    assert list(store.endpoints.all()) == ["shop"]


def test_a_step_that_fails_changes_nothing_and_leaves_the_connection_sound(store: Store) -> None:
    store.endpoints.add(SHOP)

    def step(known: Endpoint) -> Endpoint:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.endpoints.change("shop", step)
    assert store.endpoints.all() == {"shop": SHOP}


def test_two_that_change_an_endpoint_at_the_same_time_lose_nothing(store: Store) -> None:
    store.endpoints.add(replace(SHOP, per_minute=0.0))
    store.endpoints.add(replace(SHOP, name="art"))
    both = threading.Barrier(2, timeout=10)
    runs: list[int] = []

    def step(known: Endpoint) -> Endpoint:
        runs.append(1)
        return replace(known, per_minute=(known.per_minute or 0.0) + 1)

    def rival() -> None:
        both.wait()
        for _ in range(50):
            assert store.endpoints.change("shop", step) is not None

    rivals = [threading.Thread(target=rival) for _ in range(2)]
    for one in rivals:
        one.start()
    for one in rivals:
        one.join()
    assert store.endpoints.all()["shop"].per_minute == 100
    assert len(runs) >= 100


def test_a_change_that_was_overtaken_is_thought_about_again(store: Store) -> None:
    store.endpoints.add(SHOP)
    seen: list[str] = []

    def step(known: Endpoint) -> Endpoint:
        seen.append(known.url)
        if len(seen) == 1:
            overtaking = threading.Thread(
                target=lambda: store.endpoints.change(
                    "shop", lambda now: replace(now, url="https://faster.example/")
                )
            )
            overtaking.start()
            overtaking.join()
        return replace(known, consent=False)

    assert store.endpoints.change("shop", step) == replace(
        SHOP, url="https://faster.example/", consent=False
    )
    assert seen == [SHOP.url, "https://faster.example/"]


def test_one_that_is_removed_meanwhile_does_not_come_back(store: Store) -> None:
    store.endpoints.add(SHOP)

    def step(known: Endpoint) -> Endpoint:
        store.endpoints.remove("shop")
        return replace(known, consent=False)

    assert store.endpoints.change("shop", step) is None
    assert store.endpoints.all() == {}


def test_rotation_in_the_store_keeps_both_keys_for_the_overlap(store: Store) -> None:
    store.endpoints.add(SHOP)
    store.endpoints.change("shop", lambda known: known.rotated((Key("fresh", T + 10),), T + 10, 60))
    found = store.endpoints.all()["shop"]
    assert [key.encrypted for key in found.living_keys(T + 69)] == ["fresh", "encrypted ñ"]
    assert [key.encrypted for key in found.living_keys(T + 70)] == ["fresh"]


def test_a_disabled_endpoint_keeps_the_first_reason_until_it_is_enabled(store: Store) -> None:
    first, second = Disabled(T, "410 Gone", SHOP.url), Disabled(T + 1, "no success for 5.0 days")
    assert store.endpoints.disable("shop", first)
    assert not store.endpoints.disable("shop", second)
    assert store.endpoints.disable("0123456789abcdef", second)
    assert store.endpoints.disabled() == {"0123456789abcdef": second, "shop": first}
    assert store.endpoints.enable("shop")
    assert not store.endpoints.enable("shop")
    assert store.endpoints.disabled() == {"0123456789abcdef": second}
    assert store.endpoints.disable("shop", second)
    assert store.endpoints.disabled()["shop"] == second


def test_a_removed_endpoint_is_forgotten_with_its_reason(store: Store) -> None:
    store.endpoints.add(SHOP)
    store.endpoints.disable("shop", Disabled(T, "410 Gone"))
    assert store.endpoints.remove("shop")
    assert not store.endpoints.remove("shop")
    assert store.endpoints.all() == store.endpoints.disabled() == {}
    assert store.endpoints.add(SHOP)
    assert store.endpoints.disabled() == {}


@pytest.mark.parametrize("row", UNREADABLE, ids=lambda row: row[:20] or "empty")
def test_an_unreadable_row_is_an_endpoint_without_keys_and_hides_nobody_else(
    store: Store, row: str
) -> None:
    store.endpoints.add(SHOP)
    store.connection.redis.hset(ENDPOINTS, "bad", row)
    assert store.endpoints.all() == {"bad": Endpoint("bad", "", 0.0), "shop": SHOP}
    assert store.endpoints.missing(["bad", "shop"]) == []
    assert store.endpoints.change("bad", lambda known: known) is None
    assert store.connection.redis.hget(ENDPOINTS, "bad") == row
    assert not store.endpoints.add(replace(SHOP, name="bad"))
    assert store.endpoints.remove("bad")


@pytest.mark.parametrize("row", UNREADABLE, ids=lambda row: row[:20] or "empty")
def test_an_endpoint_with_an_unreadable_reason_is_disabled_all_the_same(
    store: Store, row: str
) -> None:
    store.connection.redis.hset(DISABLED, "shop", row)
    assert store.endpoints.disabled() == {"shop": Disabled(0.0, "unreadable")}
    assert store.endpoints.enable("shop")
