"""Webhook endpoints in the store: the registered ones, and which are disabled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from cavendish.endpoints.webhook_endpoint import Disabled, Endpoint
from cavendish.store.connection import Connection
from cavendish.store.keys import DISABLED, ENDPOINTS


class Endpoints:
    """Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def add(self, endpoint: Endpoint) -> bool:
        """Register an endpoint; false if the name is taken."""
        batch = self._redis.batch()
        batch.command(ENDPOINTS, "HSETNX", ENDPOINTS, endpoint.name, endpoint.to_json())
        return bool(batch.execute()[0])

    def all(self) -> dict[str, Endpoint]:
        """All registered endpoints by name.

        An unreadable one has no keys, so its deliveries wait.
        """
        with self._redis.errors():
            rows: Any = self._redis.redis.hgetall(ENDPOINTS)
        return _endpoints(rows)

    def all_and_disabled(self) -> tuple[dict[str, Endpoint], dict[str, Disabled]]:
        """All registered endpoints, and the disabled ones, in one round trip."""
        pipe = self._redis.pipeline()
        pipe.hgetall(ENDPOINTS)
        pipe.hgetall(DISABLED)
        with self._redis.errors():
            rows, disabled = pipe.execute()
        return _endpoints(rows), _disabled(disabled)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the names under which nothing is registered."""
        wanted = list(names)
        with self._redis.errors():
            rows: list[Any] = self._redis.redis.hmget(ENDPOINTS, wanted) if wanted else []
        return [name for name, row in zip(wanted, rows, strict=True) if row is None]

    def change(self, name: str, step: Callable[[Endpoint], Endpoint]) -> Endpoint | None:
        """Replace a registered endpoint by what `step` makes of it; None if it is not registered.

        `step` is called again if another process changed the endpoint meanwhile.
        """
        changed: list[Endpoint] = []

        def attempt(pipe: Any) -> None:
            changed.clear()
            row = pipe.hget(ENDPOINTS, name)
            known = Endpoint.from_json(name, row)
            pipe.multi()
            if known:
                changed.append(step(known))
                pipe.hset(ENDPOINTS, name, changed[0].to_json())

        with self._redis.errors():
            self._redis.redis.transaction(attempt, ENDPOINTS)
        self._redis.ensure(ENDPOINTS)
        return changed[0] if changed else None

    def remove(self, name: str) -> bool:
        """Delete a registered endpoint; its deliveries become dead letters when they are due."""
        with self._redis.errors():
            self._redis.redis.hdel(DISABLED, name)
            return bool(self._redis.redis.hdel(ENDPOINTS, name))

    def disable(self, name: str, disabled: Disabled) -> bool:
        """Stop sending to an endpoint, registered or not; false if it was disabled before."""
        return bool(self._redis.write_when_full(DISABLED, "HSETNX", name, disabled.to_json()))

    def enable(self, name: str) -> bool:
        """Send to an endpoint again; false if it was not disabled."""
        with self._redis.errors():
            return bool(self._redis.redis.hdel(DISABLED, name))

    def disabled(self) -> dict[str, Disabled]:
        """The disabled endpoints."""
        with self._redis.errors():
            rows: Any = self._redis.redis.hgetall(DISABLED)
        return _disabled(rows)


def _endpoints(rows: Mapping[str, str]) -> dict[str, Endpoint]:
    return {name: _read(name, row) or Endpoint(name, "", 0.0) for name, row in sorted(rows.items())}


@lru_cache(maxsize=20_000)
def _read(name: str, row: str) -> Endpoint | None:
    """Read one; they are read again and again, and hardly ever change."""
    return Endpoint.from_json(name, row)


def _disabled(rows: Mapping[str, str]) -> dict[str, Disabled]:
    return {name: Disabled.from_json(row) for name, row in sorted(rows.items())}
