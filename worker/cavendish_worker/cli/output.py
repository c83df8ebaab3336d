"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: What acts on a terminal beside the first set of control characters: the second one, and what
#: turns writing round.
_ACTING = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_IN_JSON, _IN_TEXT = re.compile(f"[{_ACTING}]"), re.compile(rf"[\x00-\x1f{_ACTING}]")
#: What stands for marks of ours that do not draw.
_DRAWN = {"…": ".", "·": "-", "←": "<", "→": ">", "↓": "v", "↑": "^"}

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
service_option = click.option(
    "--service",
    required=True,
    metavar="NAME",
    help="Service of the remote API, such as nano-banana.",
)
account_option = click.option(
    "--account",
    default="default",
    show_default=True,
    metavar="NAME",
    help="Account of the remote API.",
)


def print_json(value: Any) -> None:
    """One JSON text on stdout.

    What is broken Unicode, or would act on a terminal, stays in its escaped form.
    """
    text = json.dumps(value, ensure_ascii=False, indent=2)
    shown = _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    click.echo(shown if sound(shown, _encoding()) else json.dumps(value, indent=2))


def one_line(value: Any) -> str:
    """JSON on one line, in the dead letters that stdout has."""
    text = json.dumps(value, ensure_ascii=False)
    return text if sound(text, _encoding()) else json.dumps(value)


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def in_other_letters(error: UnicodeError) -> tuple[str, int]:
    """For a stdout that has not all dead letters.

    What only draws becomes a plain character, others are shown by their number.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    dead_letters = error.object[error.start : error.end]
    shown = (
        "#" if "\u2500" <= one <= "\u259f" else _DRAWN.get(one) or f"\\u{ord(one):04x}"
        for one in dead_letters
    )
    return "".join(shown), error.end


def sound(text: str, encoding: str = "utf-8") -> bool:
    """False for a text that cannot be shown.

    No terminal has half characters, and some have few dead letters.
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def plain(text: str) -> str:
    """The text as any terminal can show it, on one line.

    What would act on the terminal is shown by its number.
    """
    shown = _IN_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return shown if sound(shown) else shown.encode(errors="backslashreplace").decode()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; numbers to the right. A pipe gets it as wide as it needs to be."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    shown = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    body = [[plain(str(cell)) for cell in row] for row in rows]
    for index, name in enumerate(columns):
        numeric = bool(body) and all(
            row[index].replace(".", "", 1).replace(",", "").isdigit() or row[index] == ""
            for row in body
        )
        shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        shown.add_row(*map(Text, row))  # never as markup: "[/x]" is a good id
    console.print(shown)


def moment(at: float | None) -> str:
    """A time for people, UTC; empty for none."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
