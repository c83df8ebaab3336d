"""The nouns: tracked task, state, lane, event, answer of the remote API.

                verdict                                     2xx
    submit ─► pending ───────► succeeded | failed ─► delivery pending ────► delivered
                │ │ not found n times over t s         │ ▲
                │ └──────────────────► unknown    ─►   │ └── revive
                │ └ deadline passed ─► expired    ─►   └─ attempts used up ─► dead letter
                └ cancel ────────────► cancelled  ─►

A terminal state never changes; only an explicit `restart` tracks an id anew after its end.
Times are float seconds since the Unix epoch, by the clock of Redis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from uuid import UUID
from zlib import crc32

from cavendish.operator_act import OperatorAct

#: An upstream record as parsed from JSON. Nothing is promised about its shape.
Record = Mapping[str, object]


class State(StrEnum):
    """Where a tracked task stands. All but PENDING are terminal.

    - PENDING: it has not ended, as far as is known;
    - SUCCEEDED, FAILED: the remote API reported it;
    - UNKNOWN: the remote API reported the id as not found, several times over a while, under a
      token for which it knows other ids;
    - EXPIRED: its deadline passed first;
    - CANCELLED: somebody cancelled it, so it is polled no more.
    """

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """True for a state that never changes again."""
        return self is not State.PENDING


@dataclass(frozen=True, slots=True, order=True)
class Lane:
    """The ids that one batch call can ask about: one service, one account, one shard."""

    account: str
    service: str
    shard: int = 0

    def __str__(self) -> str:
        return f"{self.account}/{self.service}/{self.shard}"

    @classmethod
    def parse(cls, text: str) -> Lane:
        """Read what `str` wrote. Raises ValueError on anything else."""
        account, service, shard = text.split("/")
        return cls(account, service, int(shard))

    @classmethod
    def of(cls, account: str, service: str, task_id: str, shards: int) -> Lane:
        """The lane that an id belongs to, the same in every process."""
        return cls(account, service, crc32(task_id.encode()) % shards if shards > 1 else 0)

    @property
    def has_ids(self) -> bool:
        """False for the lanes of our own events: they have deliveries, and no ids of the API."""
        return self.service != GROUPS and self != OPERATIONS


#: The lane of our own events, such as `endpoint.disabled`.
OPERATIONS = Lane("cavendish", "operations")
#: In place of a service, in the lanes of an account in which its groups lie. No submit may name it.
GROUPS = "+groups"


@dataclass(frozen=True, slots=True)
class Task:
    """An `id` as a producer hands it over, with what is said of it alone.

    `metadata`: a JSON object of at most 8 KiB, instead of that of the submit; `key`: a name of the
    producer's own, such as "order-7", under which `Client.find` finds the id.
    """

    id: str | UUID
    metadata: Mapping[str, object] | None = None
    key: str | UUID | None = None


#: What `--json` does not print of a tracked task.
_UNTOLD = frozenset("webhooks groups absent_since announced_at restarts record_json acts".split())


@dataclass(frozen=True, slots=True)
class TrackedTask:
    """A remote job as the store knows it.

    Every time is in seconds since the Unix epoch, by the clock of Redis; None: not yet.

    - `id`, `service` and `account` name it; `state` and `reason` (a sentence, or "") say where it
      stands;
    - it was submitted at `submitted_at` and ends by `deadline_at` at the latest; it finished at the
      remote API at `finished_at`, and the store learned this at `settled_at`;
    - `polls` counts the requests about it, the last at `polled_at`; `absences` counts how often in
      a row the API reported it as not found, first at `absent_since`; a callback last said at
      `announced_at` that it had ended;
    - `model`, `producer`, `key`, `metadata`, `webhooks` and `trace` (the `traceparent`, or "") are
      as they were submitted; `groups` are those that it was submitted to, `group` the first of
      them, or ""; `restarts` counts how often the id was tracked anew;
    - `acts`: what operators did to it and its end does not tell, the latest last;
    - `record` is the upstream record, a JSON object as Python values: of a float the digits that it
      holds, of keys that come twice the last; a number that Python cannot hold is its text, such as
      "1e400"; NaN and Infinity are None. `record_json` is its JSON text as it came. Both are None
      if there is no record, or if it was not asked for.
    """

    id: str
    service: str
    account: str
    state: State
    submitted_at: float
    deadline_at: float
    restarts: int = 0
    polls: int = 0
    polled_at: float | None = None
    absences: int = 0
    absent_since: float | None = None
    finished_at: float | None = None
    settled_at: float | None = None
    reason: str = ""
    model: str = ""
    producer: str = ""
    metadata: Mapping[str, object] | None = None
    webhooks: tuple[str, ...] = ()
    record: Record | None = None
    record_json: str | None = None
    trace: str = ""
    key: str = ""
    groups: tuple[str, ...] = ()
    acts: tuple[OperatorAct, ...] = ()
    announced_at: float | None = None

    @property
    def is_announced(self) -> bool:
        """True if a callback said that it has ended, and no poll has shown it since."""
        return self.announced_at is not None and self.announced_at >= (self.polled_at or 0.0)

    @property
    def group(self) -> str:
        """The first of its groups, or "": few ids have more than one."""
        return self.groups[0] if self.groups else ""

    def to_json(self) -> dict[str, object]:
        """A plain dictionary, as `--json` prints it."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in _UNTOLD}
        return plain | {"state": self.state.value, "group": self.group}


