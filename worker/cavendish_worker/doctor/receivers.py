"""Webhook endpoints as an operator sees them, and what is wrong with them and with how their
secrets are encrypted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cavendish.model import OPERATIONS
from cavendish.policy.circuit import Circuit
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.webhook_endpoint import Disabled, Endpoint, Key, name_complaint
from cavendish_worker.doctor.finding import Finding
from cavendish_worker.webhooks.encryption import DecryptionError, Encryption


@dataclass(frozen=True, slots=True)
class EndpointView:
    """A webhook endpoint that is registered, disabled, or pending something.

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
            "per_minute": endpoint.per_minute if endpoint else None,
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
    store: Store,
    pending_deliveries: Mapping[str, int] | None = None,
    remembered: dict[str, str] | None = None,
) -> list[EndpointView]:
    """All webhook endpoints that there is something to say about, the registered ones first. Raises
    BookUnavailable.

    `pending_deliveries`: how many deliveries wait for each, where the caller has counted them
    already. `remembered`: the URLs of nameless endpoints that an earlier call found; this one adds
    to it.
    """
    registered, disabled, waiting = (
        store.endpoints.all(),
        store.endpoints.disabled(),
        Counter[str](pending_deliveries or {}),
    )
    lanes = [*store.tasks.lanes(), OPERATIONS]
    for lane in lanes if pending_deliveries is None else ():
        waiting.update(store.deliveries.waiting(lane))
    names = [*registered, *sorted({*disabled, *+waiting, *(remembered or ())} - {*registered})]
    urls = {name: endpoint.url for name, endpoint in registered.items()}
    urls |= {name: why.url for name, why in disabled.items() if why.url and name not in urls}
    known = {} if remembered is None else remembered
    nameless = [
        name for name in names if name not in urls and name not in known and name_complaint(name)
    ]
    known |= {
        delivery.endpoint: delivery.url
        for lane in lanes
        if nameless
        for delivery in store.deliveries.examples(lane, nameless)
        if delivery.url
    }
    urls = known | urls
    return [
        EndpointView(
            name,
            urls.get(name, ""),
            registered.get(name),
            disabled.get(name),
            circuit,
            waiting[name],
        )
        for name, circuit in zip(names, store.shared_state.circuits(names), strict=True)
    ]


def trouble(view: EndpointView) -> list[Finding]:
    """What keeps an endpoint from getting what it is pending."""
    found, what, wait = [], f"endpoint {view.name}", counted(view.waiting)
    if view.disabled:
        since = datetime.fromtimestamp(view.disabled.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        advice = f"Mend the receiver{f' at {view.url}' if view.url else ''}, then: cavendish endpoint enable {view.name}"
        found.append(
            Finding(
                what,
                ok=False,
                found=f"is disabled since {since}: {view.disabled.why}; {wait}",
                advice=advice,
            )
        )
    if view.waiting and view.named and not view.registered:
        advice = f"cavendish endpoint add {view.name} URL; else what is pending goes to the dead letters when its turn comes."
        found.append(
            Finding(what, ok=False, found=f"is not registered, and {wait} for it", advice=advice)
        )
    return found


def secrets(
    store: Store, settings: Settings, now: float, *, encrypt: bool, elsewhere: bool
) -> list[Finding]:
    """What is wrong with how the secrets of registered endpoints are encrypted.

    `elsewhere`: there are workers, who have keys.
    """
    what, registered = "endpoint secrets", store.endpoints.all()
    if not registered:
        return []
    encrypted = {
        name: [key.encrypted for key in endpoint.living_keys(now)]
        for name, endpoint in registered.items()
    }
    found, where = [], "the workers" if elsewhere else "this environment"
    if not encrypt:
        why = f"CAVENDISH_SECRET_KEY is not set for {where}, and endpoints are registered: {len(registered)}"
        advice = "Set it for the workers and where endpoints are added; `cavendish endpoint new-key` makes one."
        found.append(Finding(what, ok=False, found=why, advice=advice))
    plain = [
        name
        for name, texts in encrypted.items()
        if any(_opens(Encryption(()), name, text) for text in texts)
    ]
    if plain:
        why = f"unencrypted in the store: {', '.join(plain[:5])}{f' and {len(plain) - 5} more' if plain[5:] else ''}"
        advice = "With CAVENDISH_SECRET_KEY set: cavendish endpoint rotate NAME; the old one goes when it has ceased to sign."
        found.append(Finding(what, ok=False, found=why, advice=advice))
    here = Encryption(settings.secret_key)
    shut = [
        name
        for name, texts in encrypted.items()
        if not all(_opens(here, name, text) for text in texts)
    ]
    if shut and encrypt and elsewhere and not here.encrypts:
        why = "encrypted, and not examined: CAVENDISH_SECRET_KEY is not set here, only for the workers"
        found.append(Finding(what, ok=True, found=why))
    elif shut:
        why = f"no key of this environment opens those of {', '.join(shut[:5])}{' and more' if shut[5:] else ''}"
        advice = "Add the key that encrypted them to CAVENDISH_SECRET_KEY, or: cavendish endpoint rotate NAME --overlap 0"
        found.append(Finding(what, ok=False, found=why, advice=advice))
    return found


def _opens(encryption: Encryption, name: str, encrypted: str) -> bool:
    try:
        encryption.open(name, encrypted)
    except DecryptionError:
        return False
    return True
