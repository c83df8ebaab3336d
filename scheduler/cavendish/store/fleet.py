"""Who lives.

The heartbeats of workers and beats, and the slots of time in which one dispatch runs; and whose
store it is.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from cavendish.errors import StoreFormatError
from cavendish.policy.addresses import Network, parse_networks
from cavendish.store import keys
from cavendish.store.connection import Connection

#: Seconds between heartbeats, after which a process counts as gone, and after which it is
#: forgotten.
EVERY, GONE_AFTER, FORGOTTEN_AFTER = 5.0, 20.0, 3600.0
#: Share of a tick for which it is taken: less than all of it, or a tick that comes a little early
#: would be dropped.
TICK_SHARE = 0.8
#: The format of the store. It grows only when what lies there changes so that older versions would
#: misread it.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the fleet: when it was last heard, for which accounts it has tokens, what it may
    dial.

    `signs`: it has a webhook secret; `encrypts`: it has a key for the secrets of registered
    endpoints. `queues` are those that it takes messages from, None where an older version does not
    say; `ahead` is its wall clock less that of the store.
    """

    name: str
    role: str
    version: str
    at: float
    accounts: tuple[str, ...] = ()
    signs: bool = False
    allow: tuple[str, ...] = ()
    encrypts: bool = False
    queues: tuple[str, ...] | None = None
    ahead: float | None = None

    def alive(self, now: float) -> bool:
        """True if it was heard of lately."""
        return now - self.at < GONE_AFTER


class Fleet:
    """Heartbeats and ticks.

    Every method raises BookUnavailable; `now` at its first call ForeignBook too.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._ours = False

    def now(self) -> float:
        """Redis TIME as float seconds; in a cluster that of the primary which holds the heartbeats,
        so there is one clock.

        Everything in the store begins with the time, so its format is checked here: until it has
        one, and in the same round trip.
        """
        if self._ours:
            seconds, micros = self._redis.time(keys.FLEET)
            return seconds + micros / 1e6
        seconds, micros, held = self._redis.time_and(keys.FORMAT)
        if held is not None and held != str(FORMAT):
            raise StoreFormatError(f"The store at {self._redis.where} {_foreign(held)}.")
        self._ours = held is not None  # a new store may yet become that of another version
        return seconds + micros / 1e6

    def format(self) -> str | None:
        """The format that the store says it has; None if no worker or beat has ever come to it."""
        return self._redis.time_and(keys.FORMAT)[2]

    def take_tick(self, every: float) -> bool:
        """True for the first who asks.

        False for others until most of a tick has passed: any number of beats may run.
        """
        return bool(
            self._redis.write_when_full(
                keys.TICK, "SET", 1, "NX", "PX", max(int(every * TICK_SHARE * 1000), 1)
            )
        )

    def beat(self, member: Member) -> None:
        """Leave a heartbeat."""
        self._redis.write_when_full(keys.FLEET, "HSET", member.name, json.dumps(asdict(member)))

    def found(self) -> None:
        """Write down the format of a store that has none yet."""
        self._redis.write_when_full(keys.FORMAT, "SET", FORMAT, "NX")

    def leave(self, name: str) -> None:
        """Say that a process ends on purpose."""
        with self._redis.errors():
            self._redis.redis.hdel(keys.FLEET, name)

    def members(self, now: float) -> list[Member]:
        """Those heard of within the last hour; forgets the others."""
        with self._redis.errors():
            rows: dict[str, str] = self._redis.redis.hgetall(keys.FLEET)  # type: ignore[assignment]
            members = {name: _member(row) for name, row in rows.items()}
            stale = [
                name
                for name, member in members.items()
                if member is None or now - member.at > FORGOTTEN_AFTER
            ]
            if stale:
                self._redis.redis.hdel(keys.FLEET, *stale)
        living = [
            member for name, member in members.items() if member is not None and name not in stale
        ]
        return sorted(living, key=lambda member: (member.role, member.name))

    def allowed(self) -> tuple[Network, ...]:
        """Private addresses that webhooks may reach, as the living workers say."""
        now = self.now()
        return parse_networks(
            ",".join(
                {text for member in self.members(now) if member.alive(now) for text in member.allow}
            )
        )


def _foreign(held: str) -> str:
    """What to do about a format that is not ours."""
    if held.isdigit() and int(held) > FORMAT:
        return (
            f"has the format {held}, and this version of Cavendish knows {FORMAT}: upgrade it here"
        )
    return f"has the format {held[:20]!r}, and this version of Cavendish wants {FORMAT}: give it a store of its own"


_TEXTS = frozenset(("name", "role", "version"))
_FIELDS = frozenset(field.name for field in fields(Member))


def _member(row: str) -> Member | None:
    """None for a heartbeat that nobody can read.

    What a newer version says besides is passed over.
    """
    try:
        said: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v
            for name, v in json.loads(row).items()
            if name in _FIELDS
        }
        return (
            Member(**said)
            if all(isinstance(said[n], str) for n in _TEXTS) and said["at"] > 0
            else None
        )
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return None
