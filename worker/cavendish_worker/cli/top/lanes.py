"""The page of the lanes: each in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType

from cavendish_worker.cli.top.drawing import WIDE, line, rate, seconds, table
from cavendish_worker.cli.top.view import View
from cavendish_worker.wording.notes import LANE_NUMBERS

_NUMBERS = [name for name in LANE_NUMBERS if name != "quarantined"]
_RATES = {"calls": ">calls/s", "settled": ">settled/s", "delivered": ">delivered/s"}


def draw(view: View, width: int, room: int | None) -> RenderableType:
    """As many lanes as fit, from where the page was scrolled to."""
    return lane_table(view.part(view.found["lanes"], None if room is None else room - 2), width)


def _style(lane: dict[str, Any]) -> str:
    if lane["service"]["down_for"]:
        return "bold red"
    return "dark_orange" if lane["operator_pause"] else ""


def lane_table(lanes: Sequence[dict[str, Any]], width: int) -> RenderableType:
    """A row for each lane; a narrow terminal gets fewer columns."""
    wide = width >= WIDE
    rates, delays = [*_RATES] if wide else ["settled"], ["p50", "p95"] if wide else ["p50"]
    rows = [
        (
            line(lane["lane"], _style(lane)),
            *(f"{lane[name]:,}" for name in _NUMBERS),
            *(rate(lane["rates"][name]) for name in rates),
            *(seconds(lane["delay"][name]) for name in delays),
        )
        for lane in lanes
    ]
    columns = ["lane", *(f">{LANE_NUMBERS[name]}" for name in _NUMBERS)]
    columns += [_RATES[name] for name in rates] + [f">{name} s" for name in delays]
    return table(columns, rows)
