"""Encrypts the secrets of registered endpoints, and the values of their headers, before they are
stored, and decrypts them.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cavendish.errors import CavendishError, EndpointError
from cavendish.stored_json import compact

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

_ENCRYPTED, _PLAIN = "encrypted:", "plain:"
#: What a client says that lacks a package which every worker has.
NOT_INSTALLED = (
    "Secrets of endpoints need the package cryptography: pip install 'cavendish[endpoints]'."
)


class DecryptionError(CavendishError, ValueError):
    """A secret cannot be decrypted: its key is unknown, or it belongs to another endpoint."""


def new_key() -> str:
    """A fresh key for CAVENDISH_SECRET_KEY."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


class Encryption:
    """Encrypts with the first key of CAVENDISH_SECRET_KEY (the newest), and decrypts with any.

    Without keys, it encrypts nothing.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = _fernet(keys) if keys else None

    @property
    def encrypts(self) -> bool:
        """True where there is a key to encrypt with."""
        return self._fernet is not None

    def encrypt(self, name: str, text: str, header: str = "") -> str:
        """The secret of the endpoint `name`, or the value of its `header`, as it is stored.

        The names are encrypted with it, so that nobody can exchange two secrets.
        """
        if self._fernet is None:
            return _PLAIN + text
        inside = compact({"name": name, "secret": text} | ({"header": header} if header else {}))
        return _ENCRYPTED + self._fernet.encrypt(inside.encode()).decode()

    def decrypt(self, name: str, text: str, header: str = "") -> str:
        """The secret that was encrypted for the endpoint `name`, or for its `header`.

        Raises DecryptionError, whose text shows no secret.
        """
        if text.startswith(_PLAIN):
            return text.removeprefix(_PLAIN)
        whose = f"{f'header {header}' if header else 'secret'} of the endpoint {name!r}"
        if not text.startswith(_ENCRYPTED):
            raise DecryptionError(f"The {whose} is stored in an unknown form.")
        if self._fernet is None:
            raise DecryptionError(f"The {whose} is encrypted, and CAVENDISH_SECRET_KEY is not set.")
        try:
            inside = json.loads(_decrypted(self._fernet, text.removeprefix(_ENCRYPTED)))
            owner = (inside["name"], inside.get("header", ""))
            secret = str(inside["secret"])
        except (ValueError, LookupError, TypeError):
            raise DecryptionError(f"The {whose} fits no key in CAVENDISH_SECRET_KEY.") from None
        if owner != (name, header):
            raise DecryptionError(f"The {whose} was encrypted for another endpoint.")
        return secret


def _fernet(keys: Sequence[str]) -> MultiFernet:
    try:
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 (an extra)
    except ImportError:
        raise EndpointError(NOT_INSTALLED) from None
    return MultiFernet([Fernet(key.encode()) for key in keys])


def _decrypted(fernet: MultiFernet, token: str) -> bytes:
    """Raises ValueError if no key fits."""
    from cryptography.fernet import InvalidToken  # noqa: PLC0415

    try:
        return fernet.decrypt(token.encode())
    except InvalidToken:
        raise ValueError("no key fits") from None
