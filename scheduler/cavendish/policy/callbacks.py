"""Pure: how reliable the callbacks of a service have proved to be.

A callback is not signed, so it is a hint, and only the poll that follows it tells the truth. What
counts here is what such polls showed: ends that a callback announced make the polls of ids that
none has announced rarer; ends without a callback make them frequent again, and so do callbacks
about ids that were still running. Old counts fade.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cavendish.policy.durations import Observation, finished_at
from cavendish.stored_json import compact, read

#: Polls that told something of a callback, after which an older one counts half; and ends without
#: a callback that are believed beforehand.
HALF_LIFE, PRIOR = 200.0, 1.0
#: However many callbacks came, so many ends at least are taken to need a poll of their own.
LEAST = 1e-3
#: Seconds after a finish for which its callback may still be on its way.
ON_ITS_WAY = 1.0
#: Seconds for which an announced id waits for others, where others are likely to come within them.
GATHERING = 2.0
#: Seconds over which the rate of callbacks is measured.
RECENT = 10.0


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The callbacks of one service of an account, as polls found them; counts fade.

    `heard`: ends that a callback announced before a poll found them; `missed`: ends that none
    announced; `wrong`: announcements of ids that were still running. `rate`: ends announced per
    second lately, at `at` (seconds since the epoch).
    """

    heard: float = 0.0
    missed: float = 0.0
    wrong: float = 0.0
    rate: float = 0.0
    at: float = 0.0

    @classmethod
    def from_json(cls, text: object) -> Callbacks:
        """Read what `to_json` wrote; anything unreadable is a service without callbacks."""
        known = read(cls, text) or cls()
        return known if min(known.heard, known.missed, known.wrong, known.rate) >= 0 else cls()

    def to_json(self) -> str:
        """The JSON text that is stored."""
        return compact(self)

    @property
    def silent(self) -> float:
        """The share of ends, 0..1, that no callback will announce."""
        heard = self.heard / (self.heard + self.missed + self.wrong + PRIOR)
        return max(1 - heard, LEAST)

    @property
    def true(self) -> float:
        """The share of announcements, 0..1, that are true."""
        return (self.heard + 1) / (self.heard + self.wrong + 1)

    def gathers_until(self, announced: Sequence[float], now: float) -> float:
        """Until when announced ids wait for others, so that one call finds many; 0: they do not.

        `announced`: when each of them was. Where callbacks come one by one, none waits.
        """
        rate = self.rate * math.exp(min(self.at - now, 0.0) / RECENT)
        return min(announced) + GATHERING if announced and rate * GATHERING >= 1 else 0.0


def proved(callbacks: Callbacks, observations: Iterable[Observation], now: float) -> Callbacks:
    """Learn from one batch. As long as there was no callback, nothing is worth a note."""
    heard = missed = wrong = 0
    for seen in observations:
        if seen.announced:
            heard, wrong = heard + seen.finished, wrong + (not seen.finished)
        elif seen.finished:
            missed += seen.age - finished_at(seen) >= ON_ITS_WAY
    if not heard + wrong + callbacks.heard + callbacks.wrong:
        return callbacks
    fade = 0.5 ** ((heard + missed + wrong) / HALF_LIFE)
    rate = callbacks.rate * math.exp(min(callbacks.at - now, 0.0) / RECENT)
    return replace(
        callbacks,
        heard=fade * callbacks.heard + heard,
        missed=fade * callbacks.missed + missed,
        wrong=fade * callbacks.wrong + wrong,
        rate=rate + heard / RECENT,
        at=now,
    )
