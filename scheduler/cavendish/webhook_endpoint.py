"""Pure: the webhook endpoints. Registered ones have a name and secrets of their own; any other is
known by its URL.

An endpoint has one queue of deliveries, one circuit, and is enabled or disabled as a whole. URLs
that differ only in their query are one endpoint, so a receiver that is told the job by `?job=7` is
still one receiver; each such URL is a subscription of its own, `ENDPOINT.QUERY`, and a delivery is
called `SUBSCRIPTION:ID`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_LIKE_A_HASH = re.compile(r"[0-9a-f]{16}")
#: Secrets of an endpoint that may sign at the same time, and how long a replaced one may sign along
#: (seconds).
KEYS, LONGEST_OVERLAP = 10, 7 * 86400.0


def name_complaint(name: str) -> str | None:
    """Why an endpoint cannot be called so, or None."""
    if not NAME.fullmatch(name) or _LIKE_A_HASH.fullmatch(name):
        return "the name of an endpoint has 1 to 40 of the characters a-z, 0-9, '_' and '-' and begins with a letter"
    return None


def is_url(webhook: str) -> bool:
    """True for a webhook that is a URL, false for the name of a registered endpoint."""
    return ":" in webhook or "/" in webhook


def endpoint_of(webhook: str) -> str:
    """The endpoint of a webhook.

    A registered name as it is, else 16 hexadecimal digits of the URL without its query.
    """
    return _hash(_parted(webhook)[0], 16) if is_url(webhook) else webhook


def subscription_of(webhook: str) -> str:
    """What an id is subscribed to: the endpoint, and which query where the URL has one."""
    query = _parted(webhook)[1] if is_url(webhook) else ""
    return endpoint_of(webhook) + (f".{_hash(query, 8)}" if query else "")


def endpoint_in(delivery_or_subscription: str) -> str:
    """The endpoint that a delivery or a subscription belongs to."""
    return delivery_or_subscription.partition(":")[0].partition(".")[0]


def _parted(url: str) -> tuple[str, str]:
    base, mark, query = url.partition("#")[0].partition(
        "?"
    )  # a fragment is never sent, whatever it holds
    return base, mark + query


def _hash(text: str, length: int) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:length]


@dataclass(frozen=True, slots=True)
class Key:
    """A secret that signs, encrypted.

    Until `until` if it was replaced. `public` is what a receiver of v1a verifies with.
    """

    encrypted: str = field(repr=False)
    made_at: float
    until: float | None = None
    public: str = ""

    def signs(self, now: float) -> bool:
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registered endpoint.

    `consent`: it was asked by the CloudEvents handshake; `per_minute`: the rate that it allowed.
    """

    name: str
    url: str
    created_at: float
    keys: tuple[Key, ...] = ()
    consent: bool = False
    per_minute: float | None = None

    def living_keys(self, now: float) -> tuple[Key, ...]:
        """The keys that sign now, the newest first."""
        return tuple(
            sorted((key for key in self.keys if key.signs(now)), key=lambda key: -key.made_at)
        )

    def rotated(self, fresh: tuple[Key, ...], now: float, overlap: float) -> Endpoint:
        """With new keys.

        Those that sign now go on for `overlap` seconds, or less if that was said earlier.
        """
        old = [
            replace(key, until=min(key.until or now + overlap, now + overlap))
            for key in self.living_keys(now)
        ]
        return replace(self, keys=(*fresh, *old)[:KEYS])

    @classmethod
    def from_json(cls, name: str, text: str) -> Endpoint:
        """Read what `to_json` wrote. Raises ValueError or TypeError on anything else."""
        fields: Any = json.loads(text)
        if (
            not isinstance(fields, dict)
            or not isinstance(fields.get("url"), str)
            or not isinstance(fields.get("keys"), list)
        ):
            raise TypeError("no endpoint")
        keys = tuple(Key(**key) for key in fields.pop("keys"))
        return cls(name=name, keys=keys, **fields)

    def to_json(self) -> str:
        said = asdict(self)
        del said["name"]
        return json.dumps(said)


@dataclass(frozen=True, slots=True)
class Disabled:
    """Why an endpoint is sent nothing, since when, and which URL it had."""

    at: float
    why: str
    url: str = ""

    @classmethod
    def from_json(cls, text: str) -> Disabled:
        """Read what `to_json` wrote; anything unreadable still means disabled."""
        try:
            said: Mapping[str, Any] = json.loads(text)
            return cls(float(said["at"]), str(said["why"]), str(said.get("url", "")))
        except (TypeError, ValueError, KeyError, OverflowError, RecursionError):
            return cls(0.0, "unreadable")

    def to_json(self) -> str:
        return json.dumps(asdict(self))
