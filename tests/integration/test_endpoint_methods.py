"""Endpoints by the Python client: the same that the commands do, in a real Redis."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cavendish import AsyncClient, Client, EndpointError
from cavendish.endpoints.encryption import Encryption, new_key
from cavendish.endpoints.endpoint_view import EndpointView
from cavendish.endpoints.webhook_endpoint import endpoint_of
from cavendish.settings import Settings, env_name
from cavendish.store import Store
from delivering import Delivering, Receiver, Served
from shell import Run, said

SHOP = "https://shop.example/hook"
KEY = new_key()


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Client and commands have the same encryption key."""
    monkeypatch.setenv(env_name("secret_key"), KEY)
    return replace(settings, secret_key=(KEY,))


def test_an_endpoint_that_the_client_adds_and_changes_is_one_that_the_commands_show(
    client: Client, store: Store, run: Run
) -> None:
    new = client.add_endpoint(
        "shop", SHOP, events="task.failed, task.expired", headers={"X-A": "secret-7"}, rate=60
    )
    assert (new.endpoint, new.public_key, new.encrypted, new.old_until) == (
        "shop",
        None,
        True,
        None,
    )
    stored = store.endpoints.all()["shop"]
    assert Encryption([KEY]).decrypt("shop", stored.keys[0].encrypted) == new.secret
    changed = client.update_endpoint("shop", retries=3, retry_for=3600, reset=["events"])
    assert changed == client.endpoint("shop") == client.endpoints()[0]
    assert (changed.events, changed.headers, changed.rate) == (("all",), ("X-A",), 60.0)
    assert (changed.retries, changed.retry_for, changed.waiting) == (3, 3600.0, 0)
    shown = said(run("endpoint", "show", "shop", "--json"))
    for name in changed.__slots__:
        value = getattr(changed, name)
        assert shown[name] == (list(value) if isinstance(value, tuple) else value)
    assert "secret-7" not in repr((changed, stored))
    assert new.secret not in repr(new)


def test_a_webhook_is_signed_by_the_secrets_that_the_client_makes(
    client: Client, endpoint_index: Delivering, served: Served
) -> None:
    receiver = Receiver()
    first = client.add_endpoint("shop", served(receiver), ed25519=True)
    second = client.rotate_endpoint("shop", overlap=3600)
    endpoint_index.end("a", webhook="shop")
    assert endpoint_index.deliver(encrypting=(KEY,)).delivered == 1
    signatures = receiver.got[0].headers["webhook-signature"].split()
    assert sorted(one.partition(",")[0] for one in signatures) == ["v1", "v1", "v1a", "v1a"]
    assert first.public_key
    assert second.public_key not in (None, first.public_key)
    assert second.old_until
    assert second.secret != first.secret


def test_an_endpoint_is_switched_and_removed(client: Client) -> None:
    client.add_endpoint("shop", SHOP)
    assert client.disable_endpoint("shop", reason="moves")
    assert not client.disable_endpoint("shop")
    assert (client.endpoint("shop").enabled, client.endpoint("shop").reason) == (False, "moves")
    assert client.enable_endpoint("shop")
    assert not client.enable_endpoint("shop")
    assert client.disable_endpoint(SHOP)
    assert [one.name for one in client.endpoints()] == ["shop", endpoint_of(SHOP)]
    assert client.remove_endpoint("shop") == 0
    with pytest.raises(EndpointError, match="shop"):
        client.endpoint("shop")


