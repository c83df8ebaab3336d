"""Pure: the circuit of a webhook endpoint: how many calls it may have in flight, and when it is
left alone.

The allowance grows with each success and halves with each failure, as a congestion window does, so
a receiver that hangs soon holds one call and a quick one as many as it can take. After some
failures in a row the circuit opens: nothing is sent, and no try is charged, until a single probe
finds the endpoint well again.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace

from cavendish.policy.backoff import exponential

#: Calls in flight to an endpoint of which nothing is known yet.
FIRST_ALLOWANCE = 10.0
#: Failures in a row that open the circuit; then seconds until the first probe, doubling up to the
#: longest wait.
TRIP, FIRST_WAIT, LONGEST_WAIT = 5, 5.0, 300.0
#: Seconds that an endpoint rests which said that it is overloaded, and did not say for how long.
REST = 1.0
#: An endpoint that takes longer than this on average (s) is slow: it shares a part of the calls
#: with other doubtful ones.
SLOW = 1.0
#: Seconds that pass before a success is noted again while all goes well.
NOTED_FOR = 30.0
_SMOOTHING = 0.2


@dataclass(frozen=True, slots=True)
class Circuit:
    """`failures` in a row since `failing_since`, which opened it `trips` times; nothing is sent
    before `open_until`.

    `seconds` is how long its answers take, smoothed; `ok_at` is about when it last took something.
    Where the endpoint has allowed a rate, its next call is due at `next_at`.
    """

    allowance: float = FIRST_ALLOWANCE
    failures: int = 0
    trips: int = 0
    failing_since: float = 0.0
    open_until: float = 0.0
    failed_at: float = 0.0
    ok_at: float = 0.0
    seconds: float = 0.0
    next_at: float = 0.0

    @classmethod
    def from_json(cls, text: str | None) -> Circuit:
        """Read what `to_json` wrote; anything unreadable is a new circuit."""
        try:
            known = json.loads(text) if text else {}
            return cls(**known) if all(map(math.isfinite, known.values())) else cls()
        except (TypeError, ValueError, AttributeError, OverflowError, RecursionError):
            return cls()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def state(self) -> str:
        """`closed` (all is well), or `open`: resting or probing."""
        return "open" if self.failures >= TRIP or self.open_until else "closed"

    @property
    def trusted(self) -> bool:
        """True for an endpoint that answers well and soon.

        All others share a part of the calls, so that they cannot take all.
        """
        return self.ok_at > 0 and not self.failures and self.seconds < SLOW

    def room(self, now: float, most: int) -> int:
        """How many calls may be in flight now."""
        if now < self.open_until:
            return 0
        return 1 if self.failures >= TRIP else max(min(int(self.allowance), most), 1)


def worked(circuit: Circuit, calls: int, seconds: float, now: float, most: int) -> Circuit:
    """So many calls succeeded, after `seconds` on average.

    Unchanged where there is nothing new to note.
    """
    allowance = min(circuit.allowance + calls, float(most))
    smoothed = (
        seconds if not circuit.ok_at else circuit.seconds + (seconds - circuit.seconds) * _SMOOTHING
    )
    as_before = allowance == circuit.allowance and (smoothed < SLOW) == (circuit.seconds < SLOW)
    if (
        as_before
        and not circuit.failures
        and not circuit.open_until
        and now - circuit.ok_at < NOTED_FOR
    ):
        return circuit
    return Circuit(allowance=allowance, ok_at=now, seconds=smoothed, next_at=circuit.next_at)


def failed(
    circuit: Circuit, sent_at: float, now: float, chance: float, rest: float | None = None
) -> Circuit:
    """A call that was sent at `sent_at` failed. `rest`: seconds for which the endpoint asked to be
    left alone.

    Calls that were under way when an earlier failure was noted say nothing new about the allowance,
    but count.
    """
    failures, trips = circuit.failures + 1, circuit.trips
    fresh = sent_at >= circuit.failed_at
    until = max(circuit.open_until, now + rest if rest is not None else 0.0)
    if tripped := failures >= TRIP and (fresh or not trips):
        trips += 1
        until = max(until, now + exponential(trips, FIRST_WAIT, LONGEST_WAIT, chance))
    return replace(
        circuit,
        allowance=max(circuit.allowance / 2, 1.0) if fresh else circuit.allowance,
        failures=failures,
        trips=trips,
        failing_since=circuit.failing_since or now,
        failed_at=now if fresh or tripped else circuit.failed_at,
        open_until=until,
    )


def afresh(circuit: Circuit) -> Circuit:
    """What an operator makes of it by hand: nothing is held against it, and when it last took
    something is still known.

    One that failed is trusted with all calls only once it has answered soon again.
    """
    if circuit.state == "closed" and not circuit.failures:
        return circuit
    return Circuit(
        ok_at=circuit.ok_at, seconds=max(circuit.seconds, SLOW) if circuit.ok_at else 0.0
    )


def failing_for(circuit: Circuit, now: float) -> float:
    """Seconds for which the endpoint has failed without a single success."""
    return now - circuit.failing_since if circuit.failures else 0.0


def take(circuit: Circuit, wanted: int, now: float, per_minute: float) -> tuple[Circuit, int]:
    """Reserve up to `wanted` calls within a rate, at most a second's worth at once.

    Returns how many.
    """
    every = 60.0 / per_minute
    start = max(circuit.next_at, now - 1.0)
    granted = min(wanted, int((now - start) / every) + 1) if start <= now else 0
    return replace(circuit, next_at=start + granted * every) if granted else circuit, granted


def give_back(circuit: Circuit, unused: int, per_minute: float) -> Circuit:
    """Calls that were reserved and not made."""
    return replace(circuit, next_at=circuit.next_at - unused * 60.0 / per_minute)
