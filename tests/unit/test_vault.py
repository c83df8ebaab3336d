"""How the secrets of registered endpoints lie in the book."""

from __future__ import annotations

import base64

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import CavendishError
from scheduler.settings import Settings
from worker.webhooks.signing import new_secret, new_signing_key
from worker.webhooks.vault import SealedShut, Vault, new_key

KEY, OLDER = new_key(), new_key()
SECRET = new_secret()


@given(name=st.text(), secret=st.text())
def test_what_is_sealed_opens_again(name: str, secret: str) -> None:
    vault = Vault([KEY])
    assert vault.open(name, vault.seal(name, secret)) == secret
    assert Vault([]).open(name, Vault([]).seal(name, secret)) == secret


@pytest.mark.parametrize("secret", [SECRET, new_signing_key()], ids=["v1", "v1a"])
def test_a_sealed_secret_shows_neither_itself_nor_its_endpoint_and_is_never_the_same(secret: str) -> None:
    sealed = Vault([KEY]).seal("orders-of-acme", secret)
    inside = base64.urlsafe_b64decode(sealed.removeprefix("sealed:"))
    assert sealed.startswith("sealed:")
    assert not any(word in text for text in (sealed.encode(), inside) for word in (secret.encode(), b"orders-of-acme"))
    assert sealed != Vault([KEY]).seal("orders-of-acme", secret)


def test_without_a_key_nothing_is_sealed_and_the_text_says_so() -> None:
    assert Vault([]).seal("orders", SECRET) == f"plain:{SECRET}"
    assert (Vault([]).encrypts, Vault([KEY]).encrypts) == (False, True)


def test_what_was_kept_before_there_was_a_key_is_still_read() -> None:
    assert Vault([KEY]).open("orders", f"plain:{SECRET}") == SECRET


def test_the_newest_key_seals_and_each_opens() -> None:
    before, after = Vault([OLDER]).seal("orders", SECRET), Vault([KEY, OLDER]).seal("orders", SECRET)
    assert Vault([KEY, OLDER]).open("orders", before) == Vault([KEY]).open("orders", after) == SECRET
    with pytest.raises(SealedShut):
        Vault([OLDER]).open("orders", after)


@pytest.mark.parametrize(
    ("keys", "why"),
    [([], "is sealed, and CAVENDISH_SECRET_KEY is not set"), ([OLDER], "opens with no key in CAVENDISH_SECRET_KEY")],
)
def test_a_secret_whose_key_is_not_there_stays_shut_and_the_complaint_names_the_endpoint_only(keys: list[str], why: str) -> None:
    sealed = Vault([KEY]).seal("orders", SECRET)
    with pytest.raises(SealedShut, match=why) as refused:
        Vault(keys).open("orders", sealed)
    complaint = str(refused.value)
    assert complaint.startswith("The secret of the endpoint 'orders' ")
    assert not any(word in complaint for word in (SECRET, sealed.removeprefix("sealed:"), KEY, OLDER))
    assert isinstance(refused.value, ValueError)
    assert isinstance(refused.value, CavendishError)


def test_the_secret_of_another_endpoint_is_noticed() -> None:
    vault = Vault([KEY])
    with pytest.raises(SealedShut, match="'theirs' was sealed for another endpoint"):
        vault.open("theirs", vault.seal("ours", SECRET))


@given(st.data())
def test_a_sealed_secret_that_was_changed_stays_shut(data: st.DataObject) -> None:
    sealed = Vault([KEY]).seal("orders", SECRET)
    raw = bytearray(base64.urlsafe_b64decode(sealed.removeprefix("sealed:")))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SealedShut, match="opens with no key"):
        Vault([KEY]).open("orders", f"sealed:{base64.urlsafe_b64encode(raw).decode()}")


@given(st.text().filter(lambda text: not text.startswith("plain:")))
@pytest.mark.parametrize("before", ["", "sealed:"])
def test_what_was_never_sealed_stays_shut(before: str, text: str) -> None:
    with pytest.raises(SealedShut):
        Vault([KEY]).open("orders", before + text)


@pytest.mark.parametrize("inside", [b"", b"\xff", b"[]", b"7", b'"whsec_"', b"{}", b'{"name":"orders"}'])
def test_what_somebody_else_sealed_with_our_key_stays_shut(inside: bytes) -> None:
    token = Fernet(KEY).encrypt(inside).decode()
    with pytest.raises(SealedShut):
        Vault([KEY]).open("orders", f"sealed:{token}")


@pytest.mark.parametrize(
    "keys", [KEY, f"{KEY}, {OLDER}", base64.b64encode(b"\xff" * 32).decode()], ids=["one", "two", "standard"]
)
def test_every_key_that_the_settings_take_seals(keys: str) -> None:
    vault = Vault(Settings.load({"CAVENDISH_SECRET_KEY": keys}).secret_key)
    assert vault.open("orders", vault.seal("orders", SECRET)) == SECRET
