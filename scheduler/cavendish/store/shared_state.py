"""What the fleet learns together.

Read, thought about in pure Python, and written back if nobody was faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, Self, TypeVar

from cavendish.errors import StoreUnavailable
from cavendish.model import Lane
from cavendish.policy.circuit import Circuit
from cavendish.policy.durations import DurationModel
from cavendish.policy.rate_limit import RateLimit
from cavendish.policy.service_health import ServiceHealth
from cavendish.store import keys
from cavendish.store.connection import Connection

ATTEMPTS = 50
#: Seconds after which something learned is forgotten that nobody changes any more.
FORGOTTEN_AFTER = 30 * 86400
#: Models of a lane that are listed: producers name them, so there may be any number.
MODELS_KEPT = 50


class Shareable(Protocol):
    """Something small that turns itself into text and back."""

    @classmethod
    def from_json(cls, text: str | None) -> Self: ...

    def to_json(self) -> str: ...


T = TypeVar("T", bound=Shareable)
R = TypeVar("R")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class SharedState:
    """The rate limit of each account, the condition of each lane, the duration model of each model,
    the circuit of each endpoint.

    Every method raises BookUnavailable.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def rate_limit(self, account: str) -> RateLimit:
        """The rate limit of an account as it stands."""
        return self._read(keys.rate_limit(account), RateLimit)[1]

    def change_rate_limit(
        self, account: str, step: Callable[[RateLimit], tuple[RateLimit, R]]
    ) -> R:
        """Let `step` turn the rate limit of an account into its next state.

        Returns what else `step` says.
        """
        return self._change(keys.rate_limit(account), RateLimit, step)

    def service_health(self, lane: Lane) -> ServiceHealth:
        """The condition of a lane as it stands."""
        return self._read(keys.LaneKeys(lane).service_health, ServiceHealth)[1]

    def change_service_health(
        self, lane: Lane, step: Callable[[ServiceHealth], tuple[ServiceHealth, R]]
    ) -> R:
        """Let `step` turn the condition of a lane into its next state.

        Returns what else `step` says.
        """
        return self._change(keys.LaneKeys(lane).service_health, ServiceHealth, step)

    def durations(self, lane: Lane, model: str) -> DurationModel:
        """The duration model of a model; without a name, of the whole service."""
        return self._read(keys.LaneKeys(lane).durations(model), DurationModel)[1]

    def change_durations(
        self, lane: Lane, model: str, step: Callable[[DurationModel], DurationModel]
    ) -> None:
        """Let `step` turn the duration model of a model into its next state."""
        self._change(
            keys.LaneKeys(lane).durations(model),
            DurationModel,
            lambda durations: (step(durations), None),
        )

    def note_models(self, lane: Lane, models: Iterable[str], now: float) -> None:
        """Remember that these models were taught, so that somebody can ask which there are.

        The latest are kept.
        """
        key, words = keys.LaneKeys(lane).models, [word for model in models for word in (now, model)]
        if words:
            self._redis.write_when_full(key, "ZADD", *words)
            self._redis.write_when_full(key, "ZREMRANGEBYRANK", 0, -MODELS_KEPT - 1)
            self._redis.write_when_full(key, "EXPIRE", FORGOTTEN_AFTER)

    def circuits(self, endpoints: Iterable[str]) -> list[Circuit]:
        """The circuits of webhook endpoints as they stand, in one round trip."""
        pipe = self._redis.pipeline()
        for endpoint in endpoints:
            pipe.hget(keys.circuit(endpoint), "value")
        with self._redis.errors():
            return [Circuit.from_json(_text(value)) for value in pipe.execute()]

    def change_circuit(self, endpoint: str, step: Callable[[Circuit], Circuit]) -> Circuit:
        """Let `step` turn the circuit of an endpoint into its next state; returns that."""
        return self._change(
            keys.circuit(endpoint), Circuit, lambda known: ((new := step(known)), new)
        )

    def _read(self, key: str, kind: type[T]) -> tuple[str, T]:
        with self._redis.errors():
            version, value = map(_text, self._redis.redis.hmget(key, ["version", "value"]))
        return version or "0", kind.from_json(value)

    def _change(self, key: str, kind: type[T], step: Callable[[T], tuple[T, R]]) -> R:
        for _ in range(ATTEMPTS):
            version, old = self._read(key, kind)
            new, answer = step(old)
            if new == old or self._redis.script(
                "compare_and_set", [key], [version, new.to_json(), FORGOTTEN_AFTER]
            ):
                return answer
        raise StoreUnavailable(f"Too many processes change {key} at the same time.")
