"""Pure: how ids and calls are shared, max-min fair between producers.

Within a batch the producers of its lane share its ids; the calls of an account are shared between
its producers over all its lanes. So a producer who names two hundred services has one share, not
two hundred.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from cavendish.model import Candidate
from cavendish.policy.rate_limit import RateLimit

#: Calls that are too few to be remembered; and the shortest wait that counts, in seconds.
_NOTHING, _SHORTEST = 1e-3, 1e-3


def fair_share(candidates: Iterable[Candidate], size: int, now: float) -> list[Candidate]:
    """At most `size` candidates: first those due at `now`, then those due next.

    The due ones are taken one of each producer in turn. So every producer gets what it wants up to
    an equal share, and the rest goes to those who want more. The ids due next fill the batch, since
    a call costs the same with one id or with many.
    """
    due: dict[str, list[Candidate]] = defaultdict(list)
    early = []
    for one in candidates:
        due[one.producer].append(one) if one.due <= now else early.append(one)
    for members in due.values():
        members.sort(key=lambda one: one.due)
    in_turns = [one for turn in zip_longest(*due.values()) for one in turn if one is not None]
    return (in_turns + sorted(early, key=lambda one: one.due))[:size]


@dataclass(frozen=True, slots=True)
class CallShares:
    """How many calls each producer of an account was charged lately; older ones fade."""

    used: Mapping[str, float] = field(default_factory=dict)
    at: float = 0.0

    def faded(self, now: float, over: float) -> CallShares:
        """The same at `now`: in `over` seconds a call fades to 1/e."""
        kept = math.exp(min(self.at - now, 0.0) / over)
        used = {name: calls * kept for name, calls in self.used.items()}
        return CallShares({name: calls for name, calls in used.items() if calls > _NOTHING}, now)

    def charged(self, worths: Mapping[str, float], now: float, over: float) -> CallShares:
        """One call more, charged to its producers by what it was worth to each."""
        before, total = self.faded(now, over), sum(worths.values())
        parts = {
            name: worth / total if 0 < total < math.inf else 1 / len(worths)
            for name, worth in worths.items()
        }
        used = {name: before.used.get(name, 0.0) + part for name, part in parts.items()}
        return CallShares({**before.used, **used}, now)

    def used_share(self, producer: str, limit: RateLimit, now: float) -> float:
        """How much of the calls that it may have a producer uses, 0..1.

        It is the used share of the rate limit, and less for a producer that uses less than its
        part of what all use. 0 while the rate limit is unknown.
        """
        others = dict(self.used)
        own, total = others.pop(producer, 0.0), sum(self.used.values())
        part = call_part(others.values(), total)
        return limit.used_share(now) * min(own / part, 1.0) if part else 0.0


def call_part(others: Iterable[float], rate: float) -> float:
    """The calls per second that one more producer may have, max-min fair, of `rate` in all.

    `others`: what each other producer uses. It is an equal part, and more where others use less
    than theirs.
    """
    wants, left = sorted(others), rate
    for place, wanted in enumerate(wants):
        equal = left / (len(wants) + 1 - place)
        if wanted >= equal:
            return equal
        left -= wanted
    return left


@dataclass(frozen=True, slots=True)
class Bid:
    """A batch that is worth a call.

    `worths`: what it is worth to each of its producers, in task-seconds; `since`: when the turn of
    its lane began, in seconds since the epoch.
    """

    worths: Mapping[str, float]
    since: float


def next_call(bids: Sequence[Bid], shares: CallShares, now: float) -> int:
    """Which bid gets the next call: one of the producer that was charged the least lately.

    Of its lanes, the one that is worth most, weighed by how long it has waited for its turn: so
    none waits for ever.
    """

    def rank(place: int) -> tuple[float, float]:
        bid = bids[place]
        least = min(shares.used.get(name, 0.0) for name in bid.worths)
        return least, -sum(bid.worths.values()) * max(now - bid.since, _SHORTEST)

    return min(range(len(bids)), key=rank)
