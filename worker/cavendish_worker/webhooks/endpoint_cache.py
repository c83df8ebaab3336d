"""Caches the webhook endpoints for a worker process: their call limits, keys and circuits.

What was read from the store is used for a second, so that a delivery needs no read of its own.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cavendish.endpoints.encryption import DecryptionError, Encryption
from cavendish.endpoints.webhook_endpoint import FRESH_FOR, Disabled, Endpoint, name_complaint
from cavendish.environment.env_parsers import secrets_of
from cavendish.policy import circuit as circuits
from cavendish.policy.backoff import WEBHOOK_WAITS
from cavendish.policy.circuit import Circuit
from cavendish.store import Store
from cavendish.store.delivery_reader import Delivery
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.webhooks import operator_alerts
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind
from cavendish_worker.webhooks.post import Target

#: Seconds until a disabled endpoint is visited again.
REVISIT = 15.0
_NEW = Circuit()
_ANSWERED = (ResultKind.DELIVERED, ResultKind.REJECTED)
_UNBLAMED = (ResultKind.OUR_FAULT, ResultKind.NOT_SENT, ResultKind.SKIPPED)


@dataclass(frozen=True, slots=True)
class EndpointRules:
    """The settings about endpoints.

    `secret`: one, or several with commas between; `per_endpoint`: calls at once; `disable_after`:
    seconds of failure; `operations`: the URL of the operator's own webhook.
    """

    secret: str
    per_endpoint: int
    disable_after: float
    operations: str
    origin: str


class EndpointCache:
    """Shared by the delivery loops of a process. Every method raises StoreUnavailable."""

    def __init__(self, store: Store, encryption: Encryption, rules: EndpointRules) -> None:
        self._store, self._encryption, self._rules = store, encryption, rules
        self._read_at = float("-inf")
        self._registered: dict[str, Endpoint] = {}
        self._disabled: dict[str, Disabled] = {}
        self._circuits: dict[str, Circuit] = {}
        self._secrets: dict[tuple[str, str, str], str] = {}
        self._keys = secrets_of(rules.secret)

    def refresh(self, endpoints: Iterable[str], now: float) -> None:
        """Read these endpoints from the store, unless that was done within the last second.

        A name that is not known yet is read at once.
        """
        endpoints, known = set(endpoints), self._registered
        new_names = any(name not in known and not name_complaint(name) for name in endpoints)
        if new_names or not 0 <= now - self._read_at < FRESH_FOR:
            registry = self._store.endpoints
            self._registered, self._disabled = registry.all(), registry.disabled()
            self._circuits, self._read_at = {}, now
        unknown = [name for name in endpoints if name not in self._circuits]
        if unknown:
            self._circuits |= zip(unknown, self._store.shared_state.circuits(unknown), strict=True)

    def room(self, endpoint: str, in_flight: int, now: float) -> int:
        """How many calls may be in flight to an endpoint, including the `in_flight` ones."""
        if endpoint in self._disabled:
            return 0
        room = self._circuit(endpoint).room(now, self._rules.per_endpoint)
        rate = self._rate(endpoint)
        if rate and room > in_flight:
            return in_flight + self._reserved(endpoint, room - in_flight, now, rate)
        return room

    def unused(self, endpoint: str, calls: int) -> None:
        """Give back calls that were not made, to an endpoint that has set a rate."""
        if calls and (rate := self._rate(endpoint)):
            self._circuits[endpoint] = self._store.shared_state.change_circuit(
                endpoint, lambda known: circuits.give_back(known, calls, rate)
            )

    def limited(self, endpoint: str) -> bool:
        """True for an endpoint that has set a rate: claim no more for it than may be sent."""
        return self._rate(endpoint) is not None

    def _circuit(self, endpoint: str) -> Circuit:
        return self._circuits.get(endpoint, _NEW)

    def _rate(self, endpoint: str) -> float | None:
        registered = self._registered.get(endpoint)
        return registered.calls_per_minute if registered else None

    def chooses(self, endpoint: str, kind: str) -> bool:
        """True if an endpoint gets webhooks of this kind; one that is known by its URL gets all."""
        registered = self._registered.get(endpoint)
        return registered is None or registered.chooses(kind)

    def waits(self, endpoint: str) -> Sequence[float]:
        """Seconds before each attempt of a delivery to an endpoint."""
        registered = self._registered.get(endpoint)
        return registered.waits if registered else WEBHOOK_WAITS

    def _reserved(self, endpoint: str, room: int, now: float, rate: float) -> int:
        granted = 0

        def step(known: Circuit) -> Circuit:
            nonlocal granted
            after, granted = circuits.take(known, room, now, rate)
            return after

        self._circuits[endpoint] = self._store.shared_state.change_circuit(endpoint, step)
        return granted

    def trusted(self, endpoint: str) -> bool:
        """True for an endpoint whose last answers were good and fast."""
        return self._circuit(endpoint).trusted

    def closed_until(self, endpoint: str, now: float) -> float:
        """When to visit an endpoint without room again."""
        if endpoint in self._disabled:
            return now + REVISIT
        known = self._circuit(endpoint)
        return max(known.open_until, known.next_at, now)

    def target(self, delivery: Delivery, now: float) -> Target:
        """Where to send a delivery, and the keys that sign it."""
        endpoint = self._registered.get(delivery.endpoint)
        if endpoint is None:
            return self._unregistered(delivery)
        name = endpoint.name
        keys = [self._decrypted(name, key.encrypted) for key in endpoint.living_keys(now)]
        if not keys or not keys[0]:  # an old key that cannot be decrypted may be left out
            return _undecrypted(f"the secret of {name!r}")
        headers = {
            one.name: self._decrypted(name, one.encrypted, one.name) for one in endpoint.headers
        }
        if shut := next((one for one, value in headers.items() if not value), None):
            return _undecrypted(f"the header {shut} of {name!r}")
        origin = self._rules.origin if endpoint.consent else ""
        return Target(endpoint.url, tuple(filter(None, keys)), origin, tuple(headers.items()))

    def _unregistered(self, delivery: Delivery) -> Target:
        if not delivery.url:
            name = delivery.endpoint
            complaint = f"no endpoint is registered as {name!r}, or its record is gone"
            return Target(complaint=complaint, gone=True)
        if not self._rules.secret:
            return Target(complaint="CAVENDISH_WEBHOOK_SECRET is not set; the deliveries wait")
        return Target(delivery.url, self._keys)

    def _decrypted(self, name: str, encrypted: str, header: str = "") -> str:
        """The secret of an endpoint, or the value of a header of it; "" if it stays shut."""
        place = (name, header, encrypted)
        if place not in self._secrets:
            try:
                self._secrets[place] = self._encryption.decrypt(name, encrypted, header)
            except DecryptionError as error:
                logger().error("secret.unreadable", endpoint=name, outcome=str(error))
                self._secrets[place] = ""
        return self._secrets[place]

    def learn(self, results: Sequence[tuple[Delivery, AttemptResult]], now: float) -> None:
        """Change the circuits by these results.

        Disables an endpoint that asked for it, or that has failed for too long.
        """
        by_endpoint: dict[str, list[tuple[Delivery, AttemptResult]]] = defaultdict(list)
        skipped = Counter(each.endpoint for each, result in results if _skipped(result))
        for endpoint, calls in skipped.items():
            self.unused(endpoint, calls)
        for delivery, result in results:
            if result.kind not in _UNBLAMED or result.disable:
                by_endpoint[delivery.endpoint].append((delivery, result))
        for endpoint, some in by_endpoint.items():
            self._learn(endpoint, [result for _, result in some], now)
            why = next((result.disable for _, result in some if result.disable), "")
            failing_for = circuits.failing_for(self._circuit(endpoint), now)
            if not why and failing_for >= self._rules.disable_after:
                why = f"no success for {failing_for / 86400:.1f} days; last: {some[-1][1].outcome}"
            if why:
                self._disable(endpoint, Disabled(now, why, self._url(some[0][0])), now)

    def _learn(self, endpoint: str, results: Sequence[AttemptResult], now: float) -> None:
        chance = random.random()
        answered = [one for one in results if one.kind in _ANSWERED and one.status]

        def step(known: Circuit) -> Circuit:
            for result in results:
                if result.kind is ResultKind.RETRY:
                    said = (result.rest, result.outcome)
                    known = circuits.failed(known, result.sent_at, now, chance, *said)
                if result.kind is ResultKind.REJECTED:
                    known = circuits.rejected(known, now, result.outcome)
            if not answered:
                return known
            seconds = sum(result.seconds for result in answered) / len(answered)
            return circuits.worked(known, len(answered), seconds, now, self._rules.per_endpoint)

        before = self._circuit(endpoint)
        if step(before) == before:  # the usual case: nothing changes, and the store is not asked
            return
        after = self._circuits[endpoint] = self._store.shared_state.change_circuit(endpoint, step)
        if after.state == before.state:
            return
        log = logger().bind(endpoint=endpoint, failures=after.failures)
        if after.state == "open":
            seconds = round(after.open_until - now, 1)
            log.warning("endpoint.open", seconds=seconds, outcome=results[-1].outcome)
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


def _skipped(result: AttemptResult) -> bool:
    return result.kind is ResultKind.SKIPPED


def _undecrypted(what: str) -> Target:
    return Target(complaint=f"CAVENDISH_SECRET_KEY cannot decrypt {what}; the deliveries wait")
