"""What counts.

The numbers of one contestant, from what the emulated API saw; and the table of all. Pure.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mark:
    """What had been counted at one moment: the tally of each token, and CPU seconds by process."""

    at: float
    tallies: dict[str, dict[str, Any]]
    cpu: dict[str, float]


def row(
    name: str, tasks: Sequence[dict[str, Any]], before: Mark, after: Mark, steps: Sequence[float]
) -> Row:
    """The numbers of one contestant between two marks.

    `tasks` is its ledger, read some seconds after the second mark: what had finished by the mark
    and was not told by then is missed. `steps` are the moments at which the limit changed.
    """
    finished = [task for task in tasks if before.at <= task["finished_at"] < after.at]
    found = [task for task in finished if task["told_at"] is not None]
    told = sum(
        task["told_at"] is not None and before.at <= task["told_at"] < after.at for task in tasks
    )
    calls = after.tallies[name]["calls"] - before.tallies[name]["calls"]
    refused = after.tallies[name]["answers"].get("429", 0) - before.tallies[name]["answers"].get(
        "429", 0
    )
    edges = (before.at, *steps, after.at)
    phases = [[task for task in found if a <= task["finished_at"] < b] for a, b in pairwise(edges)]
    return {
        "contestant": name,
        "finished": len(finished),
        "detected": len(found),
        "missed": share(len(finished) - len(found), len(finished)),
        "calls": calls,
        "calls_per_task": calls / told if told else None,
        "refused": share(refused, calls),
        "delay": spread(_delays(found)),
        "delay_by_phase": [spread(_delays(phase))["mean"] for phase in phases],
        "delay_at_least": spread(
            [(task["told_at"] or after.at) - task["finished_at"] for task in finished]
        )["mean"],
        "cores": (after.cpu[name] - before.cpu[name]) / (after.at - before.at)
        if name in after.cpu
        else None,
    }


def _delays(tasks: Sequence[dict[str, Any]]) -> list[float]:
    return [task["told_at"] - task["finished_at"] for task in tasks]


def share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and percentiles."""
    if len(values) < 2:
        return dict.fromkeys(("mean", "p50", "p95", "p99"))
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"mean": statistics.fmean(values), "p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


HEADS = (
    "",
    "finished",
    "detected",
    "missed %",
    "calls",
    "calls/task",
    "x ours",
    "429 %",
    "mean s",
    "x ours",
    "p50",
    "p95",
    "p99",
    "mean by phase",
    ">= mean s",
    "cores",
)


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text, with ratios against ours."""
    ours = next((one for one in rows if one["contestant"] == "ours"), None)
    lines = [HEADS, *(_cells(one, ours) for one in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not n else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _cells(one: Row, ours: Row | None) -> tuple[str, ...]:
    delay = one["delay"]
    return (
        one["contestant"],
        str(one["finished"]),
        str(one["detected"]),
        _number(one["missed"], 100, 1),
        str(one["calls"]),
        _number(one["calls_per_task"], 1, 3),
        _ratio(one["calls_per_task"], ours["calls_per_task"] if ours else None),
        _number(one["refused"], 100, 1),
        _number(delay["mean"]),
        _ratio(delay["mean"], ours["delay"]["mean"] if ours else None),
        *(_number(delay[cut]) for cut in ("p50", "p95", "p99")),
        " / ".join(map(_number, one["delay_by_phase"])),
        _number(one["delay_at_least"]),
        _number(one["cores"]),
    )


def _number(value: float | None, times: float = 1.0, digits: int = 2) -> str:
    return "-" if value is None else f"{value * times:.{digits}f}"


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.2f}" if value is not None and base else "-"
