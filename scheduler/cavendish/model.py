"""The nouns: tracked task, state, lane, answer.

                        verdict                                  webhook answered 2xx
      submit ─► pending ───────► succeeded | failed   ─ has pending ─►  pending ────────────────►
      delivered
                  │  │ absent n times over t seconds               │ ▲
                  │  └───────────────► unknown        ─ has pending ─►    │ └── revive
                  └ deadline passed ─► expired        ─ has pending ─►    └─ attempts used up ─►
                  dead

Terminal states are sticky: tracking an id again after it ended takes an explicit `restart`.
Times are float seconds since the Unix epoch, by the clock of Redis.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from zlib import crc32

#: An upstream record as parsed from JSON. Nothing is promised about its shape.
Record = Mapping[str, Any]


class State(StrEnum):
    """Where a tracked task stands. All but PENDING are terminal.

    - PENDING: nothing is known of its end yet;
    - SUCCEEDED, FAILED: the remote API said so;
    - UNKNOWN: the remote API did not know the id, several times over a while;
    - EXPIRED: its deadline passed first.
    """

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """True once nothing about the tracked task changes any more."""
        return self is not State.PENDING


@dataclass(frozen=True, slots=True, order=True)
class Lane:
    """What one batch call can ask about.

    One service, asked through one account (and one shard of the store).
    """

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


#: Where notices of our own are pending, such as `endpoint.disabled`. Nothing is asked there.
OPERATIONS = Lane("cavendish", "operations")


@dataclass(frozen=True, slots=True)
class TrackedTask:
    """A remote job as the store knows it. Every time is in seconds since the Unix epoch, by the
    clock of Redis; None: not yet.

    `id`, `service` and `account` name it; `state` and `reason` (a sentence, or "") say how it
    stands. It was handed in at `submitted_at` and ends by `deadline_at` at the latest; it finished
    at the remote API at `finished_at`, and the store learned of it at `settled_at`. `polls` counts
    how often it was asked about, last at `polled_at`; `absences` how often in a row the API did not
    know it, first at `absent_since`. `model`, `producer`, `metadata` and `webhooks` are as they
    were handed in; `round` counts how often the id was tracked anew, and `trace` is the
    `traceparent` given with it, or "". `record` is the upstream record as it came (left out where
    it was not asked for).
    """

    id: str
    service: str
    account: str
    state: State
    submitted_at: float
    deadline_at: float
    round: int = 0
    polls: int = 0
    polled_at: float | None = None
    absences: int = 0
    absent_since: float | None = None
    finished_at: float | None = None
    settled_at: float | None = None
    reason: str = ""
    model: str = ""
    producer: str = ""
    metadata: Mapping[str, Any] | None = None
    webhooks: tuple[str, ...] = ()
    record: Record | None = None
    trace: str = ""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for `--json` and for people; the shape of the public surface."""
        plain = {
            name: getattr(self, name)
            for name in self.__slots__
            if name not in ("webhooks", "absent_since", "round")
        }
        return plain | {"state": self.state.value}


@dataclass(frozen=True, slots=True)
class Event:
    """The end of a tracked task (`id`, `service`, `account`), as the stream tells it: its `state`,
    and `at` what moment the store learned of it, in seconds since the Unix epoch.

    `position` is an opaque printable text: `Client.events(after=position)` goes on behind this
    event.
    """

    id: str
    service: str
    account: str
    state: State
    at: float
    position: str

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for `--json`; the shape of the public surface."""
        return {name: getattr(self, name) for name in self.__slots__} | {"state": self.state.value}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pending id that might be asked about, with what is needed to weigh it.

    `due` is its place in the set.
    """

    id: str
    producer: str
    due: float
    submitted_at: float
    deadline_at: float
    polled_at: float | None
    model: str


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to one submitted `id`: the `outcome` is `new`, `known` or `refused`, `state` is
    the one it has now (None if refused), and `reason` says in a sentence why it was refused, or not
    tracked again (else "").
    """

    id: str
    outcome: str
    state: State | None = None
    reason: str = ""

    @property
    def refused(self) -> bool:
        """True if this one id was not taken: `reason` says why."""
        return self.outcome == "refused"


class UpstreamErrorKind(StrEnum):
    """Why the remote API did not answer the question that was asked."""

    RATE = "rate"  # 429: too fast; says nothing about the ids
    ACCOUNT = (
        "account"  # the credential is refused, used up or disabled; says nothing about the ids
    )
    FORBIDDEN = "forbidden"  # one of the ids asked about may not be asked about
    TOO_MANY = "too many ids"  # the batch is larger than the API takes
    BAD = (
        "bad"  # a 400 or the like: one of the ids is none for the API, or the whole question is not
    )
    DOWN = "down"  # 5xx, timeouts, resets, answers that cannot be read


@dataclass(frozen=True, slots=True)
class Quota:
    """What the API says of its own limit in RateLimit headers.

    Calls left, and seconds until there are more.
    """

    remaining: float
    reset: float


@dataclass(frozen=True, slots=True)
class Answered:
    """The remote API answered.

    `items` are its records as they came, in any order, asked for or not.
    """

    items: Sequence[Record]
    quota: Quota | None = None


@dataclass(frozen=True, slots=True)
class UpstreamError:
    """The remote API did not answer the question. `retry_after` in seconds, where it said so."""

    why: UpstreamErrorKind
    detail: str
    retry_after: float | None = None
    quota: Quota | None = None


Answer = Answered | UpstreamError


def compact(value: Any) -> str:
    """The one JSON spelling that the store and the webhooks use.

    Broken Unicode stays in its escaped form.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text


def printable(text: str, length: int) -> str:
    """The text without control characters and broken Unicode, at most so long."""
    return "".join(c if c.isprintable() else " " for c in text[:length])


#: Levels of nesting that are kept of anything that comes from outside.
DEEPEST = 100


def too_deep(value: Any) -> bool:
    """True for lists and objects nested deeper than DEEPEST, found without going down the stack."""
    layer = [value]
    for _ in range(DEEPEST):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        layer = [inner for inner in layer if isinstance(inner, dict | list | tuple)]
        if not layer:
            return False
    return True
