"""How fast an account may ask, learned from what the API answers. Pure: time and chance are passed in.

One Pace per account is shared by the whole fleet through the book, so that together all processes stay under
it. The rate doubles until the first 429, is cut at each further one, and climbs back while calls succeed.
A hold stops everyone: for a `Retry-After`, or because the credential is refused.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from scheduler.backoff import exponential
from scheduler.tracking import Refusal

START, FLOOR, CEILING = 2.0, 0.1, 1000.0
CUT, CLIMB = 0.7, 0.05
LONGEST_RETRY_AFTER = 120.0
FIRST_HOLD, LONGEST_HOLD = 5.0, 600.0
PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """The state of one account. Times are seconds since the epoch, `rate` is calls per second."""

    rate: float = START
    limited: bool = False
    next_at: float = 0.0
    cut_at: float = 0.0
    hold_until: float = 0.0
    hold_reason: str = ""
    hold_kind: str = ""
    holds: int = 0

    @classmethod
    def from_json(cls, text: str | None) -> Pace:
        """Read what `to_json` wrote; anything unreadable is a new pace."""
        try:
            return cls(**json.loads(text)) if text else cls()
        except (TypeError, ValueError):
            return cls()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def held(self, now: float) -> bool:
        """True while nobody may ask for this account."""
        return now < self.hold_until


def acquire(pace: Pace, now: float, ceiling: float = 0.0) -> tuple[Pace, float]:
    """Take one call. The wait in seconds is 0.0 if it may be sent now; then the pace has moved on."""
    if pace.held(now):
        return pace, pace.hold_until - now
    if now < pace.next_at:
        return pace, pace.next_at - now
    rate = min(pace.rate, ceiling) if ceiling else pace.rate
    return replace(pace, next_at=max(pace.next_at, now - 1 / rate) + 1 / rate), 0.0


def report_answer(pace: Pace, sent_at: float, now: float) -> Pace:
    """A call was answered. Clears a hold that an older call had brought; climbs."""
    climbed = pace.rate * (1 + CLIMB / max(pace.rate, 1.0)) if pace.limited else pace.rate * 1.1
    freed = replace(pace, rate=min(climbed, CEILING))
    if pace.holds and not pace.held(now) and sent_at >= pace.hold_until:
        freed = replace(freed, holds=0, hold_reason="", hold_kind="")
    return freed


def report_refusal(
    pace: Pace, why: Refusal, detail: str, retry_after: float | None, sent_at: float, now: float, chance: float
) -> Pace:
    """A call was refused: RATE cuts the rate once per episode and holds, ACCOUNT holds ever longer; else nothing."""
    if why is Refusal.RATE:
        wait = min(retry_after, LONGEST_RETRY_AFTER) if retry_after is not None else PAUSE * (1 + 0.2 * chance)
        until = max(pace.hold_until, now + wait)
        if sent_at <= pace.cut_at:  # a straggler of an episode that was answered already
            return replace(pace, hold_until=until) if retry_after is not None else pace
        rate = max(pace.rate * CUT, FLOOR)
        if pace.hold_kind == Refusal.ACCOUNT and pace.held(now):
            return replace(pace, rate=rate, limited=True, cut_at=now)
        held = replace(pace, rate=rate, limited=True, cut_at=now, hold_until=until)
        return replace(held, hold_kind=why.value, hold_reason=detail, holds=1)
    if why is Refusal.ACCOUNT and not (pace.hold_kind == Refusal.ACCOUNT and sent_at < pace.hold_until and pace.held(now)):
        holds = pace.holds + 1 if pace.hold_kind == Refusal.ACCOUNT else 1
        until = now + exponential(holds, FIRST_HOLD, LONGEST_HOLD, chance)
        return replace(pace, hold_until=until, hold_reason=detail, hold_kind=why.value, holds=holds)
    return pace
