"""Events per second, from the totals of the last polls."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cavendish.model import State

#: Seconds over which a rate is taken: a shorter time jumps, a longer one lags.
OVER = 5.0
#: Polls of which a history is kept.
KEPT = 120
NAMES = ("submitted", "settled", "calls", "refused", "delivered", "buried")
_ENDS = tuple(state.value for state in State if state.terminal)


@dataclass
class Rates:
    """Totals at each poll by lane, and of all lanes together under the name ""."""

    _seen: deque[tuple[float, dict[str, dict[str, int]]]] = field(default_factory=deque)
    history: dict[str, deque[float]] = field(
        default_factory=lambda: {name: deque(maxlen=KEPT) for name in NAMES}
    )

    def see(self, found: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
        """Add a poll; returns events per second by lane, None after the first poll."""
        totals = {lane["lane"]: _totals(lane["counts"]) for lane in found["lanes"]}
        totals[""] = {name: sum(each[name] for each in totals.values()) for name in NAMES}
        now = float(found["now"])
        if self._seen and now <= self._seen[-1][0]:  # the clock of another Redis: begin anew
            self._seen.clear()
        self._seen.append((now, totals))
        while len(self._seen) > 2 and now - self._seen[1][0] >= OVER:
            self._seen.popleft()
        last = self._rates("", max(len(self._seen) - 2, 0))
        for name, history in self.history.items():
            history.append(last[name] or 0.0)
        return {lane: self._rates(lane, 0) for lane in totals}

    def _rates(self, lane: str, since: int) -> dict[str, float | None]:
        """Events per second since one of the polls that are remembered."""
        (began, first), (ended, last) = self._seen[since], self._seen[-1]
        if ended <= began:
            return dict.fromkeys(NAMES)
        before, after = first.get(lane, {}), last[lane]
        return {name: max(after[name] - before.get(name, 0), 0) / (ended - began) for name in NAMES}


def _totals(counts: Mapping[str, int]) -> dict[str, int]:
    same = {name: counts.get(name, 0) for name in ("submitted", "calls", "delivered", "buried")}
    settled = sum(counts.get(state, 0) for state in _ENDS)
    return same | {"settled": settled, "refused": counts.get("rate_refused", 0)}
