"""Pure: webhook endpoints. A registered one has a name and secrets; any other is known by its URL.

An endpoint has one queue of deliveries and one circuit, and is enabled or disabled as a whole. URLs
that differ only in their query are one endpoint, so a receiver whose URLs end in `?job=7` is one
receiver. Each such URL is a subscription of its own, `ENDPOINT.QUERY`; the name of a delivery is
`SUBSCRIPTION:ID`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, fields, replace

from cavendish.endpoints.webhook_events import chosen
from cavendish.policy.backoff import WEBHOOK_WAITS, RetrySchedule
from cavendish.stored_json import END_OF_TIME, compact, read

NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_LIKE_A_HASH = re.compile(r"[0-9a-f]{16}")
#: Secrets of an endpoint that may sign at the same time, and the longest time (seconds) for which
#: a replaced one may still sign.
KEYS, LONGEST_OVERLAP = 10, 7 * 86400.0
#: Seconds for which workers use what they have read of endpoints.
FRESH_FOR = 1.0
#: The endpoint of the groups: ends of ids are told to it as to a receiver, but it is none. Nobody
#: can register this name, and no hash of a URL is like it.
GROUP = "+group"


def name_complaint(name: str) -> str | None:
    """Why an endpoint cannot have this name, or None."""
    if NAME.fullmatch(name) and not _LIKE_A_HASH.fullmatch(name):
        return None
    characters = "1 to 40 of the characters a-z, 0-9, '_' and '-'"
    return f"the name of an endpoint has {characters} and begins with a letter"


def is_url(webhook: str) -> bool:
    """True for a webhook that is a URL, false for the name of a registered endpoint."""
    return ":" in webhook or "/" in webhook


def endpoint_of(webhook: str) -> str:
    """The endpoint of a webhook: its registered name, or a hash of the URL without its query."""
    return _hash(_parted(webhook)[0], 16) if is_url(webhook) else webhook


def subscription_of(webhook: str) -> str:
    """The subscription of a webhook: the endpoint, and a hash of the query if the URL has one."""
    query = _parted(webhook)[1] if is_url(webhook) else ""
    return endpoint_of(webhook) + (f".{_hash(query, 8)}" if query else "")


def subscription_of_group(name: str) -> str:
    """The subscription by which a group learns that an id has ended."""
    return f"{GROUP}.{_hash(name, 16)}"


def is_of_group(delivery_or_subscription: str) -> bool:
    """True for the subscription of a group, which has no receiver."""
    return delivery_or_subscription.startswith(GROUP)


def endpoint_in(delivery_or_subscription: str) -> str:
    """The endpoint that a delivery or a subscription belongs to."""
    return delivery_or_subscription.partition(":")[0].partition(".")[0]


def _parted(url: str) -> tuple[str, str]:
    without_fragment = url.partition("#")[0]  # which is never sent
    base, mark, query = without_fragment.partition("?")
    return base, mark + query


def _hash(text: str, length: int) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:length]


@dataclass(frozen=True, slots=True)
class Key:
    """A signing secret, encrypted.

    A replaced one signs until `until`. `public` is the key that verifies signatures of v1a.
    """

    encrypted: str = field(repr=False)
    made_at: float
    until: float | None = None
    public: str = ""

    def signs(self, now: float) -> bool:
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True)
class Header:
    """A header that webhooks to an endpoint carry; its value is encrypted like a secret."""

    name: str
    encrypted: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registered endpoint.

    `consent`: it has agreed in the CloudEvents handshake; `per_minute`: the calls that it allows
    there, `rate`: those that its operator allows (None: any number). `events`: the kinds of
    webhooks that it gets, none for all. `schedule`: how it is tried again, None for the default.
    """

    name: str
    url: str
    created_at: float
    keys: tuple[Key, ...] = ()
    consent: bool = False
    per_minute: float | None = None
    rate: float | None = None
    events: tuple[str, ...] = ()
    headers: tuple[Header, ...] = ()
    schedule: RetrySchedule | None = None

    @property
    def calls_per_minute(self) -> float | None:
        """The most calls a minute, None for any number."""
        return min((rate for rate in (self.rate, self.per_minute) if rate), default=None)

    @property
    def waits(self) -> tuple[float, ...]:
        """Seconds before each attempt of a delivery."""
        return self.schedule.waits if self.schedule else WEBHOOK_WAITS

    def chooses(self, kind: str) -> bool:
        """True if it gets webhooks of this kind."""
        return chosen(self.events, kind)

    def living_keys(self, now: float) -> tuple[Key, ...]:
        """The keys that sign now, the newest first."""
        return tuple(
            sorted((key for key in self.keys if key.signs(now)), key=lambda key: -key.made_at)
        )

    def rotated(self, fresh: tuple[Key, ...], now: float, overlap: float) -> Endpoint:
        """The endpoint with `fresh` keys; the present ones sign for at most `overlap` seconds."""
        old = [
            replace(key, until=min(key.until or now + overlap, now + overlap))
            for key in self.living_keys(now)
        ]
        return replace(self, keys=(*fresh, *old)[:KEYS])

    @classmethod
    def from_json(cls, name: str, text: object) -> Endpoint | None:
        """Read what `to_json` wrote; None for anything else."""
        return read(cls, text, name=name)

    def to_json(self) -> str:
        """The JSON text that is stored under the name."""
        return compact({field.name: getattr(self, field.name) for field in fields(self)[1:]})


@dataclass(frozen=True, slots=True)
class Consent:
    """What an endpoint answered when it was asked for its consent.

    `complaint`: why this is no consent; `per_minute`: its limit of calls, None for no limit.
    """

    complaint: str = ""
    per_minute: float | None = None

    @property
    def granted(self) -> bool:
        return not self.complaint


@dataclass(frozen=True, slots=True)
class NewSecret:
    """The new `secret` of an endpoint, which is shown only now: give it to the receiver.

    - `endpoint`: its name;
    - `public_key`: of a key pair that signs as well (v1a), or None;
    - `encrypted`: the store holds the secret encrypted; false without a CAVENDISH_SECRET_KEY;
    - `old_until`: until when the secrets before it sign as well, in seconds since the Unix epoch;
      None if there were none.
    """

    endpoint: str
    secret: str = field(repr=False)
    public_key: str | None = None
    encrypted: bool = False
    old_until: float | None = None


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A webhook endpoint as operators see it.

    - `name` and `url`; the name of one that is known by its URL is a hash;
    - `registered` under a name; `enabled`, or not for a `reason`; `waiting`: deliveries for it;
    - `events`: the kinds that it gets, or "all"; `headers`: the names of those that it gets;
    - `rate`: the most webhooks a minute that its operator allows, and `per_minute` the most in all,
      also by its own `consent` (None: any number);
    - `retries` after the first attempt, the last of them `retry_for` seconds after it.
    """

    name: str
    url: str
    registered: bool
    enabled: bool
    reason: str
    waiting: int
    events: tuple[str, ...]
    headers: tuple[str, ...]
    rate: float | None
    per_minute: float | None
    retries: int
    retry_for: float
    consent: bool


@dataclass(frozen=True, slots=True)
class Disabled:
    """Why an endpoint is disabled, since when, and which URL it had."""

    at: float
    why: str
    url: str = ""

    @classmethod
    def from_json(cls, text: object) -> Disabled:
        """Read what `to_json` wrote; anything unreadable still means disabled."""
        known = read(cls, text)
        return known if known and 0 <= known.at < END_OF_TIME else cls(0.0, "unreadable")

    def to_json(self) -> str:
        """The JSON text that is stored."""
        return compact(self)
