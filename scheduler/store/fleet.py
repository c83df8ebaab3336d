"""Who lives: the heartbeats of workers and beats, and the slots of time in which one dispatch runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from scheduler.store import keys
from scheduler.store.connection import Connection

#: Seconds between heartbeats, after which a process counts as gone, and after which it is forgotten.
EVERY, GONE_AFTER, FORGOTTEN_AFTER = 5.0, 20.0, 3600.0


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the fleet, when it was last heard, for which accounts it has tokens, and whether it can sign."""

    name: str
    role: str
    version: str
    at: float
    accounts: tuple[str, ...] = ()
    signs: bool = False

    def alive(self, now: float) -> bool:
        """True if it was heard of lately."""
        return now - self.at < GONE_AFTER


class Fleet:
    """Heartbeats and ticks. Every method raises BookUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def now(self) -> float:
        """Redis TIME as float seconds."""
        with self._redis.errors():
            seconds, micros = self._redis.redis.time()
        return int(seconds) + int(micros) / 1e6

    def take_tick(self, now: float, every: float) -> bool:
        """True for the first who asks in this slot of time: any number of beats may run."""
        with self._redis.errors():
            return bool(self._redis.redis.set(keys.tick(int(now / every)), 1, nx=True, px=max(int(every * 2000), 1)))

    def beat(self, member: Member) -> None:
        """Leave a heartbeat."""
        with self._redis.errors():
            self._redis.redis.hset(keys.FLEET, member.name, json.dumps(asdict(member)))

    def leave(self, name: str) -> None:
        """Say that a process ends on purpose."""
        with self._redis.errors():
            self._redis.redis.hdel(keys.FLEET, name)

    def members(self, now: float) -> list[Member]:
        """Those heard of within the last hour; forgets the others."""
        with self._redis.errors():
            rows: dict[str, str] = self._redis.redis.hgetall(keys.FLEET)  # type: ignore[assignment]
            members = [Member(**json.loads(row)) for row in rows.values()]
            stale = [member.name for member in members if now - member.at > FORGOTTEN_AFTER]
            if stale:
                self._redis.redis.hdel(keys.FLEET, *stale)
        return sorted((m for m in members if m.name not in stale), key=lambda member: (member.role, member.name))
