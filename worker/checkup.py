"""What `doctor` examines: each finding says what was found, and what to do about it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from scheduler.circuit import Circuit
from scheduler.endpoints import Disabled, Endpoint, Key, name_complaint
from scheduler.settings import PREFIX, Settings, described
from scheduler.store import Book
from scheduler.store.fleet import Member
from scheduler.tracking import OPERATIONS, Lane
from worker.webhooks.vault import SealedShut, Vault


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined. `advice` is empty where nothing need be done."""

    what: str
    ok: bool
    found: str
    advice: str = ""


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


def endpoints(book: Book) -> list[EndpointView]:
    """All webhook endpoints that there is something to say about, the registered ones first. Raises BookUnavailable."""
    registered, disabled, waiting = book.endpoints.all(), book.endpoints.disabled(), Counter[str]()
    lanes = [*book.tasks.lanes(), OPERATIONS]
    for lane in lanes:
        waiting.update(book.debts.waiting(lane))
    names = [*registered, *sorted({*disabled, *+waiting} - {*registered})]
    urls = {name: endpoint.url for name, endpoint in registered.items()}
    urls |= {name: why.url for name, why in disabled.items() if why.url and name not in urls}
    nameless = [name for name in names if name not in urls and name_complaint(name)]
    urls |= {debt.endpoint: debt.url for lane in lanes if nameless for debt in book.debts.examples(lane, nameless) if debt.url}
    return [
        EndpointView(name, urls.get(name, ""), registered.get(name), disabled.get(name), circuit, waiting[name])
        for name, circuit in zip(names, book.learned.circuits(names), strict=True)
    ]


def examine(book: Book, settings: Settings) -> list[Finding]:
    """Examine everything: what living workers say of themselves, else this environment. Raises BookUnavailable."""
    now, lanes = book.fleet.now(), book.tasks.lanes()
    living = [member for member in book.fleet.members(now) if member.alive(now)]
    workers = [member for member in living if member.role == "worker"]
    tokens = {account for member in workers for account in member.accounts} if workers else set(settings.tokens())
    signs = any(member.signs for member in workers) if workers else bool(settings.webhook_secret)
    seal = all(member.seals for member in workers) if workers else bool(settings.secret_key)
    accounts = sorted({lane.account for lane in lanes} | {"default"})
    return [
        Finding("redis", ok=True, found=f"answers at {book.connection.where}"),
        *(_process(role, living) for role in ("worker", "beat")),
        *(_account(account, book, now, has_token=account in tokens) for account in accounts),
        _secret(signs=signs),
        *_misspelt(),
        *(finding for view in endpoints(book) for finding in _endpoint(view)),
        *_secrets(book, settings, now, seal=seal, elsewhere=bool(workers)),
        *(finding for lane in lanes for finding in _lane(lane, book, now)),
    ]


def _process(role: str, living: list[Member]) -> Finding:
    count = sum(member.role == role for member in living)
    advice = "" if count else f"Start one: celery -A worker.tasks {role}, or `cavendish up`."
    return Finding(role, bool(count), f"{count} alive", advice)


def _account(account: str, book: Book, now: float, *, has_token: bool) -> Finding:
    name = f"account {account}"
    if not has_token:
        where = "CAVENDISH_API_TOKEN" if account == "default" else "CAVENDISH_API_TOKENS_FILE"
        return Finding(name, ok=False, found="has no token", advice=f"Set {where} for the workers.")
    pace = book.learned.pace(account)
    if pace.held(now):
        refused = pace.hold_kind == "account"
        advice = "Check the token and the credit of the account." if refused else "Nothing: it ends by itself."
        return Finding(name, not refused, f"held {pace.hold_until - now:.0f} s more: {pace.hold_reason}", advice)
    return Finding(name, ok=True, found=f"may ask {pace.rate_at(now):.2f} times a second")


def _secret(*, signs: bool) -> Finding:
    if signs:
        return Finding("webhook secret", ok=True, found="is set")
    advice = "Set CAVENDISH_WEBHOOK_SECRET for the workers; `cavendish up` makes one in its data folder."
    return Finding("webhook secret", ok=False, found="is not set; unsigned webhooks are never sent", advice=advice)


def _endpoint(view: EndpointView) -> list[Finding]:
    found, what, wait = [], f"endpoint {view.name}", counted(view.waiting)
    if view.disabled:
        since = datetime.fromtimestamp(view.disabled.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        advice = f"Mend the receiver{f' at {view.url}' if view.url else ''}, then: cavendish endpoint enable {view.name}"
        found.append(Finding(what, ok=False, found=f"is disabled since {since}: {view.disabled.why}; {wait}", advice=advice))
    if view.waiting and view.named and not view.registered:
        advice = f"cavendish endpoint add {view.name} URL; else what is owed goes to the dead letters when its turn comes."
        found.append(Finding(what, ok=False, found=f"is not registered, and {wait} for it", advice=advice))
    return found


def _secrets(book: Book, settings: Settings, now: float, *, seal: bool, elsewhere: bool) -> list[Finding]:
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


def _misspelt() -> list[Finding]:
    known = {name for name, *_ in described()}
    strangers = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    return [Finding("environment", ok=False, found=f"{name} is no setting", advice="See README, Settings.") for name in strangers]


def _lane(lane: Lane, book: Book, now: float) -> list[Finding]:
    view, condition, found = book.view(lane, now), book.learned.condition(lane), []
    if condition.down_until > now:
        found.append(
            Finding(f"lane {lane}", ok=False, found=f"the API fails: {condition.reason}", advice="It is asked again by itself.")
        )
    if view.aside:
        task_id, why = next(iter(book.aside(lane).items()))
        advice = "Look at the record in Redis, mend or delete it, and submit the id again."
        found.append(
            Finding(f"lane {lane}", ok=False, found=f"{view.aside} records set aside, such as {task_id}: {why}", advice=advice)
        )
    if view.dead:
        found.append(Finding(f"lane {lane}", ok=True, found=f"{view.dead} dead letters", advice="See `cavendish dead list`."))
    return found
