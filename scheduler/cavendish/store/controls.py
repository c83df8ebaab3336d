"""What operators set while everything runs, in one small hash: pauses and rate ceilings.

It is read whole, so that a dispatch needs one command for all of its lanes.
"""

from __future__ import annotations

import math
import time
from typing import Any

from cavendish.policy.operator_controls import Controls, Pause, RateCeiling
from cavendish.store.connection import Connection
from cavendish.store.keys import CONTROLS

#: Seconds for which what was read is used: less than a tick.
FRESH_FOR = 0.2
_PAUSE, _CEILING = "pause ", "ceiling "


class OperatorControls:
    """Every method raises StoreUnavailable. Safe to share between threads."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._known, self._read_at = Controls(), -math.inf

    def read(self) -> Controls:
        """All of them as they are now."""
        with self._redis.errors():
            rows: Any = self._redis.redis.hgetall(CONTROLS)
        self._known, self._read_at = controls_in(rows), time.monotonic()
        return self._known

    def known(self) -> Controls:
        """All of them as they were at most FRESH_FOR seconds ago."""
        fresh = time.monotonic() - self._read_at < FRESH_FOR
        return self._known if fresh else self.read()

    def pause(self, pause: Pause) -> None:
        """Write a pause, also where memory is full."""
        self._write(_PAUSE + pause.name, pause.to_json())

    def set_ceiling(self, ceiling: RateCeiling) -> None:
        """Write a rate ceiling, also where memory is full."""
        self._write(_CEILING + ceiling.account, ceiling.to_json())

    def end_pause(self, name: str) -> None:
        """Delete the pause of this name."""
        self._delete(_PAUSE + name)

    def end_ceiling(self, account: str) -> None:
        """Delete the rate ceiling of an account."""
        self._delete(_CEILING + account)

    def _write(self, name: str, text: str) -> None:
        self._redis.write_when_full(CONTROLS, "HSET", name, text)
        self._redis.ensure(CONTROLS)

    def _delete(self, name: str) -> None:
        with self._redis.errors():
            self._redis.redis.hdel(CONTROLS, name)
        self._redis.ensure(CONTROLS)


def controls_in(rows: object) -> Controls:
    """The controls in the hash; none in an error, and a damaged one is left out."""
    texts = rows.items() if isinstance(rows, dict) else ()
    pauses, ceilings = dict[str, Pause](), dict[str, RateCeiling]()
    for field, text in texts:
        kind, _, name = field.partition(" ")
        if kind == _PAUSE.strip() and (pause := Pause.from_json(name, text)):
            pauses[name] = pause
        elif kind == _CEILING.strip() and (ceiling := RateCeiling.from_json(name, text)):
            ceilings[name] = ceiling
    return Controls(pauses, ceilings)