@dataclass(frozen=True, slots=True)
class Group:
    """A group of ids of one `account`, by its `name`.

    - `size`: how many ids it has once it is whole; None: no submit has said so yet;
    - `joined` of them were submitted, and `counts` says by state how many have ended;
    - the first was submitted at `first_submitted_at`; all had ended at `completed_at` (None: not
      yet). Times are in seconds since the Unix epoch.
    """

    name: str
    account: str
    size: int | None
    joined: int
    counts: Mapping[str, int]
    first_submitted_at: float
    completed_at: float | None = None

    @property
    def ended(self) -> int:
        """How many of its ids have ended."""
        return sum(self.counts.values())

    def __str__(self) -> str:
        """Where it stands, in a few words."""
        of = "of an unknown number of" if self.size is None else f"of {self.size}"
        return f"group {self.name!r}: {self.ended} {of} ids have ended, {self.joined} are known"

    def to_json(self) -> dict[str, object]:
        """A plain dictionary, as `--json` prints it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Event:
    """The end of a tracked task (`id`, `service`, `account`), as the stream has it.

    `state` is how it ended, `at` when the store learned this, in seconds since the Unix epoch.
    `position` is an opaque printable text: `Client.events(after=position)` continues after this
    event.
    """

    id: str
    service: str
    account: str
    state: State
    at: float
    position: str

    def to_json(self) -> dict[str, object]:
        """A plain dictionary, as `--json` prints it."""
        return {name: getattr(self, name) for name in self.__slots__} | {"state": self.state.value}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pending id that the next batch may contain; its poll is due at `due`.

    `announced_at`: when a callback said that it has ended.
    """

    id: str
    producer: str
    due: float
    submitted_at: float
    deadline_at: float
    polled_at: float | None
    model: str
    announced_at: float | None = None

    @property
    def is_announced(self) -> bool:
        """True if a callback said that it has ended, and no poll has shown it since."""
        return self.announced_at is not None and self.announced_at >= (self.polled_at or 0.0)

    @property
    def wanted_at(self) -> float:
        """Since when its poll is wanted: an announced id is due a little earlier than that."""
        return max(self.due, self.announced_at or 0.0)


@dataclass(frozen=True, slots=True)
class LoggedAttempt:
    """One attempt of a delivery, as its log has it: when, what it met, and for how many seconds.

    `status`, `address` and `answer` of the receiver, where it answered.
    """

    at: float = 0.0
    outcome: str = ""
    seconds: float = 0.0
    status: int | None = None
    address: str = ""
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to one submitted `id`.

    `outcome` is "new", "known" or "refused"; `state` is its state now (None if refused); `reason`
    says in a sentence why it was refused, or why it was not restarted (else "").
    """

    id: str
    outcome: Literal["new", "known", "refused"]
    state: State | None = None
    reason: str = ""

    @property
    def refused(self) -> bool:
        """True if this id was not accepted: `reason` says why."""
        return self.outcome == "refused"


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of one `id` (of a `service`, under an `account`) that was to be changed.

    `outcome` is "done"; "ended" if it had ended before, and stays as it was; or "unknown" if it is
    not tracked, or cannot be read.
    """

    id: str
    service: str
    account: str
    outcome: Literal["done", "ended", "unknown"]


class UpstreamErrorKind(StrEnum):
    """Why the remote API did not answer a request.

    - RATE: a 429, too many calls; it says nothing about the ids;
    - ACCOUNT: the credential is refused, used up or disabled; it says nothing about the ids;
    - FORBIDDEN: the account may not ask about one of the ids;
    - TOO_MANY: the batch is larger than the API allows;
    - BAD: a 400 or the like: the API does not accept one of the ids, or the whole request;
    - NOT_SERVED: the API has no such service; it says nothing about the ids;
    - DOWN: a 5xx, a timeout, a reset, or an answer that cannot be read.
    """

    RATE = "rate"
    ACCOUNT = "account"
    FORBIDDEN = "forbidden"
    TOO_MANY = "too many ids"
    BAD = "bad"
    NOT_SERVED = "not served"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Quota:
    """What the RateLimit headers of the API say: calls left, and seconds until there are more."""

    remaining: float
    reset: float


@dataclass(frozen=True, slots=True)
class Answered:
    """The remote API answered: `items` are its records, in any order, asked for or not."""

    items: Sequence[Record]
    quota: Quota | None = None


@dataclass(frozen=True, slots=True)
class UpstreamError:
    """The remote API did not answer the request. `retry_after` is in seconds, if it was given."""

    why: UpstreamErrorKind
    detail: str
    retry_after: float | None = None
    quota: Quota | None = None


Answer = Answered | UpstreamError


def printable(text: str, length: int) -> str:
    """The first `length` characters of a text; unprintable ones become spaces."""
    return "".join(c if c.isprintable() else " " for c in text[:length])
