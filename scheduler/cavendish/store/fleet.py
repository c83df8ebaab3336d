"""The processes of the fleet: their heartbeats, who runs a tick, and the format of the store."""

from __future__ import annotations

from dataclasses import dataclass

from cavendish.errors import StoreFormatError
from cavendish.policy.addresses import Network, parse_networks
from cavendish.store import keys
from cavendish.store.connection import Connection
from cavendish.stored_json import compact, read

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
    """A process of the fleet: the time `at` of its last heartbeat, and what it said there.

    `accounts` are those that it has tokens for, `allow` the private addresses that it may dial.
    `signs`: it has a webhook secret; `encrypts`: it has a key for the secrets of registered
    endpoints. `queues` are those that it takes messages from, None if an older version does not
    tell; `ahead` is its wall clock less that of the store, in seconds.
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

    @classmethod
    def from_json(cls, text: object) -> Member | None:
        """Read what `to_json` wrote; None for anything else."""
        known = read(cls, text)
        return known if known and known.at > 0 else None

    def to_json(self) -> str:
        """The JSON text that is stored."""
        return compact(self)

    def alive(self, now: float) -> bool:
        """True if its last heartbeat is recent."""
        return now - self.at < GONE_AFTER


class Fleet:
    """Heartbeats and ticks.

    Every method raises StoreUnavailable; `now` also StoreFormatError, until the format is known.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._ours = False

    def now(self) -> float:
        """Redis TIME in seconds; in a cluster that of the primary which holds the heartbeats.

        All work begins with the time, so the format of the store is checked here, in the same round
        trip, until the store has one.
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
        """The format of the store; None if no worker or beat has used it yet."""
        return self._redis.time_and(keys.FORMAT)[2]

    def take_tick(self, every: float) -> bool:
        """True for the first process that asks; false for others until most of a tick has passed.

        So any number of beats may run. `every` is the length of a tick in seconds.
        """
        return bool(
            self._redis.write_when_full(
                keys.TICK, "SET", 1, "NX", "PX", max(int(every * TICK_SHARE * 1000), 1)
            )
        )

    def beat(self, member: Member) -> None:
        """Store a heartbeat."""
        self._redis.write_when_full(keys.FLEET, "HSET", member.name, member.to_json())

    def found(self) -> None:
        """Write the format of a store that has none yet."""
        self._redis.write_when_full(keys.FORMAT, "SET", FORMAT, "NX")

    def leave(self, name: str) -> None:
        """Remove the heartbeat of a process that ends on purpose."""
        with self._redis.errors():
            self._redis.redis.hdel(keys.FLEET, name)

    def members(self, now: float) -> list[Member]:
        """The processes with a heartbeat in the last hour; the others are deleted."""
        with self._redis.errors():
            rows: dict[str, str] = self._redis.redis.hgetall(keys.FLEET)  # type: ignore[assignment]
            members = {
                name: member
                for name, row in rows.items()
                if (member := Member.from_json(row)) and now - member.at <= FORGOTTEN_AFTER
            }
            if stale := rows.keys() - members.keys():
                self._redis.redis.hdel(keys.FLEET, *stale)
        return sorted(members.values(), key=lambda member: (member.role, member.name))

    def allowed(self) -> tuple[Network, ...]:
        """Private addresses that webhooks may reach, from the heartbeats of living workers."""
        now = self.now()
        living = [member for member in self.members(now) if member.alive(now)]
        return parse_networks(",".join({text for member in living for text in member.allow}))


def _foreign(held: str) -> str:
    """What is wrong with a format that is not ours, and what to do."""
    if held.isdigit() and int(held) > FORMAT:
        advice = f"knows {FORMAT}: upgrade it here"
    else:
        held, advice = repr(held[:20]), f"wants {FORMAT}: give it a store of its own"
    return f"has the format {held}, and this version of Cavendish {advice}"
