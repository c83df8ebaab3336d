"""The pages of top.

What is shown of a poll, in so many columns and lines. Pure: nothing is asked here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cavendish.model import State
from cavendish.policy.circuit import NOTED_FOR
from cavendish.task_names import QUEUES
from cavendish_worker.cli.output import plain
from cavendish_worker.cli.status import out_of_order, pause, standing

#: How numbers are called that have another name in the store.
_SAID = {"in_flight": "in flight", "quarantined": "quarantined"}
PAGES = ("overview", "lanes", "webhooks", "fleet")
#: Colours that can be read on a dark and on a light ground.
STATE_STYLES = {
    "pending": "cyan",
    "succeeded": "green",
    "failed": "red",
    "unknown": "magenta",
    "expired": "dark_orange",
}
#: Columns from which on tables have all that they might have.
WIDE = 110
_BARS = "▁▂▃▄▅▆▇█"
_HELP = (
    ("← →, tab, 1-4", "pages"),
    ("j k, ↓ ↑", "scroll; space and b by a screen, g and G to either end"),
    ("p", "pause: the numbers stay as they are"),
    ("?", "this help"),
    ("q, Ctrl-C", "end"),
)


@dataclass
class View:
    """What somebody polls at, and the keys that change it."""

    page: str = PAGES[0]
    found: dict[str, Any] = field(default_factory=dict)
    away: str = ""
    paused: bool = False
    helping: bool = False
    ended: bool = False
    scrolled: int = 0
    room: int = 10

    def press(self, key: str) -> None:
        """Obey one key; one that means nothing does nothing."""
        place = PAGES.index(self.page)
        steps = {
            "j": 1,
            "down": 1,
            "k": -1,
            "up": -1,
            " ": self.room,
            "page down": self.room,
            "b": -self.room,
        }
        steps |= {"page up": -self.room, "g": -(10**9), "home": -(10**9), "G": 10**9, "end": 10**9}
        if key in ("right", "l", "left", "h") or key in "1234"[: len(PAGES)]:
            step = {"right": 1, "l": 1, "left": -1, "h": -1}.get(key)
            self.page = PAGES[int(key) - 1 if step is None else (place + step) % len(PAGES)]
            self.scrolled, self.helping = 0, False
        elif key in steps:
            self.scrolled = max(self.scrolled + steps[key], 0)
        elif key == "p":
            self.paused = not self.paused
        elif key == "?":
            self.helping = not self.helping
        elif key == "escape":
            self.helping = False
        elif key == "q":
            self.ended = True

    def part(self, rows: Sequence[Any], room: int | None) -> Sequence[Any]:
        """The rows that fit, from where it was scrolled to."""
        if room is None:
            return rows
        self.room = max(room, 1)
        self.scrolled = max(min(self.scrolled, len(rows) - self.room), 0)
        return rows[self.scrolled : self.scrolled + self.room]


def screen(view: View, width: int, height: int | None) -> RenderableType:
    """One screen; `height` None: as long as it needs to be."""
    found, room = view.found, None if height is None else max(height - 5, 1)
    if view.helping:
        body: RenderableType = _grid([(Text(keys, style="bold"), what) for keys, what in _HELP], 4)
    elif not found:
        body = Text("" if view.away else "looking …", style="dim")
    else:
        draw: dict[str, Callable[[View, int, int | None], RenderableType]]
        draw = {"overview": lane_view, "lanes": lanes, "webhooks": webhooks, "fleet": fleet}
        body = draw[view.page](view, width, room)
    parts = [*_head(view), body]
    return Group(*parts) if height is None else _filled(parts, height)


def _filled(parts: list[RenderableType], height: int) -> RenderableType:
    """The body in the middle, and the keys in the last line, whatever there is to show."""
    grid = Table.grid(expand=True)
    grid.add_row(Group(*parts))
    keys = "q end   ←→ page   j k scroll   p pause   ? help"
    return _Pinned(grid, Text(keys, style="dim", no_wrap=True), height)


class _Pinned:
    """Something cut to the height of the screen, with a last line below it."""

    def __init__(self, upper: RenderableType, last: Text, height: int) -> None:
        self._upper, self._last, self._height = upper, last, height

    def __rich_console__(self, console: Any, options: Any) -> Any:
        lines = console.render_lines(self._upper, options.update(height=None), pad=False)[
            : self._height - 1
        ]
        for line in lines + [[]] * (self._height - 1 - len(lines)):
            yield from line
            yield Text("\n", end="")
        last = self._last.copy()
        last.truncate(options.max_width)
        last.end = ""
        yield last


def _head(view: View) -> list[RenderableType]:
    """The title with the time of the store, the pages, and whatever is wrong with the looking
    itself.
    """
    found = view.found
    at = datetime.fromtimestamp(found["now"], UTC).strftime("%H:%M:%S UTC") if found else ""
    tabs = Text(no_wrap=True)
    for number, page in enumerate(PAGES, 1):
        tabs.append(f" {number} {page} ", style="reverse bold" if page == view.page else "")
        tabs.append(" ")
    right = Text.assemble(("paused  " if view.paused else "", "bold dark_orange"), (at, "dim"))
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(Text.assemble(("Cavendish  ", "bold dark_orange"), tabs), right)
    away = re.sub(
        r"^Redis at (\S+) (.+)$", r"Redis \2 It is \1", plain(view.away)
    )  # what is cut off is the address
    notice = Text(away, style="bold red", no_wrap=True, overflow="ellipsis")
    return [line, notice]


def lane_view(view: View, width: int, room: int | None) -> RenderableType:
    """All numbers at a glance, and as many lanes and endpoints as there is room for.

    Those with the most to do.
    """
    found, wide = view.found, width >= WIDE
    parts: list[RenderableType] = [
        _sums(found),
        _states(found, width),
        Text(""),
        _speeds(found, width),
        Text(""),
    ]
    parts += [_accounts(found), Text(""), _alive(found)]
    left = 10 if room is None else room - 12 - len(found["accounts"])
    down = [said for said in map(out_of_order, found["lanes"]) if said][:3]
    troubled = [f"{_called(one)}: {standing(one)}" for one in found["webhooks"] if standing(one)][
        :3
    ]
    for said in [*down, *troubled] if left > 3 else ():
        parts.append(Text(plain(said), style="bold red", no_wrap=True, overflow="ellipsis"))
        left -= 1
    for rows, draw in (
        (_busiest(found["lanes"], "pending"), _lanes_table),
        (_busiest(found["webhooks"], "waiting"), _endpoints),
    ):
        if rows and left > 3:
            some = rows[: max(min(left // 2, 8), 1)]
            parts += [Text(""), draw(some, found["now"], wide=wide)]
            left -= len(some) + 3
    return Group(*parts)


def _busiest(rows: Sequence[dict[str, Any]], by: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -row[by])


def _alive(found: dict[str, Any]) -> RenderableType:
    """How many workers and beats live; red where one kind is missing."""
    said = Text(no_wrap=True)
    for role in ("worker", "beat"):
        count = sum(one["role"] == role and one["alive"] for one in found["fleet"])
        said.append(f"{count}", style="bold" if count else "bold red")
        said.append(
            f" {role}{'' if count == 1 else 's'} alive   ", style="dim" if count else "bold red"
        )
    return said


def _sums(found: dict[str, Any]) -> RenderableType:
    lanes = found["lanes"]
    names = ("pending", "due", "in_flight", "pending_deliveries", "dead", "quarantined")
    sums = {name: sum(lane[name] for lane in lanes) for name in names}
    alarming = {"dead", "quarantined"}
    cells = []
    for name, number in sums.items():
        style = "bold red" if name in alarming and number else "bold"
        cells.append(Text.assemble((f"{number:,}", style), (f"  {_SAID.get(name, name)}", "dim")))
    return _grid([cells], 3)


def _states(found: dict[str, Any], width: int) -> RenderableType:
    """A bar of all ids there ever were, by state, and the numbers below it."""
    counts = {
        state.value: sum(lane["counts"].get(state.value, 0) for lane in found["lanes"])
        for state in State
    }
    counts["pending"] = sum(lane["pending"] for lane in found["lanes"])
    whole, bar, words = (
        sum(counts.values()),
        Text(no_wrap=True),
        Text(no_wrap=True, overflow="ellipsis"),
    )
    for name, number in counts.items():
        cells = max(round(number / whole * (width - 1)), 1) if number else 0
        bar.append("━" * cells, style=STATE_STYLES[name])
        words.append(
            f"{number:,} ", style=f"bold {STATE_STYLES[name]}" if number else "dim"
        ).append(f"{name}   ", style="dim")
    bar.truncate(width)
    return Group(
        bar if whole else Text("no ids yet: cavendish submit --service NAME ID", style="dim"), words
    )


def _speeds(found: dict[str, Any], width: int) -> RenderableType:
    """What happens a second, with its history, beside the delays."""
    rates, delay = found["rates"], found["delay"]
    share = rates["refused"] / rates["calls"] if rates["calls"] else 0.0
    refused = (
        Text(f"{share:.0%} met 429", style="bold red" if share > 0.1 else "dim")
        if rates["calls"]
        else Text("")
    )
    long = max(min(width - 64, 60), 0)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True, min_width=8)
    grid.add_column(no_wrap=True, min_width=10)  # so that nothing moves when it comes and goes
    for _ in range(2):
        grid.add_column(no_wrap=True)
    told = [("delay p50", delay["p50"]), ("delay p95", delay["p95"]), ("delay p99", delay["p99"])]
    lines = [
        ("calls", "calls", refused),
        ("settled", "settled", Text("")),
        ("webhooks delivered", "delivered", Text("")),
    ]
    for (label, name, note), (word, seconds) in zip(lines, told, strict=True):
        spark = Text(sparkline(found["history"][name], long), style="cyan")
        right = Text.assemble(
            (f"{word}  ", "dim"), ("-" if seconds is None else f"{seconds:.2f} s", "bold")
        )
        grid.add_row(
            Text(label, style="dim"),
            Text(f"{_rate(rates[name])}/s", style="bold"),
            note,
            spark,
            right,
        )
    return grid


def sparkline(values: Sequence[float], width: int) -> str:
    """The last values as little bars, the largest as high as a line; zero is a space."""
    shown = list(values)[-width:] if width else []
    most = max(shown, default=0.0)
    cells = [
        _BARS[min(int(value / most * len(_BARS)), len(_BARS) - 1)] if value and most else " "
        for value in shown
    ]
    return "".join(cells).rjust(width)


def _accounts(found: dict[str, Any]) -> RenderableType:
    rows = []
    for name, account in found["accounts"].items():
        ceiling = "not met yet" if account["ceiling"] is None else f"{account['ceiling']:.2f}"
        window = f"{account['window']:.0f} s" if account["window"] else ""
        held = Text(
            plain(pause(account)),
            style="bold red" if account["paused_for"] or account["no_token"] else "dim",
        )
        rows.append(
            (plain(name), f"{account['rate']:.2f}", ceiling, f"{account['used']:.2f}", window, held)
        )
    return _table(("account", ">rate limit calls/s", ">ceiling", ">used", ">window", "pause"), rows)


def lanes(view: View, width: int, room: int | None) -> RenderableType:
    """Each lane in a row."""
    rows = view.part(view.found["lanes"], None if room is None else room - 2)
    return _lanes_table(rows, view.found["now"], wide=width >= WIDE)


def _lanes_table(rows: Sequence[dict[str, Any]], _now: float, *, wide: bool) -> RenderableType:
    body = []
    for lane in rows:
        rates, delay, down = lane["rates"], lane["delay"], lane["service"]["down_for"]
        p50, p95 = ("-" if delay[name] is None else f"{delay[name]:.2f}" for name in ("p50", "p95"))
        name = Text(
            plain(lane["lane"]), style="bold red" if down else "", no_wrap=True, overflow="ellipsis"
        )
        numbers = [
            f"{lane[key]:,}"
            for key in ("pending", "due", "in_flight", "pending_deliveries", "dead")
        ]
        speeds = [_rate(rates[key]) for key in ("calls", "settled", "delivered")]
        body.append(
            (name, *numbers, *(speeds if wide else speeds[1:2]), p50, *([p95] if wide else []))
        )
    told = (">calls/s", ">settled/s", ">paid/s") if wide else (">settled/s",)
    columns = (
        "lane",
        ">pending",
        ">due",
        ">in flight",
        ">owed",
        ">dead",
        *told,
        ">p50 s",
        *([">p95 s"] if wide else []),
    )
    return _table(columns, body)


def webhooks(view: View, width: int, room: int | None) -> RenderableType:
    """Each endpoint in a row: those in trouble first, then those that wait most."""
    found = view.found
    if not found["webhooks"]:
        return Text("no endpoint is registered, and nothing is pending to any", style="dim")
    ranked = sorted(
        found["webhooks"], key=lambda one: (not standing(one), -one["waiting"], one["endpoint"])
    )
    return _endpoints(
        view.part(ranked, None if room is None else room - 2), found["now"], wide=width >= WIDE
    )


def _called(endpoint: dict[str, Any]) -> str:
    """The name of a registered endpoint.

    Others are known by their URL, which all commands take as well.
    """
    name: str = (
        endpoint["endpoint"] if endpoint["registered"] else endpoint["url"] or endpoint["endpoint"]
    )
    return name


def _health(endpoint: dict[str, Any]) -> tuple[str, str]:
    """How an endpoint does, and in which colour.

    It is called well only once it has taken something.
    """
    if trouble := standing(endpoint):
        return plain(trouble), "bold red"
    if failures := endpoint["failures"]:
        return (
            "the last try failed" if failures == 1 else f"{failures} failures in a row"
        ), "dark_orange"
    return ("no success yet", "dim") if endpoint["last_success"] is None else ("well", "green")


def _endpoints(endpoints: Sequence[dict[str, Any]], now: float, *, wide: bool) -> RenderableType:
    rows = []
    for one in endpoints:
        since = None if one["last_success"] is None else now - one["last_success"]
        last = "" if since is None else "lately" if since < NOTED_FOR + 5 else f"{since:.0f} s ago"
        took = "" if one["seconds"] is None else f"{one['seconds']:.2f}"
        state = Text(*_health(one), no_wrap=True, overflow="ellipsis")
        name = Text(plain(_called(one)), no_wrap=True, overflow="ellipsis")
        url = Text(
            plain(one["url"] if one["registered"] else ""),
            style="dim",
            no_wrap=True,
            overflow="ellipsis",
        )
        rows.append(
            (
                name,
                f"{one['waiting']:,}",
                one["allowance"],
                took,
                last,
                state,
                *([url] if wide else []),
            )
        )
    columns = (
        "endpoint",
        ">waiting",
        ">room",
        ">answer s",
        ">success",
        "state",
        *(["url"] if wide else []),
    )
    return _table(columns, rows)


def fleet(view: View, _width: int, room: int | None) -> RenderableType:
    """Each process in a row."""
    rows, now = [], view.found["now"]
    for one in view.part(view.found["fleet"], None if room is None else room - 2):
        name = Text(
            plain(one["name"]),
            style="" if one["alive"] else "red",
            no_wrap=True,
            overflow="ellipsis",
        )
        heard = Text(
            f"{max(now - one['at'], 0):.0f} s ago", style="" if one["alive"] else "bold red"
        )
        ahead = "" if one["ahead"] is None else f"{one['ahead']:+.1f}"
        accounts = Text(plain(" ".join(one["accounts"])), no_wrap=True, overflow="ellipsis")
        rows.append((name, heard, plain(one["version"]), ahead, _queues(one["queues"]), accounts))
    if not rows:
        return Text(
            "no worker and no beat was heard of for an hour: cavendish up", style="bold red"
        )
    return _table(("process", "heard", "version", ">clock s", "queues", "accounts"), rows)


def _queues(queues: Sequence[str] | None) -> Text:
    if queues is None:
        return Text("?", style="dim")
    words = (
        "all"
        if set(QUEUES) <= set(queues)
        else " ".join(name.removeprefix("cavendish.") for name in queues)
    )
    return Text(plain(words), no_wrap=True, overflow="ellipsis")


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def _grid(rows: Sequence[Sequence[RenderableType]], padding: int) -> Table:
    grid = Table.grid(padding=(0, padding))
    for row in rows:
        grid.add_row(*row)
    return grid


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A plain table; a column whose name begins with > goes to the right."""
    shown = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), header_style="dim"
    )
    for column in (
        columns
    ):  # what is too long is cut in the cells, so that every name of a column can be read
        name, right = column.removeprefix(">"), column.startswith(">")
        shown.add_column(
            name, justify="right" if right else "left", no_wrap=True, min_width=len(name)
        )
    for row in rows:
        shown.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return shown
