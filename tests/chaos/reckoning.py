"""The ledger of a run: what was accepted, finished, settled and received, compared as sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

#: States that end an id without its result; each needs its own excuse.
EXPIRED, UNKNOWN = "expired", "unknown"


@dataclass(frozen=True)
class Settled:
    """What the store says of an id that has ended."""

    state: str
    at: float
    deadline_at: float


@dataclass(frozen=True)
class Evidence:
    """What each party says, by id: the producer, the API, the store and the receiver."""

    accepted: frozenset[str]
    truth: Mapping[str, tuple[float, str]]
    settled: Mapping[str, Settled]
    received: Mapping[str, tuple[int, str, str]]  # webhook-id -> how often, id, state
    refused: Sequence[str] = ()


@dataclass
class Reckoning:
    """The verdict on one run.

    Ids under each heading. `excused`: ids that may expire, since their deadline is short.
    """

    evidence: Evidence
    excused: frozenset[str] = frozenset()
    unsettled: list[str] = field(default_factory=list)
    unannounced: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    two_ids: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    restart: int = 0

    def __post_init__(self) -> None:
        said = self.evidence
        names = Counter(task_id for _, task_id, _ in said.received.values())
        self.unsettled = sorted(said.accepted - said.settled.keys())
        self.unannounced = sorted((said.accepted & said.settled.keys()) - names.keys())
        self.two_ids = sorted(task_id for task_id, number in names.items() if number > 1)
        self.restart = sum(times - 1 for times, _, _ in said.received.values())
        self.early = sorted(one for one, end in said.settled.items() if self._is_early(one, end))
        odd = {one for one, end in said.settled.items() if not self._is_true(one, end)}
        odd |= {
            one
            for _, one, state in said.received.values()
            if one not in said.settled or said.settled[one].state != state
        }
        self.wrong = sorted(odd)

    def _is_early(self, task_id: str, end: Settled) -> bool:
        if end.state in (EXPIRED, UNKNOWN):
            return end.at < end.deadline_at
        return end.at < self.evidence.truth[task_id][0]

    def _is_true(self, task_id: str, end: Settled) -> bool:
        return end.state == self.evidence.truth[task_id][1] or (
            task_id in self.excused and end.state == EXPIRED
        )

    @property
    def kept(self) -> bool:
        """True if the promise was kept."""
        broken = (
            self.unsettled,
            self.unannounced,
            self.early,
            self.two_ids,
            self.wrong,
            self.evidence.refused,
        )
        return bool(self.evidence.accepted) and not any(broken)

    def rows(self) -> list[tuple[str, str, str]]:
        """The table: what, how many, and the bar."""
        said, sound = self.evidence, self.evidence.accepted
        finished = sum(task_id in said.truth for task_id in sound)
        return [
            ("accepted by submit", _number(len(sound)), ""),
            ("finished at the API", _number(finished), ""),
            ("settled in the store", _number(len(sound & said.settled.keys())), ""),
            ("received, by webhook-id", _number(len(said.received)), ""),
            ("lost: never settled", _number(len(self.unsettled)), "0"),
            ("lost: settled, never received", _number(len(self.unannounced)), "0"),
            ("settled before its finish", _number(len(self.early)), "0"),
            ("received under two ids", _number(len(self.two_ids)), "0"),
            ("wrong verdict", _number(len(self.wrong)), "0"),
            ("signature refused", _number(len(said.refused)), "0"),
            ("received again under one id", _number(self.restart), "allowed"),
            (
                "expired at a short deadline",
                _number(sum(end.state == EXPIRED for end in said.settled.values())),
                "allowed",
            ),
        ]


def _number(count: int) -> str:
    return f"{count:,}"


def table(rows: Iterable[Sequence[str]], head: Sequence[str]) -> str:
    """A Markdown table with straight columns."""
    everything = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in everything) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in everything
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
