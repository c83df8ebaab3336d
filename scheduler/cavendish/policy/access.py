"""Pure: the keys of the HTTP service, and what each of them may do.

A key is `cav_` with eight characters that name it, `_`, and a secret. The store has a hash of the
whole text only, so nobody can read a key from it; the name is no secret, and finds the record.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection
from dataclasses import dataclass

from cavendish.service_names import SERVICE

#: What a key may be allowed: submit and change ids, read them, operate the whole.
RIGHTS = ("submit", "read", "operate")
_KEY = re.compile(r"(cav_[0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_ACCOUNT = re.compile(r"[a-z0-9_-]{1,40}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as the store has it.

    - `name`, by which operators know it, and which is the producer of what it submits; `prefix`:
      the part of its text that is no secret; `digest`: SHA-256 of its text, as hex digits;
    - `may`: some of RIGHTS; `accounts` and `services` that it is for (none: all); `own`: it sees
      only what it submitted itself;
    - `created_at`, `expires_at` (None: never): seconds since the Unix epoch.
    """

    name: str
    prefix: str
    digest: str
    may: tuple[str, ...]
    accounts: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    own: bool = False
    created_at: float = 0.0
    expires_at: float | None = None

    @property
    def limited(self) -> bool:
        """True if it is not for everything in the store."""
        return bool(self.accounts or self.services or self.own)

    def expired(self, now: float) -> bool:
        """True if it is no longer valid at this time."""
        return self.expires_at is not None and now >= self.expires_at


def prefix_of(text: str) -> str | None:
    """The part of a key that is no secret; None for a text that is no key."""
    found = _KEY.fullmatch(text)
    return found[1] if found else None


def digest_of(text: str) -> str:
    """What the store has of a key. Its secret has 256 bits, so a fast hash is enough."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_text_of(key: ApiKey, text: str) -> bool:
    """True for the text of a key; it takes as long for any other text."""
    return hmac.compare_digest(key.digest, digest_of(text))


def complaint(
    name: str,
    may: Collection[str],
    accounts: Collection[str],
    services: Collection[str],
    *,
    own: bool,
) -> str | None:
    """Why there can be no such key, or None."""
    if not _NAME.fullmatch(name):
        return "the name of a key has 1 to 40 of the characters a-z, 0-9, '_' and '-'"
    if not may or not set(may) <= set(RIGHTS):
        return f"a key may do some of {', '.join(RIGHTS)}"
    for one in accounts:
        if not _ACCOUNT.fullmatch(one):
            return f"{one!r} is no name of an account"
    for one in services:
        if not SERVICE.fullmatch(one):
            return f"{one!r} is no name of a service"
    if own and "operate" in may:
        return "a key that sees only its own ids cannot operate the whole"
    return None
