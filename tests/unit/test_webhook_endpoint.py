"""The names, the hashes and the keys of webhook endpoints."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.endpoints.webhook_endpoint import (
    KEYS,
    Disabled,
    Endpoint,
    Key,
    endpoint_in,
    endpoint_of,
    is_url,
    name_complaint,
    subscription_of,
)
from cavendish.store.keys import delivery_of, task_of

HOOK = "https://hook.example/x"
T = 1_700_000_000.0
URLS = st.builds(
    "{}://{}/{}{}".format,
    st.sampled_from(["http", "https", "HTTPS"]),
    st.sampled_from(["a.example", "a.example:8443", "[2001:4860:4860::8888]"]),
    st.text("abc/.:%ñ", max_size=10),
    st.sampled_from(["", "?", "?a=1", "?a=1&b=?", "#f", "?a#f", "#f?a"]),
)
NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,39}", fullmatch=True).filter(
    lambda name: name_complaint(name) is None
)
IDS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=200)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "shop",
        "shop-2",
        "shop_2",
        "a" * 40,
        "abcdefabcdefabc",
        "abcdefabcdefabcde",
        "abcdefabcdefabcg",
    ],
)
def test_a_plain_name_is_taken(name: str) -> None:
    assert name_complaint(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "A",
        "Shop",
        "2shop",
        "-shop",
        "_shop",
        "shop.x",
        "shop:x",
        "a/b",
        "a b",
        "a\n",
        "\na",
        "ñ",
        "a" * 41,
        "а",
    ],
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    assert "the name of an endpoint" in str(name_complaint(name))


@pytest.mark.parametrize("name", ["abcdefabcdefabcd", "a" * 16, "a123456789012345"])
def test_a_name_that_might_be_the_hash_of_a_url_is_refused(name: str) -> None:
    assert name_complaint(name) is not None


@given(URLS)
def test_no_url_is_ever_named_as_a_registered_endpoint_may_be(url: str) -> None:
    assert is_url(url)
    assert re.fullmatch(r"[0-9a-f]{16}", endpoint_of(url))
    assert name_complaint(endpoint_of(url)) is not None


@given(NAMES)
def test_a_registered_name_is_its_own_endpoint_and_subscription(name: str) -> None:
    assert not is_url(name)
    assert endpoint_of(name) == subscription_of(name) == endpoint_in(name) == name


@given(st.one_of(URLS, NAMES), IDS)
def test_endpoint_and_id_are_found_again_in_a_delivery(webhook: str, task_id: str) -> None:
    subscription = subscription_of(webhook)
    delivery = delivery_of(subscription, task_id)
    assert endpoint_in(delivery) == endpoint_in(subscription) == endpoint_of(webhook)
    assert task_of(delivery) == task_id
    assert re.fullmatch(r"[a-z0-9_-]+(\.[0-9a-f]{8})?", subscription)


def test_an_endpoint_is_named_by_a_hash_of_its_url() -> None:
    assert len({endpoint_of(f"{HOOK}{n}") for n in range(1000)}) == 1000
    assert endpoint_of(HOOK) == hashlib.sha256(HOOK.encode()).hexdigest()[:16]


def test_urls_that_differ_in_their_query_are_one_endpoint_and_several_subscriptions() -> None:
    jobs = [f"{HOOK}?job={n}" for n in range(1000)]
    assert {endpoint_of(url) for url in jobs} == {endpoint_of(HOOK)}
    assert len({subscription_of(url) for url in (*jobs, HOOK, f"{HOOK}?")}) == 1002
    assert subscription_of(HOOK) == endpoint_of(HOOK)
    assert all(subscription_of(url).startswith(f"{endpoint_of(HOOK)}.") for url in jobs)


@pytest.mark.parametrize("fragment", ["#", "#a", "#a?b=c", "#?b"])
def test_a_fragment_makes_no_difference_because_it_is_never_sent(fragment: str) -> None:
    for url in (HOOK, f"{HOOK}?job=7"):
        assert subscription_of(url + fragment) == subscription_of(url)


@pytest.mark.parametrize(
    "other",
    [
        "http://hook.example/x",
        "https://hook.example/x/",
        "https://hook.example:8443/x",
        "https://hook.example/X",
    ],
)
def test_urls_that_differ_in_anything_else_are_different_endpoints(other: str) -> None:
    assert endpoint_of(other) != endpoint_of(HOOK)


# --- keys


def key(name: str, made_at: float, until: float | None = None) -> Key:
    return Key(name, made_at, until, f"public {name}")


def shop(*keys: Key) -> Endpoint:
    return Endpoint("shop", HOOK, T, keys)


def test_a_key_signs_until_its_last_moment_and_not_in_it() -> None:
    assert key("a", T).signs(T * 2)
    assert key("a", T, T + 10).signs(T + 9.999)
    assert not key("a", T, T + 10).signs(T + 10)


def test_a_secret_is_not_shown_by_accident() -> None:
    assert "encrypted secret" not in repr(shop(Key("encrypted secret", T)))


def test_the_newest_key_signs_first() -> None:
    endpoint = shop(key("old", T - 9), key("new", T), key("over", T - 5, T))
    assert [one.encrypted for one in endpoint.living_keys(T)] == ["new", "old"]


def test_a_replaced_key_signs_along_for_the_overlap_and_no_longer() -> None:
    endpoint = shop(key("a", T)).rotated((key("b", T + 100),), T + 100, 60)
    assert [one.encrypted for one in endpoint.living_keys(T + 159.9)] == ["b", "a"]
    assert [one.encrypted for one in endpoint.living_keys(T + 160)] == ["b"]


def test_without_an_overlap_the_old_keys_are_worthless_at_once() -> None:
    endpoint = (
        shop(key("a", T))
        .rotated((key("b", T + 1),), T + 1, 1000)
        .rotated((key("c", T + 2),), T + 2, 0)
    )
    assert [one.encrypted for one in endpoint.living_keys(T + 2)] == ["c"]


def test_a_later_rotation_with_a_longer_overlap_does_not_prolong_what_was_said() -> None:
    endpoint = (
        shop(key("a", T))
        .rotated((key("b", T + 1),), T + 1, 10)
        .rotated((key("c", T + 2),), T + 2, 1000)
    )
    assert {one.encrypted: one.until for one in endpoint.keys} == {
        "a": T + 11,
        "b": T + 1002,
        "c": None,
    }


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1000), st.integers(1, 2)), max_size=20))
def test_after_any_rotations_no_replaced_key_outlives_what_was_said_and_the_newest_always_signs(
    rotations: list[tuple[float, float, int]],
) -> None:
    now, endpoint, promised = T, shop(key("first", T)), dict[str, float]()
    for number, (passed, overlap, fresh) in enumerate(rotations):
        now += passed
        for one in endpoint.living_keys(now):
            promised[one.encrypted] = min(promised.get(one.encrypted, float("inf")), now + overlap)
        endpoint = endpoint.rotated(
            tuple(key(f"{number}.{n}", now) for n in range(fresh)), now, overlap
        )
        assert {one.encrypted for one in endpoint.keys if one.until is None} == {
            f"{number}.{n}" for n in range(fresh)
        }
        assert all(
            one.until == promised[one.encrypted] for one in endpoint.keys if one.until is not None
        )
        assert len(endpoint.keys) <= KEYS
        assert endpoint.living_keys(now)[0].until is None


# --- JSON


@given(
    st.builds(
        Endpoint,
        st.just("shop"),
        URLS,
        st.floats(0, 1e10),
        st.lists(
            st.builds(
                Key, st.text(), st.floats(0, 1e10), st.none() | st.floats(0, 1e10), st.text()
            ),
            max_size=4,
        ).map(tuple),
        st.booleans(),
        st.none() | st.floats(0, 1e6),
    )
)
def test_an_endpoint_comes_back_from_json_as_it_went(endpoint: Endpoint) -> None:
    assert Endpoint.from_json("shop", endpoint.to_json()) == endpoint
    assert Endpoint.from_json("other", endpoint.to_json()) == replace(endpoint, name="other")
    assert "name" not in json.loads(endpoint.to_json())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "5",
        "null",
        "true",
        '"x"',
        "[]",
        "{}",
        '{"url": "https://x.example/"}',
        '{"url": "https://x.example/", "keys": []}',
        '{"url": "https://x.example/", "keys": null, "created_at": 1}',
        '{"url": "https://x.example/", "keys": {}, "created_at": 1}',
        '{"url": "https://x.example/", "keys": ["secret"], "created_at": 1}',
        '{"url": "https://x.example/", "keys": [{"made_at": 1}], "created_at": 1}',
        '{"url": 5, "keys": [], "created_at": 1}',
    ],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    assert Endpoint.from_json("shop", text) is None


def test_what_another_version_says_besides_is_ignored_and_the_name_is_that_of_the_field() -> None:
    text = '{"url": "https://x.example/", "keys": [], "created_at": 1, "of": 2, "name": "other"}'
    assert Endpoint.from_json("shop", text) == Endpoint("shop", "https://x.example/", 1.0)


@given(st.builds(Disabled, st.floats(0, 1e10), st.text(), URLS))
def test_the_reason_of_a_disabled_endpoint_comes_back_as_it_went(disabled: Disabled) -> None:
    assert Disabled.from_json(disabled.to_json()) == disabled


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "5",
        "null",
        "[]",
        '"x"',
        "{}",
        '{"at": "then", "why": "x"}',
        '{"at": 1}',
        '{"at": null, "why": ""}',
    ],
)
def test_an_endpoint_with_an_unreadable_reason_is_disabled_all_the_same(text: str) -> None:
    assert Disabled.from_json(text) == Disabled(0.0, "unreadable")
