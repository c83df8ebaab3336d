"""Pure: the circuit breaker of a webhook endpoint, and how many calls it may have in flight.

The allowance grows with each success and halves with each failure, like a congestion window: a
receiver that hangs soon has one call in flight, and a quick one as many as it can take. After some
failures in a row the circuit opens: nothing is sent, and no attempt is used up, until a single
probe succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cavendish.policy.backoff import exponential
from cavendish.stored_json import compact, read

#: Calls in flight to an endpoint that was never called.
FIRST_ALLOWANCE = 10.0
#: Failures in a row that open the circuit; then seconds until the first probe, doubling up to the
#: longest wait.
TRIP, FIRST_WAIT, LONGEST_WAIT = 5, 5.0, 300.0
#: Seconds without calls for an endpoint that reports overload without a Retry-After.
REST = 1.0
#: An endpoint that takes longer than this on average (s) is slow: it shares a part of the calls
#: with the other endpoints that are not trusted.
SLOW = 1.0
#: Seconds after which a success is stored again although nothing else has changed.
NOTED_FOR = 30.0
#: Characters of an error that are kept.
ERROR_KEPT = 100
_SMOOTHING = 0.2


@dataclass(frozen=True, slots=True)
class Circuit:
    """The state of one endpoint. Times are in seconds since the epoch.

    `failures` in a row since `failing_since` opened it `trips` times; nothing is sent before
    `open_until`. `seconds` is how long its answers take, smoothed; `ok_at` is roughly its last
    success. If the endpoint has set a rate, its next call is due at `next_at`. `error` is what the
    last failure met; it is kept after a success.
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
    error: str = ""
    error_at: float = 0.0

    @classmethod
    def from_json(cls, text: object) -> Circuit:
        """Read what `to_json` wrote; anything unreadable is a new circuit."""
        return read(cls, text) or cls()

    def to_json(self) -> str:
        """The JSON text that is stored."""
        return compact(self)

    @property
    def state(self) -> str:
        """`closed` (calls are sent), or `open` (it waits, or probes)."""
        return "open" if self.failures >= TRIP or self.open_until else "closed"

    @property
    def trusted(self) -> bool:
        """True for an endpoint that answers quickly and without failures.

        All others share a part of the calls, so that they cannot use up all of them.
        """
        return self.ok_at > 0 and not self.failures and self.seconds < SLOW

    def room(self, now: float, most: int) -> int:
        """How many calls may be in flight now, at most `most`."""
        if now < self.open_until:
            return 0
        return 1 if self.failures >= TRIP else max(min(int(self.allowance), most), 1)


def worked(circuit: Circuit, calls: int, seconds: float, now: float, most: int) -> Circuit:
    """As many `calls` succeeded, after `seconds` on average.

    The same circuit is returned if nothing has changed that is worth a write.
    """
    allowance = min(circuit.allowance + calls, float(most))
    weight = _SMOOTHING if circuit.ok_at else 1.0
    smoothed = circuit.seconds + (seconds - circuit.seconds) * weight
    as_before = allowance == circuit.allowance and (smoothed < SLOW) == (circuit.seconds < SLOW)
    healthy = not circuit.failures and not circuit.open_until
    if as_before and healthy and now - circuit.ok_at < NOTED_FOR:
        return circuit
    return Circuit(
        allowance=allowance,
        ok_at=now,
        seconds=smoothed,
        next_at=circuit.next_at,
        error=circuit.error,
        error_at=circuit.error_at,
    )


def failed(
    circuit: Circuit,
    sent_at: float,
    now: float,
    chance: float,
    rest: float | None = None,
    error: str = "",
) -> Circuit:
    """A call that was sent at `sent_at` failed, and met an `error`.

    `rest`: seconds for which the endpoint asked not to be called. A call that was sent before the
    last failure counts, but does not reduce the allowance again.
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
        error=error[:ERROR_KEPT],
        error_at=now,
    )


def rejected(circuit: Circuit, now: float, error: str) -> Circuit:
    """A call was answered that this webhook is never to come again."""
    return replace(circuit, error=error[:ERROR_KEPT], error_at=now)


def afresh(circuit: Circuit) -> Circuit:
    """The circuit after an operator has reset it: no failures, and `ok_at` is kept.

    One that had failed is trusted again only after quick answers.
    """
    if circuit.state == "closed" and not circuit.failures:
        return circuit
    return Circuit(
        ok_at=circuit.ok_at,
        seconds=max(circuit.seconds, SLOW) if circuit.ok_at else 0.0,
        error=circuit.error,
        error_at=circuit.error_at,
    )


def failing_for(circuit: Circuit, now: float) -> float:
    """Seconds for which the endpoint has failed without a success; 0 if it has not failed."""
    return now - circuit.failing_since if circuit.failures else 0.0


def take(circuit: Circuit, wanted: int, now: float, per_minute: float) -> tuple[Circuit, int]:
    """Reserve up to `wanted` calls within the rate, at most those of one second at once.

    Returns the next state and the number of reserved calls.
    """
    every = 60.0 / per_minute
    start = max(circuit.next_at, now - 1.0)
    granted = min(wanted, int((now - start) / every) + 1) if start <= now else 0
    return replace(circuit, next_at=start + granted * every) if granted else circuit, granted


def give_back(circuit: Circuit, unused: int, per_minute: float) -> Circuit:
    """Return `unused` calls that were reserved and not made."""
    return replace(circuit, next_at=circuit.next_at - unused * 60.0 / per_minute)
