"""Pure: the quota window of an account, learned from where its episodes of 429s end.

An episode is a row of 429s without a success between. One that lasts much longer than a bucket
needs to refill was a spent quota, and its end is where a window opened. A silence in which nobody
asked (nothing was due, Redis was away) is no part of an episode. The time between two such
ends is the window W, and the number of calls accepted in between is its size N. From then on the
ceiling is N / W. Episodes that end elsewhere raise doubt, and three of them forget W.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

#: Calls per second: what an account starts with, and the lowest ceiling.
START, FLOOR = 6.8, 0.02
#: An episode was a spent quota if it lasts as many seconds and as long as so many calls take.
BLACKOUT, BLACKOUT_CALLS = 2.0, 5.0
#: The least share of an episode that its 429s must cover. Probes come after twice the time each, so
#: they cover some 0.4 of it; where they cover less, nobody asked for a while.
COVERED = 0.25
#: Seconds.
SHORTEST_WINDOW, LONGEST_WINDOW = 4.0, 90.0
#: An episode confirms the window if it ends within this share of it from where one should open.
TOLERANCE = 0.1
#: Short episodes in a row that end elsewhere and make us forget the window.
DOUBTS = 3


@dataclass(frozen=True, slots=True)
class QuotaWindow:
    """The part of a rate limit that learns the quota window.

    Times are in seconds since the epoch, `rate` in calls per second.
    """

    rate: float = START  # the ceiling once it is limited, until then where the doubling starts
    since: float = 0.0  # when the doubling or the climb began
    misses: int = 0  # 429s of this episode, stragglers not counted
    refused_at: float = 0.0  # when the first refused call of the episode was sent
    missed_at: float = 0.0  # when the last one was sent
    window: float = 0.0  # seconds, 0 while unknown
    anchor: float = 0.0  # when a window is known to have opened
    turn: int = 0  # windows since the anchor
    taken: int = 0  # calls accepted since the anchor
    taken_before: int = 0  # those of them before this turn
    trust: int = 0  # episodes in a row that ended where a window should open; negative: elsewhere


W = TypeVar("W", bound=QuotaWindow)


def counted(limit: W, sent_at: float) -> W:
    """Count an accepted call, in the turn that it was sent in."""
    turn, before = limit.turn, limit.taken_before
    next_opens = limit.anchor + (turn + 1) * limit.window
    if limit.window and not limit.misses and sent_at >= next_opens:
        turn, before = int((sent_at - limit.anchor) / limit.window), limit.taken
    taken = limit.taken + (sent_at >= limit.anchor)
    return replace(limit, turn=turn, taken=taken, taken_before=before)


def recovered(limit: W, sent_at: float, ended_at: float) -> W:
    """The first success after an episode, sent at `sent_at`: what its end says about a window.

    `ended_at`: when the episode was over: then, or earlier if the API had said so.
    """
    length = ended_at - limit.refused_at
    covered = limit.missed_at - limit.refused_at >= COVERED * length
    long = covered and length >= max(BLACKOUT, BLACKOUT_CALLS / limit.rate)
    over = replace(limit, misses=0)
    if limit.window:
        turns = round((sent_at - limit.anchor) / limit.window)
        due = limit.anchor + turns * limit.window
        # It opened between the last 429 and this success; W is right to half a second.
        opened = min(max(due, limit.missed_at), sent_at)
        drift = TOLERANCE * limit.window + (turns / 2 if long else 0.0)
        if abs(opened - due) <= min(drift, limit.window / 4):
            return _confirmed(over, opened, turns, sent_at)
        if not long:
            trust = min(limit.trust, 0) - 1
            return replace(over, window=limit.window if trust > -DOUBTS else 0.0, trust=trust)
    return _opened(over, sent_at) if long else over


def _confirmed(limit: W, opened: float, turns: int, sent_at: float) -> W:
    """An episode ended where a window was expected to open: N is what this window took."""
    rate, window = limit.rate, limit.window
    if turns == limit.turn + 1:
        rate = max((limit.taken - limit.taken_before) / window, rate / 4, FLOOR)
    if turns:
        window = float(round((opened - limit.anchor) / turns))
    trust = max(limit.trust, 0) + 1
    return replace(_anchored(limit, opened, sent_at), rate=rate, window=window, trust=trust)


def _opened(limit: W, sent_at: float) -> W:
    """A long episode ended where no window was expected to open.

    The window is measured anew from the last known opening.
    """
    opened = (limit.missed_at + sent_at) / 2
    span = opened - limit.anchor
    fresh = replace(_anchored(limit, opened, sent_at), trust=0, window=0.0)
    if limit.trust > 0 and span > 4 * limit.window:
        # Too long ago to tell a wrong W from a clock that drifted.
        return replace(fresh, window=limit.window)
    if limit.trust > 0:  # W may be a multiple of the truth
        parts = [limit.window / k for k in (2, 3, 4) if limit.window / k >= SHORTEST_WINDOW]
        fits = [part for part in parts if abs(span - round(span / part) * part) <= TOLERANCE * part]
        return replace(fresh, window=float(round(fits[0])) if fits else 0.0)
    if not SHORTEST_WINDOW <= span <= LONGEST_WINDOW:
        return fresh
    return replace(fresh, window=float(round(span)), rate=max(limit.taken / span, FLOOR))


def _anchored(limit: W, opened: float, sent_at: float) -> W:
    """A window opened: count its calls from there on, and let the climb begin."""
    return replace(limit, since=sent_at, anchor=opened, turn=0, taken=0, taken_before=0)
