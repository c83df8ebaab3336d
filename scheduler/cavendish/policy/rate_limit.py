"""How fast an account may ask, learned from what the API answers. Pure: time and chance are passed
in.

One Rate limit per account is shared by the whole fleet through the store, so that together all
processes stay under the limit, which nobody tells us and which moves. No background job: the rate
limit is a closed form of the time.

- **Start.** `START` calls/s, doubling every `DOUBLING` s until the first 429.
- **Ceiling.** The first 429 of an episode makes the ceiling c what was lately accepted. The rate
  limit restarts at beta * c, comes back to c along a cubic, rests there for a while, and probes
  beyond it ever faster. A 429 for a call sent before the last cut is a straggler and says nothing
  new.
- **Idle.** Above c the rate limit is at most `GROWTH` times what was really sent: a rate limit
  nobody used proves nothing.
- **Episode.** 429s without a success between do not cut again. They double a shared pause after
  which one call probes.
- **Quota window.** An episode much longer than a bucket needs to refill was a spent quota, and its
  end is where a window opened. The time between two such ends is the window W, the calls accepted
  in between its size N. From then on c = N / W, probing waits for the end of the window, and the
  climb takes a window or longer, so that it passes c late in a window and the silence that follows
  is short. Episodes that end elsewhere raise doubt, and three of them forget W.
- **Headers.** A `Retry-After` holds everyone. A quota header is believed within bounds.
- **Account.** A refused credential holds everyone ever longer; the first answer to a call sent
  after the hold ends it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace

from cavendish.model import Quota, UpstreamErrorKind
from cavendish.policy.backoff import exponential

START, DOUBLING = 2.0, 5.0  # calls/s, s
FLOOR, CEILING = 0.02, 1000.0  # calls/s
GROWTH = 1.5  # times the calls really sent
RECENT, RECENT_CALLS = 3.0, 6.0  # what "lately" means: seconds, or as long as so many calls take

CLIMB, CLIMB_CALLS, LONGEST_CLIMB = (
    15.0,
    30.0,
    120.0,
)  # back to the ceiling: seconds, or as many calls; at most seconds
BETA, BETA_WINDOW = 0.85, 0.9  # where the climb starts, as a share of the ceiling
STEEPEST = 8.0  # times the ceiling

PAUSE, PAUSE_CALLS, LONGEST_PAUSE = (
    0.4,
    5.0,
    10.0,
)  # between probes: seconds; the longest costs so many calls, or seconds
PROBE_TIMEOUT = 1.0  # s without an answer until the next probe
JITTER = 0.2
LONGEST_RETRY_AFTER = 120.0

BLACKOUT, BLACKOUT_CALLS = (
    2.0,
    5.0,
)  # an episode as long as this and as this many calls take was a spent quota
SHORTEST_WINDOW, LONGEST_WINDOW = 4.0, 90.0  # s
TOLERANCE = 0.1  # of the window: an episode that ends so near to where a window opens confirms it
DOUBTS = 3
MARGIN = 0.05  # s after a window should have opened

FIRST_ACCOUNT_PAUSE, LONGEST_ACCOUNT_PAUSE = 5.0, 600.0


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The state of one account. Times are seconds since the epoch, rates are calls per second."""

    rate: float = START  # the ceiling once `limited`, until then where the doubling starts
    limited: bool = False
    since: float = 0.0  # when the doubling or the climb began
    began: float = 0.0  # the first call
    next_at: float = 0.0
    sent_rate: float = 0.0
    sent_at: float = 0.0
    heard_rate: float = 0.0
    heard_at: float = 0.0
    misses: int = 0  # 429s of this episode, stragglers not counted
    cut_at: float = 0.0
    refused_at: float = 0.0  # when the first refused call of the episode was sent
    missed_at: float = 0.0  # when the last one was sent
    window: float = 0.0  # seconds, 0 while unknown
    anchor: float = 0.0  # when a window is known to have opened
    turn: int = 0  # windows since the anchor
    taken: int = 0  # calls accepted since the anchor
    taken_before: int = 0  # those of them before this turn
    trust: int = (
        0  # episodes in a row that ended where a window should open, or, negative, that did not
    )
    told: float = 0.0  # what a quota header made of it, until `told_until`
    told_until: float = 0.0
    paused_until: float = 0.0
    pause_reason: str = ""
    pause_kind: str = ""
    pauses: int = 0

    @classmethod
    def from_json(cls, text: str | None) -> RateLimit:
        """Read what `to_json` wrote; anything unreadable is a new rate limit."""
        try:
            known = json.loads(text) if text else {}
            sound = all(
                isinstance(value, (str if name in _TEXTS else (int, float)))
                for name, value in known.items()
            )
            return cls(**known) if sound and 0 < known.get("rate", START) < math.inf else cls()
        except (TypeError, ValueError, AttributeError):
            return cls()

    def to_json(self) -> str:
        return json.dumps({name: getattr(self, name) for name in _NAMES})

    def held(self, now: float) -> bool:
        """True while nobody may ask for this account."""
        return now < self.paused_until

    @property
    def ceiling(self) -> float | None:
        """The believed ceiling in calls per second, None while unknown."""
        return self.rate if self.limited else None

    def used_share(self, now: float) -> float:
        """Calls really sent lately as a share of the ceiling, 0..1.

        0.0 while the ceiling is unknown.
        """
        return min(self.used(now) / self.rate, 1.0) if self.limited else 0.0

    def rate_at(self, now: float) -> float:
        """Calls per second that are allowed now, when not held."""
        own = min(self._climbed(now), max(self.rate, GROWTH * self.used(now)), CEILING)
        if now < self.told_until:
            return min(max(self.told, 0.2 * own), 2 * own)
        return own

    def _climbed(self, now: float) -> float:
        if not self.limited:
            return (
                self.rate * 2.0 ** min((now - self.since) / DOUBLING, 10.0)
                if self.since
                else self.rate
            )
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
        """What a rate measured at `at` has faded to by now.

        The measure was empty when the account began.
        """
        warm = 1 - math.exp(min(self.began - now, -0.1) / self.recent)
        return _faded(rate, at, now, self.recent) / warm

    def used(self, now: float) -> float:
        """Calls per second that were really sent lately."""
        return self.lately(self.sent_rate, self.sent_at, now)


