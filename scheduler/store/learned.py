"""What the fleet learns together: read, thought about in pure Python, and written back if nobody was faster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, Self, TypeVar

from scheduler.circuit import Circuit
from scheduler.condition import Condition
from scheduler.errors import BookUnavailable
from scheduler.law import Law
from scheduler.pace import Pace
from scheduler.store import keys
from scheduler.store.connection import Connection
from scheduler.tracking import Lane

TRIES = 50
#: Seconds after which something learned is forgotten that nobody changes any more.
FORGOTTEN_AFTER = 30 * 86400
#: Models of a lane that are listed: producers name them, so there may be any number.
MODELS_KEPT = 50


class Learnable(Protocol):
    """Something small that turns itself into text and back."""

    @classmethod
    def from_json(cls, text: str | None) -> Self: ...

    def to_json(self) -> str: ...


T = TypeVar("T", bound=Learnable)
R = TypeVar("R")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class Learned:
    """The pace of each account, the condition of each lane, the law of each model, the circuit of each endpoint.

    Every method raises BookUnavailable.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def pace(self, account: str) -> Pace:
        """The pace of an account as it stands."""
        return self._read(keys.pace(account), Pace)[1]

    def change_pace(self, account: str, step: Callable[[Pace], tuple[Pace, R]]) -> R:
        """Let `step` turn the pace of an account into its next state; returns what else `step` says."""
        return self._change(keys.pace(account), Pace, step)

    def condition(self, lane: Lane) -> Condition:
        """The condition of a lane as it stands."""
        return self._read(keys.LaneKeys(lane).condition, Condition)[1]

    def change_condition(self, lane: Lane, step: Callable[[Condition], tuple[Condition, R]]) -> R:
        """Let `step` turn the condition of a lane into its next state; returns what else `step` says."""
        return self._change(keys.LaneKeys(lane).condition, Condition, step)

    def law(self, lane: Lane, model: str) -> Law:
        """The law of a model; without a name, of the whole service."""
        return self._read(keys.LaneKeys(lane).law(model), Law)[1]

    def change_law(self, lane: Lane, model: str, step: Callable[[Law], Law]) -> None:
        """Let `step` turn the law of a model into its next state."""
        self._change(keys.LaneKeys(lane).law(model), Law, lambda law: (step(law), None))

    def note_models(self, lane: Lane, models: Iterable[str], now: float) -> None:
        """Remember that these models were taught, so that somebody can ask which there are; the latest are kept."""
        key, words = keys.LaneKeys(lane).models, [word for model in models for word in (now, model)]
        if words:
            self._redis.anyway(key, "ZADD", *words)
            self._redis.anyway(key, "ZREMRANGEBYRANK", 0, -MODELS_KEPT - 1)
            self._redis.anyway(key, "EXPIRE", FORGOTTEN_AFTER)

    def circuits(self, endpoints: Iterable[str]) -> list[Circuit]:
        """The circuits of webhook endpoints as they stand, in one round trip."""
        pipe = self._redis.pipeline()
        for endpoint in endpoints:
            pipe.hget(keys.circuit(endpoint), "value")
        with self._redis.errors():
            return [Circuit.from_json(_text(value)) for value in pipe.execute()]

    def change_circuit(self, endpoint: str, step: Callable[[Circuit], Circuit]) -> Circuit:
        """Let `step` turn the circuit of an endpoint into its next state; returns that."""
        return self._change(keys.circuit(endpoint), Circuit, lambda known: ((new := step(known)), new))

    def _read(self, key: str, kind: type[T]) -> tuple[str, T]:
        with self._redis.errors():
            version, value = map(_text, self._redis.redis.hmget(key, ["version", "value"]))
        return version or "0", kind.from_json(value)

    def _change(self, key: str, kind: type[T], step: Callable[[T], tuple[T, R]]) -> R:
        for _ in range(TRIES):
            version, old = self._read(key, kind)
            new, answer = step(old)
            if new == old or self._redis.script("swap", [key], [version, new.to_json(), FORGOTTEN_AFTER]):
                return answer
        raise BookUnavailable(f"Too many processes change {key} at the same time.")
