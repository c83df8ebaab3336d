"""The endpoints as a worker process sees them: how many calls each may have, what signs for it, and what is learned of it.

What the book says is kept for a second, so that a delivery costs no look into it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scheduler import circuit as circuits
from scheduler.circuit import Circuit
from scheduler.endpoints import Disabled, Endpoint, name_complaint
from scheduler.store import Book
from scheduler.store.debts import Debt
from worker.logs import logger
from worker.receipts import Fate, Receipt
from worker.webhooks import notices
from worker.webhooks.post import Target
from worker.webhooks.vault import SealedShut, Vault

#: Seconds for which what was read of the book is believed, and until a disabled endpoint is visited again.
FRESH_FOR, REVISIT = 1.0, 15.0
_NEW = Circuit()


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say of endpoints."""

    secret: str
    per_endpoint: int
    disable_after: float
    operations: str
    origin: str


class Directory:
    """Shared by the rounds of a process: what one of them reads anew, the other may use. Every method raises BookUnavailable."""

    def __init__(self, book: Book, vault: Vault, rules: Rules) -> None:
        self._book, self._vault, self._rules = book, vault, rules
        self._read_at = float("-inf")
        self._registered: dict[str, Endpoint] = {}
        self._disabled: dict[str, Disabled] = {}
        self._circuits: dict[str, Circuit] = {}
        self._secrets: dict[tuple[str, str], str] = {}

    def refresh(self, endpoints: Iterable[str], now: float) -> None:
        """See to it that these endpoints are known as they were within the last second, and names that are new as they are."""
        endpoints = set(endpoints)
        new_names = any(name not in self._registered and not name_complaint(name) for name in endpoints)
        if new_names or not 0 <= now - self._read_at < FRESH_FOR:
            self._registered, self._disabled = self._book.endpoints.all(), self._book.endpoints.disabled()
            self._circuits, self._read_at = {}, now
        unknown = [name for name in endpoints if name not in self._circuits]
        if unknown:
            self._circuits |= zip(unknown, self._book.learned.circuits(unknown), strict=True)

    def room(self, endpoint: str, in_flight: int, now: float) -> int:
        """Calls that may be in flight to an endpoint, those included that are."""
        if endpoint in self._disabled:
            return 0
        room, rate = self._circuit(endpoint).room(now, self._rules.per_endpoint), self._rate(endpoint)
        if rate and room > in_flight:
            return in_flight + self._reserved(endpoint, room - in_flight, now, rate)
        return room

    def unused(self, endpoint: str, calls: int) -> None:
        """Calls that there was room for and that were not made: they count where the endpoint has allowed a rate."""
        if calls and (rate := self._rate(endpoint)):
            self._circuits[endpoint] = self._book.learned.change_circuit(
                endpoint, lambda known: circuits.give_back(known, calls, rate)
            )

    def limited(self, endpoint: str) -> bool:
        """True for an endpoint that has allowed a rate: no more is claimed for it than may be sent."""
        return self._rate(endpoint) is not None

    def _circuit(self, endpoint: str) -> Circuit:
        return self._circuits.get(endpoint, _NEW)

    def _rate(self, endpoint: str) -> float | None:
        registered = self._registered.get(endpoint)
        return registered.per_minute if registered else None

    def _reserved(self, endpoint: str, room: int, now: float, rate: float) -> int:
        granted = 0

        def step(known: Circuit) -> Circuit:
            nonlocal granted
            after, granted = circuits.take(known, room, now, rate)
            return after

        self._circuits[endpoint] = self._book.learned.change_circuit(endpoint, step)
        return granted

    def trusted(self, endpoint: str) -> bool:
        """True for an endpoint that answers well and soon."""
        return self._circuit(endpoint).trusted

    def closed_until(self, endpoint: str, now: float) -> float:
        """When an endpoint without room is worth another visit."""
        known = self._circuit(endpoint)
        return now + REVISIT if endpoint in self._disabled else max(known.open_until, known.next_at, now)

    def target(self, debt: Debt, now: float) -> Target:
        """Where to send a debt, signed by what."""
        endpoint = self._registered.get(debt.endpoint)
        if endpoint is None and debt.url:
            if self._rules.secret:
                return Target(debt.url, (self._rules.secret,))
            return Target(complaint="CAVENDISH_WEBHOOK_SECRET is not set; the debts wait")
        if endpoint is None:
            return Target(complaint=f"no endpoint is registered as {debt.endpoint!r}, or its record is gone", gone=True)
        keys = endpoint.living_keys(now)
        opened = [key for key in (self._opened(endpoint.name, key.sealed) for key in keys) if key]
        if not keys or not self._opened(endpoint.name, keys[0].sealed):  # an old one that cannot be opened may be missing
            return Target(complaint=f"the secret of {endpoint.name!r} cannot be opened with CAVENDISH_SECRET_KEY; the debts wait")
        return Target(endpoint.url, tuple(opened), self._rules.origin if endpoint.consent else "")

    def _opened(self, name: str, sealed: str) -> str:
        if (name, sealed) not in self._secrets:
            try:
                self._secrets[name, sealed] = self._vault.open(name, sealed)
            except SealedShut as error:
                logger().error("secret.sealed", endpoint=name, outcome=str(error))
                self._secrets[name, sealed] = ""
        return self._secrets[name, sealed]

    def heard(self, receipts: Sequence[tuple[Debt, Receipt]], now: float) -> None:
        """Learn from what endpoints answered, and disable those that asked for it or fail for too long."""
        by_endpoint: dict[str, list[tuple[Debt, Receipt]]] = defaultdict(list)
        for debt, receipt in receipts:
            if receipt.fate not in (Fate.OURS, Fate.UNSENT) or receipt.disable:
                by_endpoint[debt.endpoint].append((debt, receipt))
        for endpoint, heard in by_endpoint.items():
            self._learn(endpoint, [receipt for _, receipt in heard], now)
            why = next((receipt.disable for _, receipt in heard if receipt.disable), "")
            failing_for = circuits.failing_for(self._circuit(endpoint), now)
            if not why and failing_for >= self._rules.disable_after:
                why = f"no success for {failing_for / 86400:.1f} days; last: {heard[-1][1].outcome}"
            if why:
                self._disable(endpoint, Disabled(now, why, self._url(heard[0][0])), now)

    def _learn(self, endpoint: str, receipts: Sequence[Receipt], now: float) -> None:
        chance = random.random()

        def step(known: Circuit) -> Circuit:
            for receipt in receipts:
                if receipt.fate is Fate.LATER:
                    known = circuits.failed(known, receipt.sent_at, now, chance, receipt.rest)
            paid = [receipt for receipt in receipts if receipt.fate in (Fate.PAID, Fate.REFUSED) and receipt.status]
            if paid:
                seconds = sum(receipt.seconds for receipt in paid) / len(paid)
                known = circuits.worked(known, len(paid), seconds, now, self._rules.per_endpoint)
            return known

        before = self._circuit(endpoint)
        if step(before) == before:  # nothing new to note: the usual case, and it costs no look into the book
            return
        after = self._circuits[endpoint] = self._book.learned.change_circuit(endpoint, step)
        if after.state != before.state:
            log = logger().bind(endpoint=endpoint, failures=after.failures)
            if after.state == "open":
                log.warning("endpoint.open", seconds=round(after.open_until - now, 1), outcome=receipts[-1].outcome)
            else:
                log.info("endpoint.closed")

    def _disable(self, endpoint: str, disabled: Disabled, now: float) -> None:
        self._disabled[endpoint] = disabled
        if not self._book.endpoints.disable(endpoint, disabled):
            return
        logger().error("endpoint.disabled", endpoint=endpoint, outcome=disabled.why)
        notices.disabled(self._book, self._rules.operations, endpoint, disabled, now)

    def _url(self, debt: Debt) -> str:
        registered = self._registered.get(debt.endpoint)
        return registered.url if registered else debt.url