_NAMES = tuple(field.name for field in fields(RateLimit))
_TEXTS = frozenset(("pause_reason", "pause_kind"))


def _faded(rate: float, at: float, now: float, over: float) -> float:
    return rate * math.exp(min(at - now, 0.0) / over)


def acquire(rate_limit: RateLimit, now: float, ceiling: float = 0.0) -> tuple[RateLimit, float]:
    """Take one call. The wait in seconds is 0.0 if it may be sent now; then the rate limit has
    moved on.

    `ceiling` is the operator's cap in calls per second, 0 for none.
    """
    ready_at = max(rate_limit.paused_until, rate_limit.next_at)
    if (
        rate_limit.misses > (0 if rate_limit.window else 1)
        and rate_limit.sent_at > rate_limit.cut_at
    ):  # one probe at a time
        ready_at = max(ready_at, rate_limit.sent_at + PROBE_TIMEOUT)
    if now < ready_at:
        return rate_limit, ready_at - now
    rate, since = rate_limit.rate_at(now), rate_limit.since
    if (
        rate_limit.limited and rate_limit.used(now) < rate_limit.rate / 2
    ):  # idle: rest at the ceiling, climb from there when there is demand
        since = max(since, now - rate_limit.climb)
    return replace(
        rate_limit,
        since=since or now,
        began=rate_limit.began or now,
        anchor=rate_limit.anchor or now,
        next_at=now + 1 / (min(rate, ceiling) if ceiling else rate),
        sent_rate=_faded(rate_limit.sent_rate, rate_limit.sent_at, now, rate_limit.recent)
        + 1 / rate_limit.recent,
        sent_at=now,
    ), 0.0


