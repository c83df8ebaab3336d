"""The processes of the fleet: heartbeats, the owner of a tick, and the format of the store."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cavendish.errors import StoreFormatError
from cavendish.policy.addresses import Network, parse_networks
from cavendish.store import keys
from cavendish.store.connection import Connection
from cavendish.store.keys import nothing
from cavendish.stored_json import END_OF_TIME, compact, read

#: Seconds between heartbeats, after which a process counts as gone, and after which it is
#: forgotten.
EVERY, GONE_AFTER, FORGOTTEN_AFTER = 5.0, 20.0, 3600.0
#: Share of a tick for which it is taken: less than all of it, or a tick that comes a little early
#: would be dropped.
TICK_SHARE = 0.8
#: Seconds since the epoch, and a random word.
_ORIGIN = re.compile(r"[0-9]{1,10}\.[0-9]{3}-[0-9a-f]{16}")
#: Seconds for which it is reported that the store was emptied.
REPORTED_FOR = 7 * 86400.0
#: The format of the store. It grows only when what lies there changes so that older versions would
#: misread it.
FORMAT = 3


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the fleet: the time `at` of its last heartbeat, and what it said there.

    `accounts` are those that it has tokens for, `allow` the private addresses that it may dial.
    `signs`: it has a webhook secret; `encrypts`: it has a key for the secrets of registered
    endpoints. `queues` are those that it takes messages from, None if an older version does not
    tell; `ahead` is its wall clock less that of the store, in seconds. `token_fault`: why its file
    of tokens cannot be read again.
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
    token_fault: str = ""

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


@dataclass(frozen=True, slots=True)
class Emptied:
    """A store that was emptied under running processes, such as by FLUSHALL.

    They noticed it `at` a time; the store that they knew began at `began`; seconds since the epoch.
    An operator has `acknowledged` it, or not.
    """

    at: float
    began: float
    acknowledged: bool = False

    @classmethod
    def from_json(cls, text: object) -> Emptied | None:
        """Read what `to_json` wrote; None for anything else."""
        known = read(cls, text)
        if known and all(0 <= time < END_OF_TIME for time in (known.at, known.began)):
            return known
        return None

    def to_json(self) -> str:
        """The JSON text that is stored."""
        return compact(self)

    @property
    def reason(self) -> str:
        """What happened, as a sentence without a full stop."""
        began, at = (datetime.fromtimestamp(time, UTC) for time in (self.began, self.at))
        return (
            f"the store that began {began:%Y-%m-%d %H:%M:%S} was emptied by {at:%Y-%m-%d %H:%M:%S}"
        )


class Fleet:
    """Heartbeats, ticks, and the messages of beat that wait in their queues.

    Every method raises StoreUnavailable; `now` also StoreFormatError, until the format is known.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._ours = False
        self._origin = ""

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

    def take_tick(self, every: float, accounts: Sequence[str]) -> list[str]:
        """The accounts of these that this process is the first to ask for, so it dispatches them.

        It is the only one until most of a tick has passed. So any number of beats may run. `every`
        is the length of a tick in seconds.
        """
        words = ["SET", 1, "NX", "PX", max(int(every * TICK_SHARE * 1000), 1)]
        names = [(key, nothing(key)) for key in map(keys.dispatcher, accounts)]
        answers = self._redis.scripts("write_when_full", [(pair, words) for pair in names])
        pairs = zip(accounts, answers, strict=True)
        return [each for each, answer in pairs if answer and not isinstance(answer, Exception)]

    def may_send(self, task: str, patience: float) -> bool:
        """True if no message for a Celery task waits in its queue, so that beat may send one.

        A message that no worker takes within `patience` seconds counts as lost.
        """
        key, milliseconds = keys.message(task), max(int(patience * 1000), 1)
        return bool(self._redis.write_when_full(key, "SET", 1, "NX", "PX", milliseconds))

    def taken(self, task: str) -> None:
        """A worker has taken the message of beat for a Celery task."""
        with self._redis.errors():
            self._redis.redis.delete(keys.message(task))

    def beat(self, member: Member) -> None:
        """Store a heartbeat."""
        self._redis.write_when_full(keys.FLEET, "HSET", member.name, member.to_json())

    def found(self, now: float) -> Emptied | None:
        """Write format and origin of a store that has none yet.

        If the origin is another than this process has seen before, the store was emptied. The first
        process that notices this notes it, and gets the note.
        """
        self._redis.write_when_full(keys.FORMAT, "SET", FORMAT, "NX")
        known, self._origin = self._origin, self._held_origin(now)
        if known in ("", self._origin):
            return None
        emptied = Emptied(now, float(known.partition("-")[0]))
        words = ("SET", emptied.to_json(), "NX", "EX", int(REPORTED_FOR))
        return emptied if self._redis.write_when_full(keys.EMPTIED, *words) else None

    def _held_origin(self, now: float) -> str:
        held = self._redis.time_and(keys.ORIGIN)[2]
        if held is None:
            new = f"{now:.3f}-{secrets.token_hex(8)}"
            self._redis.write_when_full(keys.ORIGIN, "SET", new, "NX")
            held = self._redis.time_and(keys.ORIGIN)[2]
        return held if held and _ORIGIN.fullmatch(held) else self._origin

    def emptied(self) -> Emptied | None:
        """Whether the store was emptied under running processes lately."""
        return Emptied.from_json(self._redis.time_and(keys.EMPTIED)[2])

    def acknowledge_emptied(self) -> bool:
        """Report no more that the store was emptied; false if it was not.

        The note stays, so that a process that notices it late does not report it again.
        """
        emptied = self.emptied()
        if emptied is None or emptied.acknowledged:
            return False
        text = replace(emptied, acknowledged=True).to_json()
        return bool(self._redis.write_when_full(keys.EMPTIED, "SET", text, "XX", "KEEPTTL"))

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
