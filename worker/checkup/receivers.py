"""Webhook endpoints as an operator sees them, and what is wrong with them and with how their secrets are sealed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from scheduler.circuit import Circuit
from scheduler.endpoints import Disabled, Endpoint, Key, name_complaint
from scheduler.settings import Settings
from scheduler.store import Book
from scheduler.tracking import OPERATIONS
from worker.checkup.finding import Finding
from worker.webhooks.vault import SealedShut, Vault


@dataclass(frozen=True, slots=True)
class EndpointView:
    """A webhook endpoint that is registered, disabled, or owed something. `registered` and `disabled`: None where it is not."""

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
            "signatures": sorted({_kind(key) for key in keys}) if endpoint else [] if self.named else ["v1"],
            "overlapping": sum(key.until is not None for key in keys),
            "last_success": self.circuit.ok_at or None,
            "created_at": endpoint.created_at if endpoint else None,
            "consent": bool(endpoint and endpoint.consent),
            "per_minute": endpoint.per_minute if endpoint else None,
            "keys": [{"kind": _kind(k), "made_at": k.made_at, "until": k.until, "public_key": k.public or None} for k in keys],
        }


def _kind(key: Key) -> str:
    return "v1a" if key.public else "v1"


def counted(debts: int) -> str:
    """How many debts wait, in words."""
    return f"{debts or 'no'} debts wait" if debts != 1 else "1 debt waits"


def endpoints(book: Book, owed: Mapping[str, int] | None = None, remembered: dict[str, str] | None = None) -> list[EndpointView]:
    """All webhook endpoints that there is something to say about, the registered ones first. Raises BookUnavailable.

    `owed`: how many debts wait for each, where the caller has counted them already. `remembered`: the URLs of nameless
    endpoints that an earlier call found; this one adds to it.
    """
    registered, disabled, waiting = book.endpoints.all(), book.endpoints.disabled(), Counter[str](owed or {})
    lanes = [*book.tasks.lanes(), OPERATIONS]
    for lane in lanes if owed is None else ():
        waiting.update(book.debts.waiting(lane))
    names = [*registered, *sorted({*disabled, *+waiting, *(remembered or ())} - {*registered})]
    urls = {name: endpoint.url for name, endpoint in registered.items()}
    urls |= {name: why.url for name, why in disabled.items() if why.url and name not in urls}
    known = {} if remembered is None else remembered
    nameless = [name for name in names if name not in urls and name not in known and name_complaint(name)]
    known |= {debt.endpoint: debt.url for lane in lanes if nameless for debt in book.debts.examples(lane, nameless) if debt.url}
    urls = known | urls
    return [
        EndpointView(name, urls.get(name, ""), registered.get(name), disabled.get(name), circuit, waiting[name])
        for name, circuit in zip(names, book.learned.circuits(names), strict=True)
    ]


def trouble(view: EndpointView) -> list[Finding]:
    """What keeps an endpoint from getting what it is owed."""
    found, what, wait = [], f"endpoint {view.name}", counted(view.waiting)
    if view.disabled:
        since = datetime.fromtimestamp(view.disabled.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        advice = f"Mend the receiver{f' at {view.url}' if view.url else ''}, then: cavendish endpoint enable {view.name}"
        found.append(Finding(what, ok=False, found=f"is disabled since {since}: {view.disabled.why}; {wait}", advice=advice))
    if view.waiting and view.named and not view.registered:
        advice = f"cavendish endpoint add {view.name} URL; else what is owed goes to the dead letters when its turn comes."
        found.append(Finding(what, ok=False, found=f"is not registered, and {wait} for it", advice=advice))
    return found


def secrets(book: Book, settings: Settings, now: float, *, seal: bool, elsewhere: bool) -> list[Finding]:
    """What is wrong with how the secrets of registered endpoints are sealed. `elsewhere`: there are workers, who have keys."""
    what, registered = "endpoint secrets", book.endpoints.all()
    if not registered:
        return []
    sealed = {name: [key.sealed for key in endpoint.living_keys(now)] for name, endpoint in registered.items()}
    found, where = [], "the workers" if elsewhere else "this environment"
    if not seal:
        why = f"CAVENDISH_SECRET_KEY is not set for {where}, and endpoints are registered: {len(registered)}"
        advice = "Set it for the workers and where endpoints are added; `cavendish endpoint new-key` makes one."
        found.append(Finding(what, ok=False, found=why, advice=advice))
    plain = [name for name, texts in sealed.items() if any(_opens(Vault(()), name, text) for text in texts)]
    if plain:
        why = f"unencrypted in the book: {', '.join(plain[:5])}{f' and {len(plain) - 5} more' if plain[5:] else ''}"
        advice = "With CAVENDISH_SECRET_KEY set: cavendish endpoint rotate NAME; the old one goes when it has ceased to sign."
        found.append(Finding(what, ok=False, found=why, advice=advice))
    here = Vault(settings.secret_key)
    shut = [name for name, texts in sealed.items() if not all(_opens(here, name, text) for text in texts)]
    if shut and seal and elsewhere and not here.encrypts:
        why = "sealed, and not examined: CAVENDISH_SECRET_KEY is not set here, only for the workers"
        found.append(Finding(what, ok=True, found=why))
    elif shut:
        why = f"no key of this environment opens those of {', '.join(shut[:5])}{' and more' if shut[5:] else ''}"
        advice = "Add the key that sealed them to CAVENDISH_SECRET_KEY, or: cavendish endpoint rotate NAME --overlap 0"
        found.append(Finding(what, ok=False, found=why, advice=advice))
    return found


def _opens(vault: Vault, name: str, sealed: str) -> bool:
    try:
        vault.open(name, sealed)
    except SealedShut:
        return False
    return True
