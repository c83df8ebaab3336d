"""What is wrong with webhook endpoints, and with their secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from cavendish.endpoints.encryption import DecryptionError, Encryption
from cavendish.endpoints.endpoint_view import EndpointView
from cavendish.endpoints.webhook_endpoint import Endpoint
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.doctor.finding import Finding, ill, well


def counted(deliveries: int) -> str:
    """How many deliveries wait, in words."""
    return f"{deliveries or 'no'} deliveries wait" if deliveries != 1 else "1 delivery waits"


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