def report_answer(
    rate_limit: RateLimit, sent_at: float, now: float, quota: Quota | None = None
) -> RateLimit:
    """A call was answered.

    Counts it, ends an episode of 429s and a hold that an older call had brought.
    """
    if rate_limit.misses and sent_at > rate_limit.cut_at:
        rate_limit = _recovered(rate_limit, sent_at)
    turn, before = rate_limit.turn, rate_limit.taken_before
    if (
        rate_limit.window
        and not rate_limit.misses
        and sent_at >= rate_limit.anchor + (turn + 1) * rate_limit.window
    ):
        turn, before = int((sent_at - rate_limit.anchor) / rate_limit.window), rate_limit.taken
    resumed = rate_limit.pauses and not rate_limit.held(now) and sent_at >= rate_limit.paused_until
    heard = (
        _faded(rate_limit.heard_rate, rate_limit.heard_at, now, rate_limit.recent)
        + 1 / rate_limit.recent
    )
    return replace(
        _told(rate_limit, quota, now),
        heard_rate=heard,
        heard_at=now,
        turn=turn,
        taken=rate_limit.taken + (sent_at >= rate_limit.anchor),
        taken_before=before,
        pauses=0 if resumed else rate_limit.pauses,
        pause_reason="" if resumed else rate_limit.pause_reason,
        pause_kind="" if resumed else rate_limit.pause_kind,
    )


def report_error(
    rate_limit: RateLimit,
    why: UpstreamErrorKind,
    detail: str,
    retry_after: float | None,
    sent_at: float,
    now: float,
    chance: float,
    quota: Quota | None = None,
) -> RateLimit:
    """A call was refused.

    RATE cuts once per episode and pauses or holds, ACCOUNT holds ever longer; else nothing.
    """
    if why is UpstreamErrorKind.RATE:
        told, straggler = _told(rate_limit, quota, now), sent_at <= rate_limit.cut_at
        if straggler and retry_after is None:
            return told
        cut = told if straggler else _cut(told, sent_at, now)
        wait = 0.0 if straggler else _pause(cut, now, chance)
        if retry_after is not None:
            asked = min(retry_after, LONGEST_RETRY_AFTER)
            wait = max(wait, asked)
            cut = replace(
                cut, missed_at=max(cut.missed_at, sent_at + asked)
            )  # refused until then, says the API
        until = max(cut.paused_until, now + wait)
        if until == cut.paused_until or (
            cut.pause_kind == UpstreamErrorKind.ACCOUNT and cut.held(now)
        ):
            return replace(cut, paused_until=until)
        return replace(cut, paused_until=until, pause_kind=why.value, pause_reason=detail, pauses=1)
    if why is UpstreamErrorKind.ACCOUNT and not (
        rate_limit.pause_kind == UpstreamErrorKind.ACCOUNT
        and sent_at < rate_limit.paused_until
        and rate_limit.held(now)
    ):
        pauses = rate_limit.pauses + 1 if rate_limit.pause_kind == UpstreamErrorKind.ACCOUNT else 1
        until = max(
            rate_limit.paused_until,
            now + exponential(pauses, FIRST_ACCOUNT_PAUSE, LONGEST_ACCOUNT_PAUSE, chance),
        )
        return replace(
            rate_limit, paused_until=until, pause_reason=detail, pause_kind=why.value, pauses=pauses
        )
    return rate_limit


def _told(rate_limit: RateLimit, quota: Quota | None, now: float) -> RateLimit:
    if quota is None or quota.reset <= 0:
        return rate_limit
    return replace(rate_limit, told=quota.remaining / quota.reset, told_until=now + quota.reset)


def _cut(rate_limit: RateLimit, sent_at: float, now: float) -> RateLimit:
    """One more 429.

    The first of an episode makes the ceiling what was accepted lately, at least half the rate
    limit.
    """
    restart = replace(rate_limit, misses=rate_limit.misses + 1, cut_at=now, missed_at=sent_at)
    if rate_limit.misses:
        return replace(restart, since=now)
    own = rate_limit.rate_at(now)
    accepted = rate_limit.lately(rate_limit.heard_rate, rate_limit.heard_at, now)
    rate = max(min(own, max(accepted, own / 2)), FLOOR)
    return replace(restart, rate=rate, limited=True, since=now, refused_at=sent_at)


