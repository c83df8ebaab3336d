"""Tables and numbers as all pages draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from cavendish_worker.cli.output import plain

#: Columns of a terminal from which on tables are complete.
WIDE = 110


def line(text: str, style: str = "") -> Text:
    """A text on one line; an ellipsis stands for what does not fit."""
    return Text(plain(text), style=style, no_wrap=True, overflow="ellipsis")


def grid(rows: Sequence[Sequence[RenderableType]], padding: int) -> Table:
    """Cells side by side, without a header."""
    shown = Table.grid(padding=(0, padding))
    for row in rows:
        shown.add_row(*row)
    return shown


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A plain table; a column whose name begins with > is aligned to the right.

    Cells that are too long are cut, so that every column's name can be read.
    """
    shown = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="dim",
    )
    for column in columns:
        name = column.removeprefix(">")
        justify: JustifyMethod = "left" if name == column else "right"
        shown.add_column(name, justify=justify, no_wrap=True, min_width=len(name))
    for row in rows:
        shown.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return shown


def rate(number: float | None) -> str:
    """A rate in a few characters; - where there is none."""
    return "-" if number is None else f"{number:,.0f}" if number >= 100 else f"{number:.1f}"


def seconds(number: float | None) -> str:
    """Seconds with two decimals; - where there are none."""
    return "-" if number is None else f"{number:.2f}"