WRONG: list[tuple[Callable[[Client], Any], str]] = [
    (lambda client: client.add_endpoint("Shop", SHOP), "begins with a letter"),
    (lambda client: client.add_endpoint("art", "http://10.0.0.1/"), "not public"),
    (lambda client: client.add_endpoint("shop", SHOP), "already"),
    (lambda client: client.add_endpoint("art", SHOP, events=["task.done"]), "known are all"),
    (lambda client: client.update_endpoint("shop", headers={"Host": "x"}), "belongs to HTTP"),
    (lambda client: client.update_endpoint("shop", headers={"X-A": 7}), "texts, not int"),
    (lambda client: client.update_endpoint("shop", rate="fast"), "must be a number"),
    (
        lambda client: client.update_endpoint("shop", rate=float("nan")),
        "must be a number or None, not NaN",
    ),
    (lambda client: client.update_endpoint("shop", retries=2.5), "whole number"),
    (lambda client: client.update_endpoint("shop", retry_for=9.0), "9 retries take"),
    (lambda client: client.update_endpoint("shop", reset=["url"]), "events, headers, rate"),
    (lambda client: client.update_endpoint("shop", url=7), "must be a text or None, not int"),
    (lambda client: client.update_endpoint("nobody", rate=1), "nobody"),
    (lambda client: client.rotate_endpoint("shop", overlap=8 * 86400), "the overlap is"),
    (lambda client: client.rotate_endpoint("nobody"), "nobody"),
    (lambda client: client.remove_endpoint("nobody"), "nobody"),
    (lambda client: client.enable_endpoint("nobody"), "nobody"),
    (lambda client: client.disable_endpoint("\udc80"), "UTF-8 cannot express"),
]


@pytest.mark.parametrize(("call", "why"), WRONG, ids=[why for _, why in WRONG])
def test_what_cannot_be_is_refused_in_one_sentence_and_changes_nothing(
    client: Client, store: Store, call: Callable[[Client], Any], why: str
) -> None:
    client.add_endpoint("shop", SHOP)
    before = store.endpoints.all()
    with pytest.raises(EndpointError, match=why):
        call(client)
    assert store.endpoints.all() == before


def test_an_endpoint_that_has_consented_gets_another_url_by_the_command_only(
    client: Client, store: Store
) -> None:
    client.add_endpoint("shop", SHOP)
    store.endpoints.change("shop", lambda known: replace(known, consent=True, per_minute=9.0))
    with pytest.raises(EndpointError, match="must be asked for its consent"):
        client.update_endpoint("shop", url="https://other.example/")
    assert client.update_endpoint("shop", events="task.*").per_minute == 9.0


def test_the_client_for_asyncio_has_the_same_methods(settings: Settings, store: Store) -> None:
    async def story() -> None:
        async with AsyncClient(settings=settings) as client:
            new = await client.add_endpoint("shop", SHOP)
            await client.update_endpoint("shop", rate=9)
            assert (await client.rotate_endpoint("shop")).secret != new.secret
            assert await client.disable_endpoint("shop")
            assert await client.enable_endpoint("shop")
            assert [await client.endpoint("shop")] == await client.endpoints()
            assert await client.remove_endpoint("shop") == 0

    asyncio.run(story())


def test_without_the_package_that_encrypts_a_client_says_what_to_install(
    store: Store, settings: Settings
) -> None:
    code = f"""
import sys
sys.modules["cryptography"] = None
from cavendish import Client, EndpointError, Settings
from dataclasses import replace
settings = Settings.load({{"CAVENDISH_REDIS_URL": {settings.redis_url!r}}})
with Client(settings=settings) as client:
    print(client.add_endpoint("plain", "https://shop.example/").encrypted)
    client.update_endpoint("plain", rate=9)
for keys, ed25519 in (({KEY!r},), False), ((), True):
    with Client(settings=replace(settings, secret_key=keys)) as client:
        try:
            client.add_endpoint("shop", "https://shop.example/", ed25519=ed25519)
        except EndpointError as error:
            print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    first, *others = done.stdout.splitlines()
    assert first == "False"
    assert len(others) == 2
    assert all("pip install 'cavendish[endpoints]'" in one for one in others)
    assert [*store.endpoints.all()] == ["plain"]


def test_what_the_client_tells_of_an_endpoint_is_what_the_commands_know_of_it(
    client: Client, store: Store
) -> None:
    client.disable_endpoint(SHOP)
    (view,) = client._endpoints.list()
    assert isinstance(view, EndpointView)
    assert view.public == client.endpoint(SHOP)
    assert (view.public.url, view.public.registered) == (SHOP, False)
