"""Chooses partitions, all from one seed.

Which, of whom, in which way, for how long; several at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from chaos.history import History
from chaos.partitions import KINDS, WAYS, Fault, Network

#: What is hit, the more often the oftener it stands here.
FRONTS = (("redis",), ("redis",), ("api",), ("receiver",), ("redis", "api", "receiver"))
#: Seconds that a partition lasts, by kind.
LASTS = {"cut": (0.1, 1.5), "freeze": (0.3, 3.0), "delay": (1.0, 4.0), "tear": (0.3, 2.0)}
#: Seconds that the longest freezes last: longer than anybody waits for an answer.
LONG, LONG_SHARE = (5.5, 8.0), 0.1
#: Of one process rather than of all; how much of the usual time it lasts for all; or nobody gets
#: anything done.
ONE_SHARE, ALL_LAST = 0.8, 0.4
#: Seconds of a delay; bytes of an answer that pass.
DELAY, BYTES = (0.5, 3.0), 400


class Partitioner:
    """Begins a partition each `every` seconds or so, and ends each in its time.

    `living`: the names of the processes that can be cut off by themselves.
    """

    def __init__(
        self,
        network: Network,
        history: History,
        seed: int,
        every: float,
        living: Callable[[], list[str]],
    ) -> None:
        self._network, self._history, self._living = network, history, living
        self._chance, self._every = random.Random(f"partitions {seed}"), every
        self._next, self._until = time.monotonic() + every, dict[Fault, float]()
        self.total = 0

    def go(self) -> None:
        """One moment: end what is over, begin the next."""
        now = time.monotonic()
        for fault in [fault for fault, until in self._until.items() if now >= until]:
            self._end(fault)
        if now >= self._next:
            self._next = now + self._chance.uniform(0.4, 1.6) * self._every
            fault, lasts = self._chosen()
            self._note("begin", fault, seconds=fault.seconds, after=fault.after, lossy=fault.lossy)
            self._network.begin(fault)
            self._until[fault] = now + lasts
            self.total += 1

    def heal(self) -> None:
        """End all of them."""
        for fault in [*self._until]:
            self._end(fault)

    def _chosen(self) -> tuple[Fault, float]:
        chance = self._chance
        kind, way, fronts = chance.choice(KINDS), chance.choice(WAYS), chance.choice(FRONTS)
        one, long = chance.random() < ONE_SHARE, chance.random() < LONG_SHARE
        lasts = chance.uniform(*LASTS[kind]) * (1.0 if one else ALL_LAST)
        if kind == "freeze" and long:
            lasts = chance.uniform(*LONG)
        more: dict[str, Any] = {"lossy": chance.random() < 0.5}
        more |= {"seconds": chance.uniform(*DELAY)} if kind == "delay" else {}
        more |= {"after": chance.randrange(BYTES)} if kind == "tear" else {}
        who = chance.choice(sorted(self._living())) if one else None
        return Fault(kind, fronts, way, who, **more), lasts

    def _end(self, fault: Fault) -> None:
        del self._until[fault]
        self._network.end(fault)
        self._note("end", fault)

    def _note(self, phase: str, fault: Fault, **more: Any) -> None:
        about = {"kind": fault.kind, "way": fault.way, "fronts": fault.fronts, "of": fault.of}
        self._history.note("partition", phase=phase, **about, **more)
