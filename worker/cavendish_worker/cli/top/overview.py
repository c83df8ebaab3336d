"""The first page: the numbers of the whole system, what is wrong, and the busiest lanes.

`status` prints it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cavendish.model import State
from cavendish_worker.cli.tables import STATE_STYLES
from cavendish_worker.cli.top.drawing import grid, line, rate, seconds, table
from cavendish_worker.cli.top.lanes import lane_table
from cavendish_worker.cli.top.view import View
from cavendish_worker.cli.top.webhooks import endpoint_table
from cavendish_worker.wording.notes import (
    ALARMING,
    LANE_NUMBERS,
    endpoint_name,
    endpoint_trouble,
    lane_notes,
    operator_notes,
    pause,
)
from cavendish_worker.wording.times import moment

_BARS = "▁▂▃▄▅▆▇█"
#: Notes, and rows of a table, at most, where the room is limited.
_NOTES, _ROWS = 3, 8


def draw(view: View, width: int, room: int | None) -> RenderableType:
    """The page; `room`: its lines, None: as many as it needs."""
    found = view.found
    parts: list[RenderableType] = [_sums(found), _states(found, width), Text("")]
    parts += [_speeds(found, width), Text(""), _accounts(found), Text(""), _alive(found)]
    lanes, endpoints = _busiest(found["lanes"], "pending"), _busiest(found["webhooks"], "waiting")
    left = 10**9 if room is None else room - 12 - len(found["accounts"])
    if left > 3:
        most = None if room is None else _NOTES
        ours, notes = operator_notes(found)[:most], _notes(found, most)
        parts += [line(note, "dark_orange") for note in ours]
        parts += [line(note, "bold red") for note in notes]
        left -= len(ours) + len(notes)
    if lanes and left > 3:
        lanes = lanes if room is None else lanes[: max(min(left // 2, _ROWS), 1)]
        parts += [Text(""), lane_table(lanes, width)]
        left -= len(lanes) + 3
    if endpoints and left > 3:
        endpoints = endpoints if room is None else endpoints[: max(min(left // 2, _ROWS), 1)]
        parts += [Text(""), endpoint_table(endpoints, found["now"], width)]
    return Group(*parts)


def _busiest(rows: Sequence[dict[str, Any]], by: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -row[by])


def _notes(found: dict[str, Any], most: int | None) -> list[str]:
    """What is wrong with the store, with lanes and with endpoints, at most so many of each."""
    lanes = [note for lane in found["lanes"] for note in lane_notes(lane)]
    troubled = [one for one in found["webhooks"] if endpoint_trouble(one)]
    endpoints = [f"{endpoint_name(one)}: {endpoint_trouble(one)}" for one in troubled]
    at, refused = found["emptied_at"], found["refused_submits"]
    store = [] if at is None else [f"the store was emptied before {moment(at)}: see doctor"]
    store += [f"{refused} refused submits: cavendish refused list"] if refused else []
    return store + lanes[:most] + endpoints[:most]


def _alive(found: dict[str, Any]) -> RenderableType:
    """How many workers and beats are alive; red where there is none."""
    said = Text(no_wrap=True)
    for role in ("worker", "beat"):
        count = sum(one["role"] == role and one["alive"] for one in found["fleet"])
        said.append(f"{count}", style="bold" if count else "bold red")
        words = f" {role}{'' if count == 1 else 's'} alive   "
        said.append(words, style="dim" if count else "bold red")
    return said


def _sums(found: dict[str, Any]) -> RenderableType:
    """The numbers of all lanes together."""
    cells = []
    for name, words in LANE_NUMBERS.items():
        number = sum(lane[name] for lane in found["lanes"])
        style = "bold red" if name in ALARMING and number else "bold"
        cells.append(Text.assemble((f"{number:,}", style), (f"  {words}", "dim")))
    return grid([cells], 2)


def _states(found: dict[str, Any], width: int) -> RenderableType:
    """A bar of all ids ever tracked, by state, and the numbers below it."""
    lanes = found["lanes"]
    counts = {name: sum(lane["counts"].get(name, 0) for lane in lanes) for name in STATE_STYLES}
    counts[State.PENDING.value] = sum(lane["pending"] for lane in lanes)
    total, bar, words = sum(counts.values()), Text(no_wrap=True), line("")
    for name, number in counts.items():
        style = STATE_STYLES[name]
        bar.append("━" * (max(round(number / total * (width - 1)), 1) if number else 0), style)
        words.append(f"{number:,} ", style=f"bold {style}" if number else "dim")
        words.append(f"{name}   ", style="dim")
    bar.truncate(width)
    if not total:
        bar = Text("no ids yet: cavendish submit --service NAME ID", style="dim")
    return Group(bar, words)


def _speeds(found: dict[str, Any], width: int) -> RenderableType:
    """Events per second with their history, beside the delays."""
    rates, history = found["rates"], found["history"]
    room = max(min(width - 64, 60), 0)
    shown = Table.grid(padding=(0, 2))
    shown.add_column(no_wrap=True)
    shown.add_column(justify="right", no_wrap=True, min_width=8)
    shown.add_column(no_wrap=True, min_width=10)  # so that nothing moves when the note comes
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True)
    rows = (
        ("calls", "calls", _refused(rates), "p50"),
        ("settled", "settled", Text(""), "p95"),
        ("webhooks delivered", "delivered", Text(""), "p99"),
    )
    for label, name, note, share in rows:
        delay = found["delay"][share]
        took = seconds(delay) + ("" if delay is None else " s")
        shown.add_row(
            Text(label, style="dim"),
            Text(f"{rate(rates[name])}/s", style="bold"),
            note,
            Text(sparkline(history[name], room), style="cyan"),
            Text.assemble((f"delay {share}  ", "dim"), (took, "bold")),
        )
    return shown


def _refused(rates: dict[str, float | None]) -> Text:
    """The share of calls that were answered 429."""
    if not rates["calls"]:
        return Text("")
    share = (rates["refused"] or 0.0) / rates["calls"]
    return Text(f"{share:.0%} met 429", style="bold red" if share > 0.1 else "dim")


def sparkline(values: Sequence[float], width: int) -> str:
    """The last values as bars, the largest as high as a line; zero is a space."""
    shown = values[-width:] if width else []
    most, last = max(shown, default=0.0), len(_BARS) - 1
    cells = [_BARS[min(int(value / most * len(_BARS)), last)] if value else " " for value in shown]
    return "".join(cells).rjust(width)


def _pause_style(account: dict[str, Any]) -> str:
    """Red for what somebody must repair; an operator's own pause needs no repair."""
    if account["no_token"] or account["paused_for"]:
        return "bold red"
    return "dark_orange" if account["operator_pause"] else "dim"


def _accounts(found: dict[str, Any]) -> RenderableType:
    rows = [
        (
            line(name),
            f"{account['rate']:.2f}",
            "unknown" if account["ceiling"] is None else f"{account['ceiling']:.2f}",
            f"{account['used']:.2f}",
            f"{account['window']:.0f} s" if account["window"] else "",
            line(pause(account) or "none", _pause_style(account)),
        )
        for name, account in found["accounts"].items()
    ]
    return table(("account", ">rate limit calls/s", ">ceiling", ">used", ">window", "pause"), rows)
