"""How fast it goes: rates from the totals that the store counts, over the last few polls."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cavendish.model import State

#: Seconds over which a rate is taken: shorter ones jump, longer ones lag.
OVER = 5.0
#: Polls that a history shows.
SHOWN = 120
NAMES = ("submitted", "settled", "calls", "refused", "delivered", "buried")
_ENDS = tuple(state.value for state in State if state.terminal)


@dataclass
class Rates:
    """Totals at each poll, and the rates a second that follow.

    By lane, and of all together under the name "".
    """

    _seen: deque[tuple[float, dict[str, dict[str, int]]]] = field(default_factory=deque)
    history: dict[str, deque[float]] = field(
        default_factory=lambda: {name: deque(maxlen=SHOWN) for name in NAMES}
    )

    def see(self, found: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
        """Add a poll; returns the rates by lane. None while there is but one poll to tell from."""
        totals = {lane["lane"]: _totals(lane["counts"]) for lane in found["lanes"]}
        totals[""] = {name: sum(each[name] for each in totals.values()) for name in NAMES}
        now = float(found["now"])
        if self._seen and now <= self._seen[-1][0]:  # the clock of another Redis: begin anew
            self._seen.clear()
        self._seen.append((now, totals))
        while len(self._seen) > 2 and now - self._seen[1][0] >= OVER:
            self._seen.popleft()
        rates = {lane: self._rates(lane) for lane in totals}
        for name, history in self.history.items():
            history.append(self._last(name))
        return rates

    def _rates(self, lane: str) -> dict[str, float | None]:
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        if ended <= began:
            return dict.fromkeys(NAMES)
        before = first.get(lane, {})
        return {
            name: max(last[lane][name] - before.get(name, 0), 0) / (ended - began) for name in NAMES
        }

    def _last(self, name: str) -> float:
        """The rate between the last two polls, for a history."""
        if len(self._seen) < 2:
            return 0.0
        (began, first), (ended, last) = self._seen[-2], self._seen[-1]
        return max(last[""][name] - first[""][name], 0) / (ended - began)


def _totals(counts: Mapping[str, int]) -> dict[str, int]:
    return {
        "submitted": counts.get("submitted", 0),
        "settled": sum(counts.get(state, 0) for state in _ENDS),
        "calls": counts.get("calls", 0),
        "refused": counts.get("rate_refused", 0),
        "delivered": counts.get("delivered", 0),
        "buried": counts.get("buried", 0),
    }
