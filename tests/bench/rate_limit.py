"""The limiter against a hidden limit that moves, in virtual time: `.venv/bin/python
tests/bench/rate_limit.py`, two minutes.

Saturating demand from 8 slots (64 at ten times the limits), latency uniform 0.1 .. 0.3 s, limits 10
-> 4 -> 20 -> 10 calls/s every 300 s, the mean of six seeds (three at ten times the limits). The
real `cavendish.policy.rate_limit` decides; the server and the driver here are a heap of events. As
in the study whose numbers stand beside ours, the server decides when a call is sent, windows are
aligned with the changes of the limit, and `Retry-After` is exact; the held-out rows leave all of
that.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[2]))

from cavendish.model import UpstreamErrorKind
from cavendish.policy.rate_limit import RateLimit, acquire, report_answer, report_error

LIMITS, HELD_OUT = (10.0, 4.0, 20.0, 10.0), (7.0, 12.0, 2.0, 9.0, 30.0)  # calls/s
PHASE, SETTLE = 300.0, 60.0  # s
WINDOWS = (0.0, 1.0, 10.0, 30.0, 60.0)  # s, 0 is a token bucket
SEEDS = (1, 2, 3, 4, 5, 6)
EPOCH = 1_800_000_000.0  # virtual time 0, in seconds since the epoch
HEADERS = {"": None, "exact": float, "whole": math.ceil}  # how Retry-After is written

#: What polling.md has for the same case: utilisation, 429 share, gap, seconds to 90 %.
STUDY = {
    (0.0, 1.0, ""): "91.6 / 0.59 / - / 57",
    (1.0, 1.0, ""): "90 / 0.62 / - / -",
    (60.0, 1.0, ""): "67 / 1.5 / 5 / ~240",
    (60.0, 1.0, "exact"): "69 / 0.48 / 14 / -",
    (0.0, 0.1, ""): "69 / 3.1 / - / -",
    (0.0, 10.0, ""): "88 / 0.13 / - / -",
}
HEADINGS = (
    "limit",
    "util %",
    "429 %",
    "gap s",
    "worst gap s",
    "to 90 % s",
    "study: util / 429 / gap / to 90 %",
)


@dataclass
class Server:
    """A token bucket (`window` 0), or fixed windows of `window` seconds.

    The first is `shift` seconds old at the start.
    """

    limits: Sequence[float]
    window: float = 0.0
    burst: float = 5.0
    shift: float = 0.0
    tokens: float = field(init=False)
    seen_at: float = 0.0
    turn: int = -1
    taken: int = 0

    def __post_init__(self) -> None:
        self.tokens = self.burst

    @property
    def capacity(self) -> float:
        """Calls it accepts in a whole run; a window takes whole calls."""
        rates = (
            [math.ceil(limit * self.window) / self.window for limit in self.limits]
            if self.window
            else self.limits
        )
        return PHASE * sum(rates)

    def ask(self, at: float) -> float:
        """0.0 if the call is accepted, else the seconds until one would be."""
        limit = self.limits[min(int(at / PHASE), len(self.limits) - 1)]
        return self._window(at, limit) if self.window else self._bucket(at, limit)

    def _bucket(self, at: float, limit: float) -> float:
        self.tokens = min(self.tokens + (at - self.seen_at) * limit, self.burst)
        self.seen_at = at
        if self.tokens < 1:
            return (1 - self.tokens) / limit
        self.tokens -= 1
        return 0.0

    def _window(self, at: float, limit: float) -> float:
        turn = int((at + self.shift) / self.window)
        if turn != self.turn:
            self.turn, self.taken = turn, 0
        if self.taken >= limit * self.window:
            return (turn + 1) * self.window - self.shift - at + 1e-6
        self.taken += 1
        return 0.0


@dataclass
class Run:
    """What one run did: when calls were accepted and when refused."""

    server: Server
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    @property
    def utilisation(self) -> float:
        return 100 * len(self.accepted) / self.server.capacity

    @property
    def refused_share(self) -> float:
        return 100 * len(self.refused) / (len(self.refused) + len(self.accepted))

    @property
    def gaps(self) -> list[float]:
        """The longest silence of each phase, its first minute left out."""
        found = []
        for phase in range(len(self.server.limits)):
            start, end = phase * PHASE + SETTLE, (phase + 1) * PHASE
            times = [start, *(at for at in self.accepted if start < at < end), end]
            found.append(max(after - before for before, after in itertools.pairwise(times)))
        return found

    @property
    def reach(self) -> float:
        """Seconds after the greatest rise of the limit until ten of them brought 90 % of it."""
        limits = self.server.limits
        phase = max(range(1, len(limits)), key=lambda i: limits[i] / limits[i - 1])
        counts = [0] * int(PHASE / 10)
        for at in self.accepted:
            if phase * PHASE <= at < (phase + 1) * PHASE:
                counts[int((at - phase * PHASE) / 10)] += 1
        return next(
            (10.0 * i + 10 for i, count in enumerate(counts) if count >= 9 * limits[phase]),
            math.inf,
        )


def drive(
    server: Server, seed: int, *, slots: int = 8, header: str = "", arrival: float = 0.0
) -> Run:
    """Saturating demand.

    `header` is a key of HEADERS; `arrival` the share of the latency after which the server decides.
    """
    chance, run, rate_limit, free, wake = random.Random(seed), Run(server), RateLimit(), slots, 0.0
    order, horizon = itertools.count(), PHASE * len(server.limits)
    events: list[tuple[float, int, str, float, float]] = [(0.0, next(order), "wake", 0.0, 0.0)]
    while events[0][0] < horizon:
        now, _, what, sent_at, value = heapq.heappop(events)
        if what == "decide":
            wait = server.ask(now)
            (run.refused if wait else run.accepted).append(now)
            heapq.heappush(events, (sent_at + value, next(order), "hear", sent_at, wait))
            continue
        if what == "hear":
            free += 1
            rate_limit = _hear(rate_limit, sent_at, now, value, header, chance.random())
        while free:
            rate_limit, wait = acquire(rate_limit, EPOCH + now)
            if wait:
                if not now < wake <= now + wait:
                    wake = now + wait
                    heapq.heappush(events, (wake, next(order), "wake", 0.0, 0.0))
                break
            free -= 1
            latency = chance.uniform(0.1, 0.3)
            heapq.heappush(events, (now + arrival * latency, next(order), "decide", now, latency))
    return run


def _hear(
    rate_limit: RateLimit, sent_at: float, now: float, wait: float, header: str, chance: float
) -> RateLimit:
    if not wait:
        return report_answer(rate_limit, EPOCH + sent_at, EPOCH + now)
    write = HEADERS[header]
    return report_error(
        rate_limit,
        UpstreamErrorKind.RATE,
        "",
        write(wait) if write else None,
        EPOCH + sent_at,
        EPOCH + now,
        chance,
    )


@dataclass(frozen=True)
class Row:
    """The means over the seeds for one kind of limit.

    A gap is the longest silence of a phase; the worst is that of a run.
    """

    name: str
    utilisation: float
    refused: float
    gap: float
    worst_gap: float
    reach: float
    study: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        reach = f"{self.reach:.0f}" if math.isfinite(self.reach) else "> 300"
        numbers = (
            f"{self.utilisation:.1f}",
            f"{self.refused:.2f}",
            f"{self.gap:.1f}",
            f"{self.worst_gap:.1f}",
            reach,
        )
        return (self.name, *numbers, self.study)


def measure(name: str, runs: Sequence[Run], study: str = "") -> Row:
    return Row(
        name,
        mean(run.utilisation for run in runs),
        mean(run.refused_share for run in runs),
        mean(mean(run.gaps) for run in runs),
        mean(max(run.gaps) for run in runs),
        mean(run.reach for run in runs),
        study,
    )


def case(window: float, scale: float = 1.0, header: str = "", seeds: Sequence[int] = SEEDS) -> Row:
    """One kind of limit as in the study, all limits times `scale`."""
    limits, burst, slots = (
        [limit * scale for limit in LIMITS],
        max(1.0, 5 * min(scale, 4.0)),
        64 if scale > 1 else 8,
    )
    runs = [
        drive(Server(limits, window, burst), seed, slots=slots, header=header) for seed in seeds
    ]
    return measure(_name(window, scale, header), runs, STUDY.get((window, scale, header), ""))


def held_out(
    window: float, header: str = "", seeds: Sequence[int] = (11, 12, 13, 14, 15, 16)
) -> Row:
    """Nothing of this was used for tuning.

    Other limits, windows not aligned, the server decides halfway through the call.
    """
    servers = [
        Server(HELD_OUT, window, shift=window * (i + 1) / (len(seeds) + 1))
        for i in range(len(seeds))
    ]
    runs = [
        drive(server, seed, header=header, arrival=0.5)
        for server, seed in zip(servers, seeds, strict=True)
    ]
    return measure(_name(window, 1.0, header), runs)


def _name(window: float, scale: float, header: str) -> str:
    kind = f"{window:g} s window" if window else "token bucket"
    named = {"": "", "exact": ", Retry-After", "whole": ", Retry-After in whole seconds"}[header]
    return kind + (f" x{scale:g}" if scale != 1 else "") + named


def _tables() -> Iterator[tuple[str, list[Row]]]:
    yield (
        "10 -> 4 -> 20 -> 10 calls/s",
        [case(window, header=header) for header in ("", "exact") for window in WINDOWS],
    )
    yield (
        "1 -> 0.4 -> 2 -> 1 calls/s",
        [case(window, 0.1, header) for header in ("", "exact") for window in WINDOWS],
    )
    yield (
        "100 -> 40 -> 200 -> 100 calls/s",
        [
            case(window, 10.0, header, seeds=SEEDS[:3])
            for header in ("", "exact")
            for window in WINDOWS
        ],
    )
    kinds = [
        (0.0, ""),
        (0.0, "whole"),
        (1.0, ""),
        (10.0, ""),
        (15.0, ""),
        (15.0, "whole"),
        (30.0, ""),
        (60.0, ""),
        (60.0, "whole"),
    ]
    yield "held out: 7 -> 12 -> 2 -> 9 -> 30 calls/s", [held_out(*kind) for kind in kinds]


def tables() -> list[tuple[str, list[Row]]]:
    """Every table: its title and its rows. `Row.cells` go under `HEADINGS`."""
    return list(_tables())


def main() -> None:
    for title, rows in _tables():
        lines = [HEADINGS, *(row.cells for row in rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
        print(f"\n{title}")
        for line in lines:
            cells = (
                cell.ljust(width) if i in {0, 6} else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            print("  ".join(cells).rstrip(), flush=True)


if __name__ == "__main__":
    main()
