"""Pure: what operators set while everything runs: which accounts and services are paused, and the
ceiling of an account's rate limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cavendish.stored_json import END_OF_TIME, compact, read

#: Seconds until the next look at a lane whose service is paused, at most: a net, since a resume
#: notes the lane for a look at once.
LOOK_AGAIN = 5.0


@dataclass(frozen=True, slots=True)
class Pause:
    """An account, or one service of it, that is not asked about, because an operator said so.

    - `account` and `service` (None: all of the account) are what is paused;
    - `since` and `until` (None: until it is resumed) are in seconds since the Unix epoch;
    - `by` says who paused it last, and `reason` why ("": not said);
    - `replaced`: it took the place of an earlier pause, whose `since` it keeps.
    """

    account: str
    service: str | None
    since: float
    until: float | None
    by: str
    reason: str = ""
    replaced: bool = False

    @classmethod
    def from_json(cls, name: str, text: object) -> Pause | None:
        """Read the `text` that `to_json` wrote under a `name`; None for anything else."""
        account, _, service = name.partition("/")
        known = read(cls, text, account=account, service=service or None)
        times = (known.since, known.until or 0.0) if known else ()
        return known if all(0 <= at < END_OF_TIME for at in times) else None

    def to_json(self) -> str:
        """The JSON text that is stored."""
        return compact(self)

    @property
    def name(self) -> str:
        """`account` or `account/service`."""
        return self.account if self.service is None else f"{self.account}/{self.service}"

    def in_force(self, now: float) -> bool:
        """True if its time is not over at `now`: it needs nobody who ends it."""
        return self.until is None or now < self.until

    def left(self, now: float) -> float:
        """Seconds from `now` until it ends by itself; infinite if it does not."""
        return math.inf if self.until is None else max(self.until - now, 0.0)

    @property
    def told(self) -> str:
        """Who paused it, since when, until when and why, as words without a full stop."""
        until = "" if self.until is None else f" until {_moment(self.until)}"
        reason = f": {self.reason}" if self.reason else ""
        return f"paused by operator {self.by} since {_moment(self.since)}{until}{reason}"

    @property
    def sentence(self) -> str:
        """What is paused, and what `told` says."""
        what = "" if self.service is None else f"service {self.service} of "
        return f"the {what}account {self.account} is {self.told}"


@dataclass(frozen=True, slots=True)
class RateCeiling:
    """The most `calls` per second for an `account`, set `by` an operator instead of CAVENDISH_RATE.

    It was set at `since`, in seconds since the Unix epoch.
    """

    account: str
    calls: float
    since: float
    by: str

    @property
    def told(self) -> str:
        """What may be made at most, who said so, and when, as words without a full stop."""
        return f"at most {self.calls:g} calls/s, set by operator {self.by} at {_moment(self.since)}"

    @classmethod
    def from_json(cls, account: str, text: object) -> RateCeiling | None:
        """Read the `text` that `to_json` wrote for an `account`; None for anything else."""
        known = read(cls, text, account=account)
        return known if known and known.calls > 0 and 0 <= known.since < END_OF_TIME else None

    def to_json(self) -> str:
        """The JSON text that is stored."""
        return compact(self)


@dataclass(frozen=True, slots=True)
class Controls:
    """All pauses by their names, also those whose time is over, and all ceilings by account."""

    pauses: Mapping[str, Pause] = field(default_factory=dict)
    ceilings: Mapping[str, RateCeiling] = field(default_factory=dict)

    def in_force(self, now: float) -> list[Pause]:
        """The pauses whose time is not over, by name."""
        return [one for _, one in sorted(self.pauses.items()) if one.in_force(now)]

    def account_pause(self, account: str, now: float) -> Pause | None:
        """The pause of a whole account, if it is paused."""
        pause = self.pauses.get(account)
        return pause if pause and pause.in_force(now) else None

    def pause_of(self, account: str, service: str, now: float) -> Pause | None:
        """Why a service of an account is not asked: the account's pause before its own."""
        own = self.pauses.get(f"{account}/{service}")
        return self.account_pause(account, now) or (own if own and own.in_force(now) else None)

    def ceiling_of(self, account: str, default: float) -> float:
        """Calls per second that operators allow; `default` is CAVENDISH_RATE, 0 for no ceiling."""
        known = self.ceilings.get(account)
        return known.calls if known else default


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
