"""One screen of `top`: the title with the pages, one page, and the keys."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from cavendish_worker.cli.top import fleet, lanes, overview, webhooks
from cavendish_worker.cli.top.drawing import grid, line
from cavendish_worker.cli.top.view import HELP, PAGES, View

_DRAW = {
    "overview": overview.draw,
    "lanes": lanes.draw,
    "webhooks": webhooks.draw,
    "fleet": fleet.draw,
}
_KEYS = "q end   ←→ page   j k scroll   p pause   ? help"


def wide_console() -> Console:
    """A console on stdout; a pipe is wide enough for URLs and reasons."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def screen(view: View, width: int, height: int | None) -> RenderableType:
    """One screen of `width` columns and `height` lines; None: as many lines as it needs."""
    room = None if height is None else max(height - 5, 1)
    if view.helping:
        body: RenderableType = grid([(Text(keys, style="bold"), what) for keys, what in HELP], 4)
    elif view.found:
        body = _DRAW[view.page](view, width, room)
    else:
        body = Text("" if view.away else "polling …", style="dim")
    upper = Table.grid(expand=True)
    upper.add_row(Group(*_head(view), body))
    return upper if height is None else _Pinned(upper, height)


class _Pinned:
    """Something cut or filled to the height of the screen, above a last line with the keys."""

    def __init__(self, upper: RenderableType, height: int) -> None:
        self._upper, self._height = upper, height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = self._height - 1
        lines = console.render_lines(self._upper, options.update(height=None), pad=False)[:room]
        for each in lines + [[]] * (room - len(lines)):
            yield from each
            yield Segment.line()
        last = Text(_KEYS, style="dim", no_wrap=True, end="")
        last.truncate(options.max_width)
        yield last


def _head(view: View) -> list[RenderableType]:
    """The title with the pages and the time of the store; then why the store is away."""
    at = datetime.fromtimestamp(view.found["now"], UTC) if view.found else None
    tabs = Text.assemble(("Cavendish  ", "bold dark_orange"), no_wrap=True)
    for number, page in enumerate(PAGES, 1):
        tabs.append(f" {number} {page} ", style="reverse bold" if page == view.page else "")
        tabs.append(" ")
    paused = ("paused  " if view.paused else "", "bold dark_orange")
    title = Table.grid(expand=True)
    title.add_column(no_wrap=True)
    title.add_column(justify="right", no_wrap=True)
    title.add_row(tabs, Text.assemble(paused, (f"{at:%H:%M:%S} UTC" if at else "", "dim")))
    # The address comes last, because a narrow screen cuts off the end.
    away = re.sub(r"^Redis at (\S+) (.+)$", r"Redis \2 It is \1", view.away)
    return [title, line(away, "bold red")]