def _pause(rate_limit: RateLimit, now: float, chance: float) -> float:
    """Seconds until the next probe.

    None after a first 429, then doubling; not past where a known window opens.
    """
    misses = rate_limit.misses if rate_limit.window else rate_limit.misses - 1
    if misses < 1:
        return 0.0
    first = max(PAUSE, 1 / rate_limit.rate)
    longest = max(min(PAUSE_CALLS / rate_limit.rate, LONGEST_PAUSE), first, rate_limit.window / 4)
    doubled = min(first * 2.0 ** min(misses - 1, 10), longest) * (1 + JITTER * chance)
    if not rate_limit.window:
        return doubled
    past = (now - MARGIN - rate_limit.anchor) % rate_limit.window
    return (
        first if past < TOLERANCE * rate_limit.window else min(doubled, rate_limit.window - past)
    )  # a window that opens late opens soon


def _recovered(rate_limit: RateLimit, sent_at: float) -> RateLimit:
    """The first success after an episode of 429s: what does its end say about a quota window?"""
    length = sent_at - rate_limit.refused_at
    long = length >= max(BLACKOUT, BLACKOUT_CALLS / rate_limit.rate)
    over = replace(rate_limit, misses=0)
    if rate_limit.window:
        turns = round((sent_at - rate_limit.anchor) / rate_limit.window)
        due = rate_limit.anchor + turns * rate_limit.window
        opened = min(
            max(due, rate_limit.missed_at), sent_at
        )  # it lies between the last 429 and this success
        drift = TOLERANCE * rate_limit.window + (
            turns / 2 if long else 0.0
        )  # W is right to half a second
        if abs(opened - due) <= min(drift, rate_limit.window / 4):
            return _confirmed(over, opened, turns, sent_at)
        if not long:
            trust = min(rate_limit.trust, 0) - 1
            return replace(over, window=rate_limit.window if trust > -DOUBTS else 0.0, trust=trust)
    return _opened(over, sent_at) if long else over


def _confirmed(rate_limit: RateLimit, opened: float, turns: int, sent_at: float) -> RateLimit:
    """An episode ended where a window was expected to open: N is what this window took."""
    rate, window = rate_limit.rate, rate_limit.window
    if turns == rate_limit.turn + 1:
        rate = max((rate_limit.taken - rate_limit.taken_before) / window, rate / 4, FLOOR)
    if turns:
        window = float(round((opened - rate_limit.anchor) / turns))
    return replace(
        rate_limit,
        rate=rate,
        window=window,
        since=sent_at,
        anchor=opened,
        turn=0,
        taken=0,
        taken_before=0,
        trust=max(rate_limit.trust, 0) + 1,
    )


def _opened(rate_limit: RateLimit, sent_at: float) -> RateLimit:
    """A long episode ended where no window was expected to open.

    Measure anew from the last known opening.
    """
    opened = (rate_limit.missed_at + sent_at) / 2
    span = opened - rate_limit.anchor
    fresh = replace(
        rate_limit,
        since=sent_at,
        anchor=opened,
        turn=0,
        taken=0,
        taken_before=0,
        trust=0,
        window=0.0,
    )
    if (
        rate_limit.trust > 0 and span > 4 * rate_limit.window
    ):  # too long ago to tell a wrong W from a clock that drifted
        return replace(fresh, window=rate_limit.window)
    if rate_limit.trust > 0:  # W may be a multiple of the truth
        parts = [
            rate_limit.window / k for k in (2, 3, 4) if rate_limit.window / k >= SHORTEST_WINDOW
        ]
        fits = [part for part in parts if abs(span - round(span / part) * part) <= TOLERANCE * part]
        return replace(fresh, window=float(round(fits[0])) if fits else 0.0)
    if not SHORTEST_WINDOW <= span <= LONGEST_WINDOW:
        return fresh
    return replace(fresh, window=float(round(span)), rate=max(rate_limit.taken / span, FLOOR))
