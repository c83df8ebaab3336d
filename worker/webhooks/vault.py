"""Seals the secrets of registered endpoints before they go into the book, and opens them again."""

from __future__ import annotations

import json
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from scheduler.errors import CavendishError
from scheduler.tracking import compact

_SEALED, _PLAIN = "sealed:", "plain:"


class SealedShut(CavendishError, ValueError):
    """A secret cannot be read: its key is not among ours, or it is not what was sealed for this endpoint."""


def new_key() -> str:
    """A fresh key for CAVENDISH_SECRET_KEY."""
    return Fernet.generate_key().decode()


class Vault:
    """Seals with the first of the keys (CAVENDISH_SECRET_KEY, the newest first), opens with any; without keys, seals nothing."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key.encode()) for key in keys]) if keys else None

    @property
    def encrypts(self) -> bool:
        """True where there is a key to seal with."""
        return self._fernet is not None

    def seal(self, name: str, text: str) -> str:
        """The secret of the endpoint `name` as the book may hold it. The name is sealed in, so that no two can be swapped."""
        if self._fernet is None:
            return _PLAIN + text
        return _SEALED + self._fernet.encrypt(compact({"name": name, "secret": text}).encode()).decode()

    def open(self, name: str, text: str) -> str:
        """The secret that was sealed for the endpoint `name`. Raises SealedShut, which shows no secret."""
        if text.startswith(_PLAIN):
            return text.removeprefix(_PLAIN)
        if not text.startswith(_SEALED):
            raise SealedShut(f"What the book holds as the secret of the endpoint {name!r} is none.")
        if self._fernet is None:
            raise SealedShut(f"The secret of the endpoint {name!r} is sealed, and CAVENDISH_SECRET_KEY is not set.")
        try:
            opened = json.loads(self._fernet.decrypt(text.removeprefix(_SEALED).encode()))
            owner, secret = opened["name"], str(opened["secret"])
        except (InvalidToken, ValueError, LookupError, TypeError):
            raise SealedShut(f"The secret of the endpoint {name!r} opens with no key in CAVENDISH_SECRET_KEY.") from None
        if owner != name:
            raise SealedShut(f"The secret of the endpoint {name!r} was sealed for another endpoint.")
        return secret
