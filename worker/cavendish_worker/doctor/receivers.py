"""Webhook endpoints as operators see them, and what is wrong with them and with their secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cavendish.endpoint_options import shown
from cavendish.policy.circuit import Circuit
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.statistics import Statistics
from cavendish.webhook_endpoint import Disabled, Endpoint, Key, name_complaint
from cavendish_worker.doctor.finding import Finding, ill, well
from cavendish_worker.webhooks.encryption import DecryptionError, Encryption


@dataclass(frozen=True, slots=True)
class EndpointView:
    """A webhook endpoint that is registered, disabled, or has pending deliveries (`waiting`).

    `registered` and `disabled`: None where it is not.
    """

    name: str
    url: str
    registered: Endpoint | None
    disabled: Disabled | None
    circuit: Circuit
    waiting: int

    @property
    def named(self) -> bool:
        """True where it is known by a name, registered or not, and not by its URL."""
        return name_complaint(self.name) is None

    def to_json(self, now: float) -> dict[str, Any]:
        """A plain dictionary for `--json`; no secrets in it."""
        endpoint, disabled = self.registered, self.disabled
        keys = endpoint.living_keys(now) if endpoint else ()
        return {
            "name": self.name,
            "url": self.url,
            "registered": endpoint is not None,
            "enabled": disabled is None,
            "disabled_at": disabled.at if disabled else None,
            "reason": disabled.why if disabled else "",
            "circuit": self.circuit.state,
            "failures": self.circuit.failures,
            "open_until": self.circuit.open_until or None,
            "waiting": self.waiting,
            "signatures": sorted({_kind(key) for key in keys})
            if endpoint
            else []
            if self.named
            else ["v1"],
            "overlapping": sum(key.until is not None for key in keys),
            "last_success": self.circuit.ok_at or None,
            "created_at": endpoint.created_at if endpoint else None,
            "consent": bool(endpoint and endpoint.consent),
            **shown(endpoint or Endpoint(self.name, self.url, 0.0)),
            "keys": [
                {
                    "kind": _kind(k),
                    "made_at": k.made_at,
                    "until": k.until,
                    "public_key": k.public or None,
                }
                for k in keys
            ],
        }


def _kind(key: Key) -> str:
    return "v1a" if key.public else "v1"


def counted(deliveries: int) -> str:
    """How many deliveries wait, in words."""
    return f"{deliveries or 'no'} deliveries wait" if deliveries != 1 else "1 delivery waits"


def endpoints(
    store: Store, statistics: Statistics | None = None, known_urls: dict[str, str] | None = None
) -> list[EndpointView]:
    """All webhook endpoints with something to show, the registered ones first.

    `statistics`: where the caller has read them already. `known_urls`: the URLs of endpoints
    without a name that an earlier call found; this call adds to it. Raises StoreUnavailable.
    """
    known = {} if known_urls is None else known_urls
    found = statistics or store.statistics(endpoints=known)
    registered, disabled = found.registered, found.disabled
    waiting = found.pending_by_endpoint
    names = [*registered, *sorted({*disabled, *waiting, *known} - {*registered})]
    urls = {name: why.url for name, why in disabled.items() if why.url}
    urls |= {name: endpoint.url for name, endpoint in registered.items()}
    unknown = {name for name in names if name_complaint(name)} - {*urls, *known}
    known |= store.deliveries.urls(
        (lane.lane, name) for lane in found.lanes for name in unknown & {*lane.queued, *lane.new}
    )
    urls = known | urls
    return [
        EndpointView(
            name,
            urls.get(name, ""),
            registered.get(name),
            disabled.get(name),
            found.circuits.get(name, Circuit()),
            waiting[name],
        )
        for name in names
    ]


def trouble(view: EndpointView) -> list[Finding]:
    """What keeps an endpoint from getting its deliveries."""
    found, what, wait = [], f"endpoint {view.name}", counted(view.waiting)
    if view.disabled:
        since = datetime.fromtimestamp(view.disabled.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        receiver = f"the receiver at {view.url}" if view.url else "the receiver"
        advice = f"Repair {receiver}, then: cavendish endpoint enable {view.name}"
        found.append(ill(what, f"is disabled since {since}: {view.disabled.why}; {wait}", advice))
    if view.waiting and view.named and not view.registered:
        advice = (
            f"cavendish endpoint add {view.name} URL; otherwise its deliveries become dead letters."
        )
        found.append(ill(what, f"is not registered, and {wait} for it", advice))
    return found


def secrets(
    store: Store, settings: Settings, now: float, *, encrypt: bool, elsewhere: bool
) -> list[Finding]:
    """What is wrong with the encryption of the secrets and headers of registered endpoints.

    `encrypt`: CAVENDISH_SECRET_KEY is set for the workers, or here if there are none; `elsewhere`:
    there are workers.
    """
    what, registered, found = "endpoint secrets", store.endpoints.all(), list[Finding]()
    if not registered:
        return []
    if not encrypt:
        where = "the workers" if elsewhere else "this environment"
        why = (
            f"CAVENDISH_SECRET_KEY is not set for {where}, which serve {len(registered)} endpoints"
        )
        advice = (
            "Set it for the workers and where endpoints are added; "
            "`cavendish endpoint new-key` makes one."
        )
        found.append(ill(what, why, advice))
    if plain := _readable(Encryption(()), registered, now, every=False):
        advice = (
            "With CAVENDISH_SECRET_KEY set: cavendish endpoint rotate NAME; the old secret is "
            "deleted when it no longer signs. Headers: cavendish endpoint update NAME --header …"
        )
        found.append(ill(what, f"unencrypted in the store: {_some(plain)}", advice))
    here = Encryption(settings.secret_key)
    shut = sorted(set(registered) - set(_readable(here, registered, now, every=True)))
    if shut and encrypt and elsewhere and not here.encrypts:
        why = "encrypted, and not examined: only the workers have CAVENDISH_SECRET_KEY"
        found.append(well(what, why))
    elif shut:
        advice = (
            "Add the key that encrypted them to CAVENDISH_SECRET_KEY, or: cavendish endpoint "
            "rotate NAME --overlap 0; its headers: cavendish endpoint update NAME --header …"
        )
        found.append(ill(what, f"no key of this environment decrypts: {_some(shut)}", advice))
    return found


def _readable(
    encryption: Encryption, registered: Mapping[str, Endpoint], now: float, *, every: bool
) -> list[str]:
    """The endpoints of which any secret or header, or every one, can be decrypted."""
    enough = all if every else any
    return [
        name
        for name, endpoint in registered.items()
        if enough(_opens(encryption, name, *sealed) for sealed in _sealed(endpoint, now))
    ]


def _sealed(endpoint: Endpoint, now: float) -> list[tuple[str, str]]:
    """What is encrypted of an endpoint, each with the name of its header, "" for a secret."""
    secrets = [(key.encrypted, "") for key in endpoint.living_keys(now)]
    return secrets + [(header.encrypted, header.name) for header in endpoint.headers]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if names[5:] else ""
    return ", ".join(names[:5]) + more


def _opens(encryption: Encryption, name: str, encrypted: str, header: str) -> bool:
    try:
        encryption.decrypt(name, encrypted, header)
    except DecryptionError:
        return False
    return True
