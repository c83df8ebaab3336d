"""State that all processes share and learn: read, changed in Python, and written back.

If another process was faster, the change is made again on what that process wrote.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol, Self, TypeVar

from cavendish.errors import StoreUnavailable
from cavendish.model import Lane
from cavendish.policy.bulk_actions import BulkActions
from cavendish.policy.callbacks import Callbacks
from cavendish.policy.circuit import Circuit
from cavendish.policy.durations import DurationModel
from cavendish.policy.episodes import Episodes
from cavendish.policy.rate_limit import RateLimit
from cavendish.policy.service_health import ServiceHealth
from cavendish.policy.visibility import Visibility
from cavendish.store import keys
from cavendish.store.connection import Connection
from cavendish.store.trouble_index import TroubleIndex

ATTEMPTS = 50
#: States that a process remembers as it read or wrote them last; and seconds for which it trusts
#: its memory that an answer of the API says nothing new of the service.
REMEMBERED, TRUSTED_FOR = 1000, 1.0
#: Seconds after which a shared state that nobody changes expires.
FORGOTTEN_AFTER = 30 * 86400
#: Models of a lane that are listed, the latest: producers name them, so there may be any number.
MODELS_KEPT = 50


class Shareable(Protocol):
    """A state that turns itself into text and back."""

    @classmethod
    def from_json(cls, text: object) -> Self: ...

    def to_json(self) -> str: ...


T = TypeVar("T", bound=Shareable)
R = TypeVar("R")


class SharedState:
    """The rate limit of each account, what its token sees of each service, the service health of
    each lane, the duration model of each model, the callbacks of each service, the circuit of each
    endpoint; the episodes of trouble; and what operators do to many ids.

    A `step` turns a state into its next one. Every method raises StoreUnavailable.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        #: By key: the version, the state, and when it was there.
        self._latest: dict[str, tuple[str, Any, float]] = {}
        #: Lanes whose service the API does not serve, by when that was first said; those whose
        #: calls all fail, by since when; and services of which a token knows no id, each as its
        #: lane of shard 0, by when an id was last absent.
        self.paused = TroubleIndex(connection, keys.PAUSED)
        self.failing = TroubleIndex(connection, keys.FAILING)
        self.blind = TroubleIndex(connection, keys.BLIND)
        #: Endpoints whose circuit is open, by when they last failed.
        self.open_circuits = TroubleIndex(connection, keys.OPEN_CIRCUITS)

    def rate_limit(self, account: str, known_for: float = 0.0) -> RateLimit:
        """The rate limit of an account, or what this process knew of it so many seconds ago."""
        key = keys.rate_limit(account)
        _, known, at = self._latest.get(key, ("", None, -math.inf))
        if isinstance(known, RateLimit) and time.monotonic() - at < known_for:
            return known
        return self._read(key, RateLimit)[1]

    def rate_limits(self, accounts: Iterable[str]) -> list[RateLimit]:
        """The rate limits of some accounts, in one round trip."""
        pipe = self._redis.pipeline()
        for account in accounts:
            pipe.hget(keys.rate_limit(account), "value")
        return [RateLimit.from_json(value) for value in self._redis.answers(pipe)]

    def change_rate_limit(
        self, account: str, step: Callable[[RateLimit], tuple[RateLimit, R]]
    ) -> R:
        """Change the rate limit of an account; what else `step` returned."""
        return self._change(keys.rate_limit(account), RateLimit, step)

    def service_health(self, lane: Lane) -> ServiceHealth:
        """The service health of a lane."""
        return self._read(keys.LaneKeys(lane).service_health, ServiceHealth)[1]

    def service_healths(self, lanes: Iterable[Lane]) -> list[ServiceHealth]:
        """The service health of some lanes, in one round trip."""
        pipe = self._redis.pipeline()
        for lane in lanes:
            pipe.hget(keys.LaneKeys(lane).service_health, "value")
        return [ServiceHealth.from_json(value) for value in self._redis.answers(pipe)]

    def change_service_health(
        self, lane: Lane, step: Callable[[ServiceHealth], tuple[ServiceHealth, R]]
    ) -> R:
        """Change the service health of a lane; what else `step` returned."""
        key = keys.LaneKeys(lane).service_health
        both = _with_both(step)
        before, after, answer = self._change(key, ServiceHealth, both, trusted_for=TRUSTED_FOR)
        for index, was, since in (
            (self.paused, before.paused_since, after.paused_since),
            (self.failing, before.failing_since, after.failing_since),
        ):
            if since and after != before:
                index.add(lane, since)
            elif was and not since:
                index.remove([lane])
        return answer

    def visibilities(self, lanes: Iterable[Lane]) -> list[Visibility]:
        """What the tokens see of the services of some lanes, in one round trip."""
        pipe = self._redis.pipeline()
        for lane in lanes:
            pipe.hget(keys.visibility(lane), "value")
        return [Visibility.from_json(value) for value in self._redis.answers(pipe)]

    def change_visibility(
        self, lane: Lane, step: Callable[[Visibility], tuple[Visibility, R]]
    ) -> R:
        """Change what the token sees of the service of a lane; what else `step` returned."""
        key, both = keys.visibility(lane), _with_both(step)
        before, after, answer = self._change(key, Visibility, both, trusted_for=TRUSTED_FOR)
        service = Lane(lane.account, lane.service)
        if after.alarming and after != before:
            self.blind.add(service, after.absent_at)
        elif before.alarming and not after.alarming:
            self.blind.remove([service])
        return answer

    def durations(self, lane: Lane, model: str) -> DurationModel:
        """The duration model of a model; without a name, of the whole service."""
        return self._read(keys.LaneKeys(lane).durations(model), DurationModel)[1]

    def change_durations(
        self, lane: Lane, model: str, step: Callable[[DurationModel], DurationModel]
    ) -> None:
        """Change the duration model of a model."""
        self._change(
            keys.LaneKeys(lane).durations(model),
            DurationModel,
            lambda durations: (step(durations), None),
        )

    def callbacks(self, lane: Lane) -> Callbacks:
        """What the callbacks of a service have proved to be worth."""
        return self._read(keys.LaneKeys(lane).callbacks, Callbacks)[1]

    def change_callbacks(self, lane: Lane, step: Callable[[Callbacks], Callbacks]) -> None:
        """Change what the callbacks of a service have proved to be worth."""
        key = keys.LaneKeys(lane).callbacks
        self._change(key, Callbacks, lambda known: (step(known), None))

    def note_models(self, lane: Lane, models: Iterable[str], now: float) -> None:
        """List these models as the latest that learned."""
        key, words = keys.LaneKeys(lane).models, [word for model in models for word in (now, model)]
        if words:
            self._redis.write_when_full(key, "ZADD", *words)
            self._redis.write_when_full(key, "ZREMRANGEBYRANK", 0, -MODELS_KEPT - 1)
            self._redis.write_when_full(key, "EXPIRE", FORGOTTEN_AFTER)

    def change_episodes(self, step: Callable[[Episodes], Episodes]) -> Episodes:
        """Change the episodes of trouble that operators are told of; the new ones."""
        return self._change(keys.EPISODES, Episodes, lambda known: ((new := step(known)), new))

    def bulk_actions(self) -> BulkActions:
        """What operators do to many ids."""
        return self._read(keys.BULK_ACTIONS, BulkActions)[1]

    def change_bulk_actions(self, step: Callable[[BulkActions], tuple[BulkActions, R]]) -> R:
        """Change what operators do to many ids; what else `step` returned."""
        return self._change(keys.BULK_ACTIONS, BulkActions, step)

    def circuits(self, endpoints: Iterable[str]) -> list[Circuit]:
        """The circuits of webhook endpoints, in one round trip."""
        pipe = self._redis.pipeline()
        for endpoint in endpoints:
            pipe.hget(keys.circuit(endpoint), "value")
        return [Circuit.from_json(value) for value in self._redis.answers(pipe)]

    def change_circuit(self, endpoint: str, step: Callable[[Circuit], Circuit]) -> Circuit:
        """Change the circuit of an endpoint; the new one."""
        both = _with_both(lambda known: (step(known), None))
        before, after, _ = self._change(keys.circuit(endpoint), Circuit, both)
        if after.state == "open":
            if before.state != "open":
                self.open_circuits.forget(after.failed_at - FORGOTTEN_AFTER)
            if after != before:
                self.open_circuits.add(endpoint, after.failed_at)
        elif before.state == "open" or after.ok_at != before.ok_at:
            self.open_circuits.remove([endpoint])
        return after

    def _read(self, key: str, kind: type[T]) -> tuple[str, T]:
        with self._redis.errors():
            version, value = self._redis.redis.hmget(key, ["version", "value"])
        return self._remembered(key, str(version or "0"), kind.from_json(value))

    def _change(
        self,
        key: str,
        kind: type[T],
        step: Callable[[T], tuple[T, R]],
        *,
        trusted_for: float = 0.0,
    ) -> R:
        """Change what this process has read or written last, if it is still there.

        Only if it was there within `trusted_for` seconds, it is enough to say that nothing changes.
        """
        version, old, at = self._latest.get(key) or (*self._read(key, kind), math.inf)
        trusted = time.monotonic() - at < trusted_for
        for _ in range(ATTEMPTS):
            new, answer = step(old)
            if new != old:
                words = [version, after := _next(version), new.to_json(), FORGOTTEN_AFTER]
                there = self._redis.script("compare_and_set", [key], words)
                if not there:
                    self._remembered(key, after, new)
                    return answer
                version, old = self._remembered(key, there[0], kind.from_json(there[1]))
            elif trusted:
                return answer
            else:
                version, old = self._read(key, kind)
            trusted = True
        raise StoreUnavailable(f"Too many processes change {key} at the same time.")

    def _remembered(self, key: str, version: str, state: T) -> tuple[str, T]:
        if len(self._latest) >= REMEMBERED:
            self._latest.clear()
        self._latest[key] = version, state, time.monotonic()
        return version, state


def _next(version: str) -> str:
    """The version after another one. The first one is drawn, or a state that was erased and made
    anew might look like the one that a process remembers.
    """
    known = version.isdecimal() and int(version)
    return str(known + 1 if known else secrets.randbits(48) + 1)


def _with_both(step: Callable[[T], tuple[T, R]]) -> Callable[[T], tuple[T, tuple[T, T, R]]]:
    """The same step, which also returns the state before it and after it."""

    def both(before: T) -> tuple[T, tuple[T, T, R]]:
        after, answer = step(before)
        return after, (before, after, answer)

    return both
