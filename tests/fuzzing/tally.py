"""What a fuzz run found: how many inputs, and what went wrong with them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

#: Findings that are shown one by one.
SHOWN = 10


@dataclass
class Tally:
    """The count of one kind of input.

    `tracebacks`: exceptions that reached a log, stderr or an event loop. `deaths`: processes that
    ended, and calls that never did. `wrong`: acknowledgements that an independent reading of what
    was sent does not bear out, and good inputs that were not taken. `findings`: the first of them,
    in a line each; `notes`: what else there is to say of the run.
    """

    kind: str
    seed: int
    made: int = 0
    tracebacks: int = 0
    deaths: int = 0
    wrong: int = 0
    good: int = 0
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def traceback(self, what: str) -> None:
        self.tracebacks += 1
        self._find("traceback", what)

    def death(self, what: str) -> None:
        self.deaths += 1
        self._find("death", what)

    def mistake(self, what: str) -> None:
        self.wrong += 1
        self._find("wrong", what)

    def end(self) -> Tally:
        self.seconds = time.monotonic() - self.began
        return self

    @property
    def clean(self) -> bool:
        """True if inputs were made, good ones among them, and nothing was found."""
        return bool(self.made and self.good) and not self.tracebacks + self.deaths + self.wrong

    def _find(self, kind: str, what: str) -> None:
        if len(self.findings) < SHOWN:
            self.findings.append(f"{kind}: {what}")


def table(tallies: list[Tally]) -> str:
    """A line for each kind of input. `good`: inputs that had to be taken, and were looked for."""
    names = ("inputs", "made", "good", "tracebacks", "deaths", "wrong", "seconds", "seed")
    rows = [names]
    for one in tallies:
        numbers = (one.made, one.good, one.tracebacks, one.deaths, one.wrong)
        rows.append((one.kind, *map(str, numbers), f"{one.seconds:.0f}", str(one.seed)))  # type: ignore[arg-type]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
