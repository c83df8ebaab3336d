"""How the secrets of registered endpoints lie in the store."""

from __future__ import annotations

import base64

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from cavendish.endpoints.encryption import DecryptionError, Encryption, new_key
from cavendish.endpoints.signing import new_secret, new_signing_key
from cavendish.errors import CavendishError
from cavendish.settings import Settings

KEY, OLDER = new_key(), new_key()
SECRET = new_secret()


@given(name=st.text(), secret=st.text())
def test_what_is_encrypted_opens_again(name: str, secret: str) -> None:
    encryption = Encryption([KEY])
    assert encryption.decrypt(name, encryption.encrypt(name, secret)) == secret
    assert Encryption([]).decrypt(name, Encryption([]).encrypt(name, secret)) == secret


@pytest.mark.parametrize("secret", [SECRET, new_signing_key()], ids=["v1", "v1a"])
def test_a_encrypted_secret_shows_neither_itself_nor_its_endpoint_and_is_never_the_same(
    secret: str,
) -> None:
    encrypted = Encryption([KEY]).encrypt("orders-of-acme", secret)
    inside = base64.urlsafe_b64decode(encrypted.removeprefix("encrypted:"))
    assert encrypted.startswith("encrypted:")
    assert not any(
        word in text
        for text in (encrypted.encode(), inside)
        for word in (secret.encode(), b"orders-of-acme")
    )
    assert encrypted != Encryption([KEY]).encrypt("orders-of-acme", secret)


def test_without_a_key_nothing_is_encrypted_and_the_text_says_so() -> None:
    assert Encryption([]).encrypt("orders", SECRET) == f"plain:{SECRET}"
    assert (Encryption([]).encrypts, Encryption([KEY]).encrypts) == (False, True)


def test_what_was_kept_before_there_was_a_key_is_still_read() -> None:
    assert Encryption([KEY]).decrypt("orders", f"plain:{SECRET}") == SECRET


def test_the_newest_key_seals_and_each_opens() -> None:
    before, after = (
        Encryption([OLDER]).encrypt("orders", SECRET),
        Encryption([KEY, OLDER]).encrypt("orders", SECRET),
    )
    assert (
        Encryption([KEY, OLDER]).decrypt("orders", before)
        == Encryption([KEY]).decrypt("orders", after)
        == SECRET
    )
    with pytest.raises(DecryptionError):
        Encryption([OLDER]).decrypt("orders", after)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ([], "is encrypted, and CAVENDISH_SECRET_KEY is not set"),
        ([OLDER], "fits no key in CAVENDISH_SECRET_KEY"),
    ],
)
def test_a_secret_whose_key_is_not_there_stays_shut_and_the_complaint_names_the_endpoint_only(
    keys: list[str], why: str
) -> None:
    encrypted = Encryption([KEY]).encrypt("orders", SECRET)
    with pytest.raises(DecryptionError, match=why) as refused:
        Encryption(keys).decrypt("orders", encrypted)
    complaint = str(refused.value)
    assert complaint.startswith("The secret of the endpoint 'orders' ")
    assert not any(
        word in complaint for word in (SECRET, encrypted.removeprefix("encrypted:"), KEY, OLDER)
    )
    assert isinstance(refused.value, ValueError)
    assert isinstance(refused.value, CavendishError)


def test_the_secret_of_another_endpoint_is_noticed() -> None:
    encryption = Encryption([KEY])
    with pytest.raises(DecryptionError, match="'theirs' was encrypted for another endpoint"):
        encryption.decrypt("theirs", encryption.encrypt("ours", SECRET))


@given(st.data())
def test_a_encrypted_secret_that_was_changed_stays_shut(data: st.DataObject) -> None:
    encrypted = Encryption([KEY]).encrypt("orders", SECRET)
    raw = bytearray(base64.urlsafe_b64decode(encrypted.removeprefix("encrypted:")))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DecryptionError, match="fits no key"):
        Encryption([KEY]).decrypt(
            "orders", f"encrypted:{base64.urlsafe_b64encode(raw).decode()}encrypted:"
        )


@given(st.text().filter(lambda text: not text.startswith("plain:")))
@pytest.mark.parametrize("before", ["", "encrypted:"])
def test_what_was_never_encrypted_stays_shut(before: str, text: str) -> None:
    with pytest.raises(DecryptionError):
        Encryption([KEY]).decrypt("orders", before + text)


@pytest.mark.parametrize(
    "inside", [b"", b"\xff", b"[]", b"7", b'"whsec_"', b"{}", b'{"name":"orders"}']
)
def test_what_somebody_else_encrypted_with_our_key_stays_shut(inside: bytes) -> None:
    token = Fernet(KEY).encrypt(inside).decode()
    with pytest.raises(DecryptionError):
        Encryption([KEY]).decrypt("orders", f"encrypted:{token}encrypted:")


@pytest.mark.parametrize(
    "keys",
    [KEY, f"{KEY}, {OLDER}", base64.b64encode(b"\xff" * 32).decode()],
    ids=["one", "two", "standard"],
)
def test_every_key_that_the_settings_take_seals(keys: str) -> None:
    encryption = Encryption(Settings.load({"CAVENDISH_SECRET_KEY": keys}).secret_key)
    assert encryption.decrypt("orders", encryption.encrypt("orders", SECRET)) == SECRET
