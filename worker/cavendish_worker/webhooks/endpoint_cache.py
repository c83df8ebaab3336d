"""The endpoints as a worker process sees them: how many calls each may have, what signs for it, and
what is learned of it.

What the store says is kept for a second, so that a delivery costs no look into it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cavendish.env_parsers import secrets_of
from cavendish.policy import circuit as circuits
from cavendish.policy.circuit import Circuit
from cavendish.store import Store
from cavendish.store.deliveries import Delivery
from cavendish.webhook_endpoint import Disabled, Endpoint, name_complaint
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.webhooks import operator_alerts
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind
from cavendish_worker.webhooks.encryption import DecryptionError, Encryption
from cavendish_worker.webhooks.post import Target

#: Seconds for which what was read of the store is believed, and until a disabled endpoint is
#: visited again.
FRESH_FOR, REVISIT = 1.0, 15.0
_NEW = Circuit()


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say of endpoints."""

    secret: str  # or several, as the setting has them
    per_endpoint: int
    disable_after: float
    operations: str
    origin: str


class EndpointCache:
    """Shared by the rounds of a process.

    What one of them reads anew, the other may use. Every method raises BookUnavailable.
    """

    def __init__(self, store: Store, encryption: Encryption, rules: Rules) -> None:
        self._store, self._encryption, self._rules = store, encryption, rules
        self._read_at = float("-inf")
        self._registered: dict[str, Endpoint] = {}
        self._disabled: dict[str, Disabled] = {}
        self._circuits: dict[str, Circuit] = {}
        self._secrets: dict[tuple[str, str], str] = {}

    def refresh(self, endpoints: Iterable[str], now: float) -> None:
        """See to it that these endpoints are known as they were within the last second, and names
        that are new as they are.
        """
        endpoints = set(endpoints)
        new_names = any(
            name not in self._registered and not name_complaint(name) for name in endpoints
        )
        if new_names or not 0 <= now - self._read_at < FRESH_FOR:
            self._registered, self._disabled = (
                self._store.endpoints.all(),
                self._store.endpoints.disabled(),
            )
            self._circuits, self._read_at = {}, now
        unknown = [name for name in endpoints if name not in self._circuits]
        if unknown:
            self._circuits |= zip(unknown, self._store.shared_state.circuits(unknown), strict=True)

    def room(self, endpoint: str, in_flight: int, now: float) -> int:
        """Calls that may be in flight to an endpoint, those included that are."""
        if endpoint in self._disabled:
            return 0
        room, rate = (
            self._circuit(endpoint).room(now, self._rules.per_endpoint),
            self._rate(endpoint),
        )
        if rate and room > in_flight:
            return in_flight + self._reserved(endpoint, room - in_flight, now, rate)
        return room

    def unused(self, endpoint: str, calls: int) -> None:
        """Calls that there was room for and that were not made.

        They count where the endpoint has allowed a rate.
        """
        if calls and (rate := self._rate(endpoint)):
            self._circuits[endpoint] = self._store.shared_state.change_circuit(
                endpoint, lambda known: circuits.give_back(known, calls, rate)
            )

    def limited(self, endpoint: str) -> bool:
        """True for an endpoint that has allowed a rate.

        No more is claimed for it than may be sent.
        """
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

        self._circuits[endpoint] = self._store.shared_state.change_circuit(endpoint, step)
        return granted

    def trusted(self, endpoint: str) -> bool:
        """True for an endpoint that answers well and soon."""
        return self._circuit(endpoint).trusted

    def closed_until(self, endpoint: str, now: float) -> float:
        """When an endpoint without room is worth another visit."""
        known = self._circuit(endpoint)
        return (
            now + REVISIT
            if endpoint in self._disabled
            else max(known.open_until, known.next_at, now)
        )

    def target(self, delivery: Delivery, now: float) -> Target:
        """Where to send a delivery, signed by what."""
        endpoint = self._registered.get(delivery.endpoint)
        if endpoint is None and delivery.url:
            if self._rules.secret:
                return Target(delivery.url, secrets_of(self._rules.secret))
            return Target(complaint="CAVENDISH_WEBHOOK_SECRET is not set; the deliveries wait")
        if endpoint is None:
            return Target(
                complaint=f"no endpoint is registered as {delivery.endpoint!r}, or its record is gone",
                gone=True,
            )
        keys = endpoint.living_keys(now)
        opened = [
            key for key in (self._opened(endpoint.name, key.encrypted) for key in keys) if key
        ]
        if not keys or not self._opened(
            endpoint.name, keys[0].encrypted
        ):  # an old one that cannot be opened may be missing
            return Target(
                complaint=f"the secret of {endpoint.name!r} cannot be opened with CAVENDISH_SECRET_KEY; the deliveries wait"
            )
        return Target(endpoint.url, tuple(opened), self._rules.origin if endpoint.consent else "")

    def _opened(self, name: str, encrypted: str) -> str:
        if (name, encrypted) not in self._secrets:
            try:
                self._secrets[name, encrypted] = self._encryption.open(name, encrypted)
            except DecryptionError as error:
                logger().error("secret.unreadable", endpoint=name, outcome=str(error))
                self._secrets[name, encrypted] = ""
        return self._secrets[name, encrypted]

    def heard(self, results: Sequence[tuple[Delivery, AttemptResult]], now: float) -> None:
        """Learn from what endpoints answered, and disable those that asked for it or fail for too
        long.
        """
        by_endpoint: dict[str, list[tuple[Delivery, AttemptResult]]] = defaultdict(list)
        for delivery, result in results:
            if result.kind not in (ResultKind.OURS, ResultKind.UNSENT) or result.disable:
                by_endpoint[delivery.endpoint].append((delivery, result))
        for endpoint, heard in by_endpoint.items():
            self._learn(endpoint, [result for _, result in heard], now)
            why = next((result.disable for _, result in heard if result.disable), "")
            failing_for = circuits.failing_for(self._circuit(endpoint), now)
            if not why and failing_for >= self._rules.disable_after:
                why = f"no success for {failing_for / 86400:.1f} days; last: {heard[-1][1].outcome}"
            if why:
                self._disable(endpoint, Disabled(now, why, self._url(heard[0][0])), now)

    def _learn(self, endpoint: str, results: Sequence[AttemptResult], now: float) -> None:
        chance = random.random()

        def step(known: Circuit) -> Circuit:
            for result in results:
                if result.kind is ResultKind.LATER:
                    known = circuits.failed(known, result.sent_at, now, chance, result.rest)
            delivered = [
                result
                for result in results
                if result.kind in (ResultKind.DELIVERED, ResultKind.REFUSED) and result.status
            ]
            if delivered:
                seconds = sum(result.seconds for result in delivered) / len(delivered)
                known = circuits.worked(
                    known, len(delivered), seconds, now, self._rules.per_endpoint
                )
            return known

        before = self._circuit(endpoint)
        if (
            step(before) == before
        ):  # nothing new to note: the usual case, and it costs no look into the store
            return
        after = self._circuits[endpoint] = self._store.shared_state.change_circuit(endpoint, step)
        if after.state != before.state:
            log = logger().bind(endpoint=endpoint, failures=after.failures)
            if after.state == "open":
                log.warning(
                    "endpoint.open",
                    seconds=round(after.open_until - now, 1),
                    outcome=results[-1].outcome,
                )
            else:
                log.info("endpoint.closed")

    def _disable(self, endpoint: str, disabled: Disabled, now: float) -> None:
        self._disabled[endpoint] = disabled
        if not self._store.endpoints.disable(endpoint, disabled):
            return
        logger().error("endpoint.disabled", endpoint=endpoint, outcome=disabled.why)
        operator_alerts.disabled(self._store, self._rules.operations, endpoint, disabled, now)

    def _url(self, delivery: Delivery) -> str:
        registered = self._registered.get(delivery.endpoint)
        return registered.url if registered else delivery.url
