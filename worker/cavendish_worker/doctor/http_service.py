"""The HTTP service: does it run where it is wanted, which keys end, what did the gateway lose?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cavendish.policy.access import ApiKey
from cavendish.store import Store
from cavendish.store.fleet import Member
from cavendish_worker.doctor.finding import Finding, ill, well

#: Seconds before its end at which a key is spoken of.
SOON = 7 * 86400.0


def findings(store: Store, living: Sequence[Member], now: float) -> list[Finding]:
    """What the store shows of it. Raises StoreUnavailable."""
    keys, alive = store.api_keys.all(), [one for one in living if one.role == "http"]
    return [
        *_service(len(alive), keys),
        *(found for key in keys for found in _key(key, now)),
        *_uncertain(store, now),
    ]


def _service(alive: int, keys: Sequence[ApiKey]) -> list[Finding]:
    """Whoever made a key wants to use it."""
    if alive:
        return [well("http service", f"{alive} alive")]
    if not keys:
        return []
    found = f"0 alive, but {len(keys)} {'key was' if len(keys) == 1 else 'keys were'} made for it"
    advice = "Start one: cavendish serve, or `cavendish up`; or revoke: cavendish key revoke NAME."
    return [ill("http service", found, advice)]


def _key(key: ApiKey, now: float) -> list[Finding]:
    if key.expires_at is None or key.expires_at > now + SOON:
        return []
    ends = datetime.fromtimestamp(key.expires_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    verb = "expired" if key.expired(now) else "expires"
    advice = f"Give its user a new one (cavendish key add), then: cavendish key revoke {key.name}"
    return [well(f"key {key.name}", f"{verb} at {ends}", advice)]


def _uncertain(store: Store, now: float) -> list[Finding]:
    submits = store.uncertain.all(now)
    if not submits:
        return []
    last = submits[-1]
    at = datetime.fromtimestamp(last.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    found = (
        f"{len(submits)} of uncertain fate within a week, the last by {last.producer} to "
        f"{last.account}/{last.service} at {at}: {last.said}"
    )
    advice = (
        "Search the API for their tasks before they are bought again (`gateway.submit_uncertain` "
        "in the log has each); then: cavendish doctor --acknowledge."
    )
    return [ill("paid submits", found, advice)]
