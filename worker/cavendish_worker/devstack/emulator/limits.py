"""The rate limit of the emulated API: a token bucket whose rate may change over time."""

from __future__ import annotations

from dataclasses import dataclass, field

#: (seconds since the bucket began, calls per second from then on), in the order of time.
Steps = tuple[tuple[float, float], ...]


@dataclass(slots=True)
class Bucket:
    """Allows `rate` calls per second (0: any number), and `burst` calls at once after a rest."""

    rate: float
    burst: float
    later: Steps = ()
    began_at: float | None = None
    _filled_at: float | None = None
    _level: float = field(init=False)

    def __post_init__(self) -> None:
        self._level = self.burst

    def begin(self, now: float) -> None:
        """Start the time from which the steps of the rate count; only the first call does."""
        if self.began_at is None:
            self.began_at = now

    def rate_at(self, now: float) -> float:
        """Calls per second that are allowed at this moment."""
        age = 0.0 if self.began_at is None else now - self.began_at
        return next((rate for since, rate in reversed(self.later) if age >= since), self.rate)

    def take(self, now: float) -> bool:
        """True if one call is allowed now."""
        rate = self.rate_at(now)
        if not rate:
            return True
        filled_at = now if self._filled_at is None else self._filled_at
        self._level = min(self._level + (now - filled_at) * rate, self.burst)
        self._filled_at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


def steps(texts: tuple[str, ...]) -> Steps:
    """Read steps written as `seconds:rate`. Raises ValueError."""
    read = [
        (float(since), float(rate)) for since, _, rate in (text.partition(":") for text in texts)
    ]
    if not all(since >= 0 and rate >= 0 for since, rate in read):
        raise ValueError("negative, or NaN")
    return tuple(sorted(read))
