"""How fast an account may ask, learned from what the API answers. Pure: time and chance are passed in.

One Pace per account is shared by the whole fleet through the book, so that together all processes stay under the
limit, which nobody tells us and which moves. No background job: the pace is a closed form of the time.

- **Start.** `START` calls/s, doubling every `DOUBLING` s until the first 429.
- **Ceiling.** The first 429 of an episode makes the ceiling c what was lately accepted. The pace restarts at beta * c,
  comes back to c along a cubic, rests there for a while, and probes beyond it ever faster. A 429 for a call sent before
  the last cut is a straggler and says nothing new.
- **Idle.** Above c the pace is at most `GROWTH` times what was really sent: a pace nobody used proves nothing.
- **Episode.** 429s without a success between do not cut again. They double a shared pause after which one call probes.
- **Quota window.** An episode much longer than a bucket needs to refill was a spent quota, and its end is where a window
  opened. The time between two such ends is the window W, the calls accepted in between its size N. From then on
  c = N / W, probing waits for the end of the window, and the climb takes a window or longer, so that it passes c late in
  a window and the silence that follows is short. Episodes that end elsewhere raise doubt, and three of them forget W.
- **Headers.** A `Retry-After` holds everyone. A quota header is believed within bounds.
- **Account.** A refused credential holds everyone ever longer; the first answer to a call sent after the hold ends it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace

from scheduler.backoff import exponential
from scheduler.tracking import Quota, Refusal

START, DOUBLING = 2.0, 5.0  # calls/s, s
FLOOR, CEILING = 0.02, 1000.0  # calls/s
GROWTH = 1.5  # times the calls really sent
RECENT, RECENT_CALLS = 3.0, 6.0  # what "lately" means: seconds, or as long as so many calls take

CLIMB, CLIMB_CALLS, LONGEST_CLIMB = 15.0, 30.0, 120.0  # back to the ceiling: seconds, or as many calls; at most seconds
BETA, BETA_WINDOW = 0.85, 0.9  # where the climb starts, as a share of the ceiling
STEEPEST = 8.0  # times the ceiling

PAUSE, PAUSE_CALLS, LONGEST_PAUSE = 0.4, 5.0, 10.0  # between probes: seconds; the longest costs so many calls, or seconds
PROBE_TIMEOUT = 1.0  # s without an answer until the next probe
JITTER = 0.2
LONGEST_RETRY_AFTER = 120.0

BLACKOUT, BLACKOUT_CALLS = 2.0, 5.0  # an episode as long as this and as this many calls take was a spent quota
SHORTEST_WINDOW, LONGEST_WINDOW = 4.0, 90.0  # s
TOLERANCE = 0.1  # of the window: an episode that ends so near to where a window opens confirms it
DOUBTS = 3
MARGIN = 0.05  # s after a window should have opened

FIRST_HOLD, LONGEST_HOLD = 5.0, 600.0


@dataclass(frozen=True, slots=True)
class Pace:
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
    trust: int = 0  # episodes in a row that ended where a window should open, or, negative, that did not
    told: float = 0.0  # what a quota header made of it, until `told_until`
    told_until: float = 0.0
    hold_until: float = 0.0
    hold_reason: str = ""
    hold_kind: str = ""
    holds: int = 0

    @classmethod
    def from_json(cls, text: str | None) -> Pace:
        """Read what `to_json` wrote; anything unreadable is a new pace."""
        try:
            known = json.loads(text) if text else {}
            sound = all(isinstance(value, (str if name in _TEXTS else (int, float))) for name, value in known.items())
            return cls(**known) if sound and 0 < known.get("rate", START) < math.inf else cls()
        except (TypeError, ValueError, AttributeError):
            return cls()

    def to_json(self) -> str:
        return json.dumps({name: getattr(self, name) for name in _NAMES})

    def held(self, now: float) -> bool:
        """True while nobody may ask for this account."""
        return now < self.hold_until

    @property
    def ceiling(self) -> float | None:
        """The believed ceiling in calls per second, None while unknown."""
        return self.rate if self.limited else None

    def used_share(self, now: float) -> float:
        """Calls really sent lately as a share of the ceiling, 0..1; 0.0 while the ceiling is unknown."""
        return min(self.used(now) / self.rate, 1.0) if self.limited else 0.0

    def rate_at(self, now: float) -> float:
        """Calls per second that are allowed now, when not held."""
        own = min(self._climbed(now), max(self.rate, GROWTH * self.used(now)), CEILING)
        if now < self.told_until:
            return min(max(self.told, 0.2 * own), 2 * own)
        return own

    def _climbed(self, now: float) -> float:
        if not self.limited:
            return self.rate * 2.0 ** min((now - self.since) / DOUBLING, 10.0) if self.since else self.rate
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
        """What a rate measured at `at` has faded to by now; the measure was empty when the account began."""
        warm = 1 - math.exp(min(self.began - now, -0.1) / self.recent)
        return _faded(rate, at, now, self.recent) / warm

    def used(self, now: float) -> float:
        """Calls per second that were really sent lately."""
        return self.lately(self.sent_rate, self.sent_at, now)


_NAMES = tuple(field.name for field in fields(Pace))
_TEXTS = frozenset(("hold_reason", "hold_kind"))


def _faded(rate: float, at: float, now: float, over: float) -> float:
    return rate * math.exp(min(at - now, 0.0) / over)


def acquire(pace: Pace, now: float, ceiling: float = 0.0) -> tuple[Pace, float]:
    """Take one call. The wait in seconds is 0.0 if it may be sent now; then the pace has moved on.

    `ceiling` is the operator's cap in calls per second, 0 for none.
    """
    ready_at = max(pace.hold_until, pace.next_at)
    if pace.misses > (0 if pace.window else 1) and pace.sent_at > pace.cut_at:  # one probe at a time
        ready_at = max(ready_at, pace.sent_at + PROBE_TIMEOUT)
    if now < ready_at:
        return pace, ready_at - now
    rate, since = pace.rate_at(now), pace.since
    if pace.limited and pace.used(now) < pace.rate / 2:  # idle: rest at the ceiling, climb from there when there is demand
        since = max(since, now - pace.climb)
    return replace(
        pace,
        since=since or now,
        began=pace.began or now,
        anchor=pace.anchor or now,
        next_at=now + 1 / (min(rate, ceiling) if ceiling else rate),
        sent_rate=_faded(pace.sent_rate, pace.sent_at, now, pace.recent) + 1 / pace.recent,
        sent_at=now,
    ), 0.0


def report_answer(pace: Pace, sent_at: float, now: float, quota: Quota | None = None) -> Pace:
    """A call was answered: counts it, ends an episode of 429s and a hold that an older call had brought."""
    if pace.misses and sent_at > pace.cut_at:
        pace = _recovered(pace, sent_at)
    turn, before = pace.turn, pace.taken_before
    if pace.window and not pace.misses and sent_at >= pace.anchor + (turn + 1) * pace.window:
        turn, before = int((sent_at - pace.anchor) / pace.window), pace.taken
    freed = pace.holds and not pace.held(now) and sent_at >= pace.hold_until
    heard = _faded(pace.heard_rate, pace.heard_at, now, pace.recent) + 1 / pace.recent
    return replace(
        _told(pace, quota, now),
        heard_rate=heard,
        heard_at=now,
        turn=turn,
        taken=pace.taken + (sent_at >= pace.anchor),
        taken_before=before,
        holds=0 if freed else pace.holds,
        hold_reason="" if freed else pace.hold_reason,
        hold_kind="" if freed else pace.hold_kind,
    )


def report_refusal(
    pace: Pace,
    why: Refusal,
    detail: str,
    retry_after: float | None,
    sent_at: float,
    now: float,
    chance: float,
    quota: Quota | None = None,
) -> Pace:
    """A call was refused. RATE cuts once per episode and pauses or holds, ACCOUNT holds ever longer; else nothing."""
    if why is Refusal.RATE:
        told, straggler = _told(pace, quota, now), sent_at <= pace.cut_at
        if straggler and retry_after is None:
            return told
        cut = told if straggler else _cut(told, sent_at, now)
        wait = 0.0 if straggler else _pause(cut, now, chance)
        if retry_after is not None:
            asked = min(retry_after, LONGEST_RETRY_AFTER)
            wait = max(wait, asked)
            cut = replace(cut, missed_at=max(cut.missed_at, sent_at + asked))  # refused until then, says the API
        until = max(cut.hold_until, now + wait)
        if until == cut.hold_until or (cut.hold_kind == Refusal.ACCOUNT and cut.held(now)):
            return replace(cut, hold_until=until)
        return replace(cut, hold_until=until, hold_kind=why.value, hold_reason=detail, holds=1)
    if why is Refusal.ACCOUNT and not (pace.hold_kind == Refusal.ACCOUNT and sent_at < pace.hold_until and pace.held(now)):
        holds = pace.holds + 1 if pace.hold_kind == Refusal.ACCOUNT else 1
        until = max(pace.hold_until, now + exponential(holds, FIRST_HOLD, LONGEST_HOLD, chance))
        return replace(pace, hold_until=until, hold_reason=detail, hold_kind=why.value, holds=holds)
    return pace


def _told(pace: Pace, quota: Quota | None, now: float) -> Pace:
    if quota is None or quota.reset <= 0:
        return pace
    return replace(pace, told=quota.remaining / quota.reset, told_until=now + quota.reset)


def _cut(pace: Pace, sent_at: float, now: float) -> Pace:
    """One more 429. The first of an episode makes the ceiling what was accepted lately, at least half the pace."""
    again = replace(pace, misses=pace.misses + 1, cut_at=now, missed_at=sent_at)
    if pace.misses:
        return replace(again, since=now)
    own = pace.rate_at(now)
    accepted = pace.lately(pace.heard_rate, pace.heard_at, now)
    rate = max(min(own, max(accepted, own / 2)), FLOOR)
    return replace(again, rate=rate, limited=True, since=now, refused_at=sent_at)


def _pause(pace: Pace, now: float, chance: float) -> float:
    """Seconds until the next probe: none after a first 429, then doubling; not past where a known window opens."""
    misses = pace.misses if pace.window else pace.misses - 1
    if misses < 1:
        return 0.0
    first = max(PAUSE, 1 / pace.rate)
    longest = max(min(PAUSE_CALLS / pace.rate, LONGEST_PAUSE), first, pace.window / 4)
    doubled = min(first * 2.0 ** min(misses - 1, 10), longest) * (1 + JITTER * chance)
    if not pace.window:
        return doubled
    past = (now - MARGIN - pace.anchor) % pace.window
    return first if past < TOLERANCE * pace.window else min(doubled, pace.window - past)  # a window that opens late opens soon


def _recovered(pace: Pace, sent_at: float) -> Pace:
    """The first success after an episode of 429s: what does its end say about a quota window?"""
    length = sent_at - pace.refused_at
    long = length >= max(BLACKOUT, BLACKOUT_CALLS / pace.rate)
    over = replace(pace, misses=0)
    if pace.window:
        turns = round((sent_at - pace.anchor) / pace.window)
        due = pace.anchor + turns * pace.window
        opened = min(max(due, pace.missed_at), sent_at)  # it lies between the last 429 and this success
        drift = TOLERANCE * pace.window + (turns / 2 if long else 0.0)  # W is right to half a second
        if abs(opened - due) <= min(drift, pace.window / 4):
            return _confirmed(over, opened, turns, sent_at)
        if not long:
            trust = min(pace.trust, 0) - 1
            return replace(over, window=pace.window if trust > -DOUBTS else 0.0, trust=trust)
    return _opened(over, sent_at) if long else over


def _confirmed(pace: Pace, opened: float, turns: int, sent_at: float) -> Pace:
    """An episode ended where a window was expected to open: N is what this window took."""
    rate, window = pace.rate, pace.window
    if turns == pace.turn + 1:
        rate = max((pace.taken - pace.taken_before) / window, rate / 4, FLOOR)
    if turns:
        window = float(round((opened - pace.anchor) / turns))
    return replace(
        pace,
        rate=rate,
        window=window,
        since=sent_at,
        anchor=opened,
        turn=0,
        taken=0,
        taken_before=0,
        trust=max(pace.trust, 0) + 1,
    )


def _opened(pace: Pace, sent_at: float) -> Pace:
    """A long episode ended where no window was expected to open: measure anew from the last known opening."""
    opened = (pace.missed_at + sent_at) / 2
    span = opened - pace.anchor
    fresh = replace(pace, since=sent_at, anchor=opened, turn=0, taken=0, taken_before=0, trust=0, window=0.0)
    if pace.trust > 0 and span > 4 * pace.window:  # too long ago to tell a wrong W from a clock that drifted
        return replace(fresh, window=pace.window)
    if pace.trust > 0:  # W may be a multiple of the truth
        parts = [pace.window / k for k in (2, 3, 4) if pace.window / k >= SHORTEST_WINDOW]
        fits = [part for part in parts if abs(span - round(span / part) * part) <= TOLERANCE * part]
        return replace(fresh, window=float(round(fits[0])) if fits else 0.0)
    if not SHORTEST_WINDOW <= span <= LONGEST_WINDOW:
        return fresh
    return replace(fresh, window=float(round(span)), rate=max(pace.taken / span, FLOOR))
