"""Tables for people: one line per row; a narrow terminal gets fewer columns."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from shutil import get_terminal_size

import click
from rich.cells import cell_len, set_cell_size

from cavendish_worker.cli.output import plain

#: Colours of the states that can be read on a dark and on a light ground.
STATE_STYLES = {
    "pending": "cyan",
    "succeeded": "green",
    "failed": "red",
    "unknown": "magenta",
    "expired": "dark_orange",
    "cancelled": "bright_black",
}
#: Characters to which a column may be cut before columns are dropped; and between two columns.
_LEAST, _GAP = 16, 2


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    cut: str = "",
    spare: Sequence[str] = (),
    head: bool = True,
) -> None:
    """Print a table, numbers to the right, with a `head` of its columns. A pipe gets all of it.

    At a terminal that is too narrow, first the column `cut` is cut short, then the columns `spare`
    are dropped in their order. No other cell is ever cut or broken: rather the line overflows.
    """
    body = [[plain(str(cell)) for cell in row] for row in rows]
    lines = [[*columns], *body]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    numeric = [bool(body) and all(map(_is_number, cells)) for cells in zip(*body, strict=True)]
    shown = [*range(len(columns))]
    if sys.stdout.isatty():
        shown = _fit(columns, widths, get_terminal_size().columns, cut, spare)
    for number, line in enumerate(lines):
        if number == 0 and not head:
            continue
        cells = [
            " " * (widths[at] - cell_len(line[at])) + line[at]
            if body and numeric[at]
            else _cut(line[at], widths[at])
            for at in shown
        ]
        _echo(click.style((" " * _GAP).join(cells).rstrip(), dim=number == 0 or None))


def pairs(rows: Iterable[tuple[str, object]]) -> None:
    """Print names and values, a pair per line; without those that have no value."""
    shown = [(name, plain(str(value))) for name, value in rows if value not in ("", None)]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        _echo(f"{name:<{width}}  {value}")


def _echo(line: str) -> None:
    """Print a line in stdout's own encoding, which click replaces where it is ASCII."""
    click.echo(line, file=sys.stdout)


def _fit(
    columns: Sequence[str], widths: list[int], room: int, cut: str, spare: Sequence[str]
) -> list[int]:
    """The places of the columns that are shown; the column `cut` gets the room that is left."""
    shown, place = [*range(len(columns))], columns.index(cut) if cut else -1
    most = widths[place]

    def left(width: int) -> int:
        """The room that is left when the column `cut` has this width."""
        others: int = sum(widths[at] for at in shown if at != place)
        return room - others - (width if place in shown else 0) - _GAP * (len(shown) - 1)

    for name in spare:
        if left(min(most, _LEAST)) >= 0:
            break
        shown.remove(columns.index(name))
    if cut:
        widths[place] = min(most, max(left(0), _LEAST))
    return shown


def _is_number(cell: str) -> bool:
    return not cell or cell.replace(".", "", 1).replace(",", "").isdigit()


def _cut(cell: str, width: int) -> str:
    """A cell of exactly this width; an ellipsis stands for what is cut off."""
    return (
        set_cell_size(cell, width)
        if cell_len(cell) <= width
        else set_cell_size(cell, width - 1) + "…"
    )
