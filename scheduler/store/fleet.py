"""Who lives: the heartbeats of workers and beats, and the slots of time in which one dispatch runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from scheduler.addresses import Network, parse_networks
from scheduler.store import keys
from scheduler.store.connection import Connection

#: Seconds between heartbeats, after which a process counts as gone, and after which it is forgotten.
EVERY, GONE_AFTER, FORGOTTEN_AFTER = 5.0, 20.0, 3600.0
#: Share of a tick for which it is taken: less than all of it, or a tick that comes a little early would be dropped.
TICK_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the fleet: when it was last heard, for which accounts it has tokens, what it may dial.

    `signs`: it has a webhook secret; `seals`: it has a key for the secrets of registered endpoints.
    """

    name: str
    role: str
    version: str
    at: float
    accounts: tuple[str, ...] = ()
    signs: bool = False
    allow: tuple[str, ...] = ()
    seals: bool = False

    def alive(self, now: float) -> bool:
        """True if it was heard of lately."""
        return now - self.at < GONE_AFTER


class Fleet:
    """Heartbeats and ticks. Every method raises BookUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def now(self) -> float:
        """Redis TIME as float seconds; in a cluster that of the primary which holds the heartbeats, so there is one clock."""
        seconds, micros = self._redis.time(keys.FLEET)
        return seconds + micros / 1e6

    def take_tick(self, every: float) -> bool:
        """True for the first who asks; false for others until most of a tick has passed: any number of beats may run."""
        return bool(self._redis.anyway(keys.TICK, "SET", 1, "NX", "PX", max(int(every * TICK_SHARE * 1000), 1)))

    def beat(self, member: Member) -> None:
        """Leave a heartbeat."""
        self._redis.anyway(keys.FLEET, "HSET", member.name, json.dumps(asdict(member)))

    def leave(self, name: str) -> None:
        """Say that a process ends on purpose."""
        with self._redis.errors():
            self._redis.redis.hdel(keys.FLEET, name)

    def members(self, now: float) -> list[Member]:
        """Those heard of within the last hour; forgets the others."""
        with self._redis.errors():
            rows: dict[str, str] = self._redis.redis.hgetall(keys.FLEET)  # type: ignore[assignment]
            members = {name: _member(row) for name, row in rows.items()}
            stale = [name for name, member in members.items() if member is None or now - member.at > FORGOTTEN_AFTER]
            if stale:
                self._redis.redis.hdel(keys.FLEET, *stale)
        living = [member for name, member in members.items() if member is not None and name not in stale]
        return sorted(living, key=lambda member: (member.role, member.name))

    def allowed(self) -> tuple[Network, ...]:
        """Private addresses that webhooks may reach, as the living workers say."""
        now = self.now()
        return parse_networks(",".join({text for member in self.members(now) if member.alive(now) for text in member.allow}))


def _member(row: str) -> Member | None:
    """None for a heartbeat of another version that says it otherwise."""
    try:
        return Member(**json.loads(row))
    except (TypeError, ValueError):
        return None
