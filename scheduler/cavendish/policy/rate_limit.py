"""Pure: how fast an account may send calls, learned from what the API answers.

One rate limit per account is shared by the whole fleet through the store, so that all processes
together stay under the limit of the API, which is not published and which moves. There is no
background job: the allowed rate is a closed form of the time.

- **Start.** `START` calls/s for `HELD` s, then doubling every `DOUBLING` s until the first 429. It
  is far below what the vendor documents, and enough to ask about two thousand ids within seconds.
- **Ceiling.** The first 429 of an episode sets the ceiling c to the rate that was lately accepted.
  The rate restarts at beta * c, returns to c along a cubic curve, stays there for a while, and
  then probes beyond it, faster and faster. A 429 for a call sent before the last cut is a straggler
  and teaches nothing.
- **Idle.** Above c the rate is at most `GROWTH` times the rate really sent: a rate that was not
  used proves nothing.
- **Episode.** 429s without a success between do not cut again. They double a shared pause, after
  which one call probes.
- **Quota window.** `quota_window` learns it from where episodes end. While one is known, a probe
  waits for the end of the window, and the climb takes a window or longer, so that it passes c late
  in a window and the silence that follows is short.
- **Headers.** A `Retry-After` pauses the account. A quota header is believed within bounds.
- **Account.** A refused credential pauses the account, longer each time; the first answer to a call
  sent after the pause ends it. A process that gets another token than the refused one tries it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from cavendish.model import Quota, UpstreamErrorKind
from cavendish.policy.backoff import exponential
from cavendish.policy.quota_window import (
    FLOOR,
    TOLERANCE,
    QuotaWindow,
    counted,
    recovered,
)
from cavendish.stored_json import compact, read

#: Seconds for which the starting rate is held, and then until it has doubled.
HELD, DOUBLING = 10.0, 5.0
#: Calls per second.
CEILING = 1000.0
#: Seconds of which calls may be sent together.
LATE = 0.04
#: Times the rate really sent.
GROWTH = 1.5
#: What "lately" means: so many seconds, or as long as so many calls take.
RECENT, RECENT_CALLS = 3.0, 6.0

#: The climb back to the ceiling takes so many seconds, or as long as so many calls take; at most.
CLIMB, CLIMB_CALLS, LONGEST_CLIMB = 15.0, 30.0, 120.0
#: Where the climb starts, as a share of the ceiling; the second while a quota window is known.
BETA, BETA_WINDOW = 0.85, 0.9
#: The steepest climb, in times the ceiling.
STEEPEST = 8.0

#: Between probes: seconds; the longest pause costs so many calls, or takes so many seconds.
PAUSE, PAUSE_CALLS, LONGEST_PAUSE = 0.4, 5.0, 10.0
#: Seconds without an answer until the next probe.
PROBE_TIMEOUT = 1.0
JITTER = 0.2
#: Seconds.
LONGEST_RETRY_AFTER = 120.0
#: Seconds after the moment at which a window should have opened.
MARGIN = 0.05
#: Seconds.
FIRST_ACCOUNT_PAUSE, LONGEST_ACCOUNT_PAUSE = 5.0, 600.0


@dataclass(frozen=True, slots=True)
class RateLimit(QuotaWindow):
    """The state of one account. Times are seconds since the epoch, rates are calls per second."""

    limited: bool = False
    began: float = 0.0  # the first call
    next_at: float = 0.0
    sent_rate: float = 0.0
    sent_at: float = 0.0
    heard_rate: float = 0.0
    heard_at: float = 0.0
    cut_at: float = 0.0
    told: float = 0.0  # the rate that a quota header gives, until `told_until`
    told_until: float = 0.0
    paused_until: float = 0.0
    pause_reason: str = ""
    pause_kind: str = ""
    pause_since: float = 0.0  # when the credential was first refused, while it is
    pauses: int = 0
    token: str = ""  # the fingerprint of the token that was refused last
    cap: float = 0.0  # the operator's, where it bound the last call

    @classmethod
    def from_json(cls, text: object) -> RateLimit:
        """Read what `to_json` wrote; anything unreadable is a new rate limit."""
        known = read(cls, text)
        return known if known and known.rate > 0 else cls()

    def to_json(self) -> str:
        """The JSON text that is stored."""
        return compact(self)

    def paused(self, now: float) -> bool:
        """True while no call may be sent for this account."""
        return now < self.paused_until

    @property
    def ceiling(self) -> float | None:
        """The believed ceiling in calls per second, None while unknown."""
        return self.rate if self.limited else None

    def used_share(self, now: float) -> float:
        """The rate really sent lately as a share of the ceiling, 0..1 (0 while it is unknown)."""
        return min(self.used(now) / self.rate, 1.0) if self.limited else 0.0

    def rate_at(self, now: float) -> float:
        """Calls per second that are allowed now, pauses aside."""
        own = min(self._climbed(now), max(self.rate, GROWTH * self.used(now)), CEILING)
        if now < self.told_until:
            return min(max(self.told, 0.2 * own), 2 * own)
        return own

    def _climbed(self, now: float) -> float:
        if not self.limited:
            ago = now - self.since if self.since else 0.0
            doublings = min(max(ago - HELD, 0.0) / DOUBLING, 10.0)
            return self.rate * math.exp2(doublings)
        ahead = max(now - self.since, 0.0) / self.climb - 1
        beta = BETA_WINDOW if self.window else BETA
        return self.rate * min(1 + (1 - beta) * ahead**3, STEEPEST)

    @property
    def climb(self) -> float:
        """Seconds from a cut back to the ceiling."""
        return min(max(CLIMB, CLIMB_CALLS / self.rate, self.window), LONGEST_CLIMB)

    @property
    def recent(self) -> float:
        """Seconds over which rates are measured."""
        return max(RECENT, RECENT_CALLS / self.rate)

    def lately(self, rate: float, at: float, now: float) -> float:
        """What a rate measured at `at` has faded to; the measure began empty."""
        warm = 1 - math.exp(min(self.began - now, -0.1) / self.recent)
        return _faded(rate, at, now, self.recent) / warm

    def used(self, now: float) -> float:
        """Calls per second that were really sent lately."""
        return self.lately(self.sent_rate, self.sent_at, now)


def acquire(limit: RateLimit, now: float, ceiling: float = 0.0) -> tuple[RateLimit, float]:
    """Take one call: the next state, and 0.0 if the call may be sent now, else the wait in seconds.

    `ceiling` is the operator's cap in calls per second, 0 for none.
    """
    after, calls = take(limit, now, 1, ceiling)
    return after, 0.0 if calls else _ready_at(after) - now


def take(limit: RateLimit, now: float, most: int, ceiling: float = 0.0) -> tuple[RateLimit, int]:
    """Take up to `most` calls: the next state, and how many may be sent now.

    It is more than one where calls follow each other faster than a dispatch can take them one by
    one: those of the last `LATE` seconds may be sent together, but not at the operator's cap.
    """
    limit = _recapped(limit, now, ceiling)
    if now < _ready_at(limit):
        return limit, 0
    rate, since = limit.rate_at(now), limit.since
    if limit.limited and limit.used(now) < limit.rate / 2:
        # Idle: stay at the ceiling, and climb from there when there is demand.
        since = max(since, now - limit.climb)
    together = rate > 1 / LATE and limit.began and not limit.misses
    capped = 0 < ceiling <= rate
    if capped:
        rate, together = ceiling, False
    start = max(limit.next_at, limit.paused_until, now - LATE) if together else now
    calls = min(most, 1 + int((now - start) * rate))
    sent_rate = _faded(limit.sent_rate, limit.sent_at, now, limit.recent) + calls / limit.recent
    return replace(
        limit,
        since=since or now,
        began=limit.began or now,
        anchor=limit.anchor or now,
        next_at=start + calls / rate,
        sent_rate=sent_rate,
        sent_at=now,
        cap=ceiling if capped else 0.0,
    ), calls


def _recapped(limit: RateLimit, now: float, ceiling: float) -> RateLimit:
    """A cap that was raised or removed since the last call does not delay the next one."""
    if limit.cap in (0.0, ceiling):
        return limit
    rate = limit.rate_at(now)
    next_at = min(limit.next_at, limit.sent_at + 1 / min(rate, ceiling or rate))
    return replace(limit, next_at=next_at, cap=0.0)


def _ready_at(limit: RateLimit) -> float:
    """When the next call may be sent."""
    ready_at = max(limit.paused_until, limit.next_at)
    if limit.misses > (0 if limit.window else 1) and limit.sent_at > limit.cut_at:
        ready_at = max(ready_at, limit.sent_at + PROBE_TIMEOUT)  # one probe at a time
    return ready_at


def report_answer(
    limit: RateLimit, sent_at: float, now: float, quota: Quota | None = None
) -> RateLimit:
    """A call was answered: count it. It ends an episode, and a pause that an older call brought."""
    if limit.misses and sent_at > limit.cut_at:
        asked_to_wait = limit.missed_at > limit.cut_at  # nobody had to ask until then
        limit = recovered(limit, sent_at, limit.missed_at if asked_to_wait else sent_at)
    limit = counted(limit, sent_at)
    if limit.pauses and not limit.paused(now) and sent_at >= limit.paused_until:
        limit = replace(limit, pauses=0, pause_reason="", pause_kind="", pause_since=0.0)
    heard = _faded(limit.heard_rate, limit.heard_at, now, limit.recent) + 1 / limit.recent
    return replace(_told(limit, quota, now), heard_rate=heard, heard_at=now)


def report_error(
    limit: RateLimit,
    why: UpstreamErrorKind,
    detail: str,
    retry_after: float | None,
    sent_at: float,
    now: float,
    chance: float,
    quota: Quota | None = None,
    token: str = "",
) -> RateLimit:
    """A call was refused, for the reason `why`; `detail` says it in words.

    RATE cuts the rate once per episode and pauses, ACCOUNT pauses longer each time; all others
    change nothing. `retry_after` is in seconds, `token` the fingerprint of that of the call.
    """
    if why is UpstreamErrorKind.RATE:
        return _too_fast(_told(limit, quota, now), detail, retry_after, sent_at, now, chance)
    if why is UpstreamErrorKind.ACCOUNT:
        return _account_refused(replace(limit, token=token), detail, sent_at, now, chance)
    return limit


def with_token(limit: RateLimit, token: str, now: float) -> RateLimit:
    """A process has a token of this fingerprint: if the API refused another one, it is tried now.

    The next answer tells whether the pause is over; the next refusal begins with a short one.
    """
    refused = limit.pause_kind == UpstreamErrorKind.ACCOUNT and limit.token not in ("", token)
    return replace(limit, paused_until=min(limit.paused_until, now), pauses=1) if refused else limit


def _too_fast(
    limit: RateLimit,
    detail: str,
    retry_after: float | None,
    sent_at: float,
    now: float,
    chance: float,
) -> RateLimit:
    wait = 0.0
    if sent_at > limit.cut_at:
        limit = _cut(limit, sent_at, now)
        wait = _pause(limit, now, chance)
    elif retry_after is None:  # a straggler
        return limit
    if retry_after is not None:  # until then it refuses, says the API
        asked = min(retry_after, LONGEST_RETRY_AFTER)
        wait = max(wait, asked)
        limit = replace(limit, missed_at=max(limit.missed_at, sent_at + asked))
    until = max(limit.paused_until, now + wait)
    by_account = limit.pause_kind == UpstreamErrorKind.ACCOUNT and limit.paused(now)
    if until == limit.paused_until or by_account:
        return replace(limit, paused_until=until)
    kind = UpstreamErrorKind.RATE.value
    return replace(limit, paused_until=until, pause_kind=kind, pause_reason=detail, pauses=1)


def _account_refused(
    limit: RateLimit, detail: str, sent_at: float, now: float, chance: float
) -> RateLimit:
    kind = UpstreamErrorKind.ACCOUNT.value
    before = limit.pause_kind == kind
    if before and sent_at < limit.paused_until and limit.paused(now):
        return limit
    pauses = limit.pauses + 1 if before else 1
    wait = exponential(pauses, FIRST_ACCOUNT_PAUSE, LONGEST_ACCOUNT_PAUSE, chance)
    until = max(limit.paused_until, now + wait)
    return replace(
        limit,
        paused_until=until,
        pause_kind=kind,
        pause_reason=detail,
        pause_since=limit.pause_since if before else now,
        pauses=pauses,
    )


def _told(limit: RateLimit, quota: Quota | None, now: float) -> RateLimit:
    if quota is None or quota.reset <= 0:
        return limit
    return replace(limit, told=quota.remaining / quota.reset, told_until=now + quota.reset)


def _cut(limit: RateLimit, sent_at: float, now: float) -> RateLimit:
    """One more 429.

    The first of an episode sets the ceiling to the rate accepted lately, at least half the rate.
    """
    cut = replace(limit, misses=limit.misses + 1, cut_at=now, missed_at=sent_at, since=now)
    if limit.misses:
        return cut
    own = limit.rate_at(now)
    accepted = limit.lately(limit.heard_rate, limit.heard_at, now)
    rate = max(min(own, max(accepted, own / 2)), FLOOR)
    return replace(cut, rate=rate, limited=True, refused_at=sent_at)


def _pause(limit: RateLimit, now: float, chance: float) -> float:
    """Seconds until the next probe: 0 after a first 429, then doubling.

    It does not go past the moment at which a known window opens; one that opens late opens soon.
    """
    misses = limit.misses if limit.window else limit.misses - 1
    if misses < 1:
        return 0.0
    first = max(PAUSE, 1 / limit.rate)
    longest = max(min(PAUSE_CALLS / limit.rate, LONGEST_PAUSE), first, limit.window / 4)
    doubled = min(first * 2.0 ** min(misses - 1, 10), longest) * (1 + JITTER * chance)
    if not limit.window:
        return doubled
    past = (now - MARGIN - limit.anchor) % limit.window
    return first if past < TOLERANCE * limit.window else min(doubled, limit.window - past)


def _faded(rate: float, at: float, now: float, over: float) -> float:
    return rate * math.exp(min(at - now, 0.0) / over)
