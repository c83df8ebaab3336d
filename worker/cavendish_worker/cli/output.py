"""What the commands print: JSON for programs, plain text and times for people."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import click

#: What acts on a terminal beside the first set of control characters: the second set, and the marks
#: that reverse the direction of writing.
_ACTING = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_IN_JSON, _IN_TEXT = re.compile(f"[{_ACTING}]"), re.compile(rf"[\x00-\x1f{_ACTING}]")
#: What replaces those of our own marks that are not box drawings.
_REPLACED = {"…": ".", "·": "-", "←": "<", "→": ">", "↓": "v", "↑": "^"}


def print_json(value: Any) -> None:
    """Print one JSON text.

    Broken Unicode, and what would act on a terminal, stays escaped.
    """
    text = json.dumps(value, ensure_ascii=False, indent=2)
    shown = _IN_JSON.sub(_number, text)
    click.echo(shown if encodable(shown, _encoding()) else json.dumps(value, indent=2))


def json_text(text: str) -> str:
    """A JSON text as stdout can show it; what is escaped stands in strings only."""
    shown = _IN_JSON.sub(_number, text)
    if encodable(shown, _encoding()):
        return shown
    return "".join(one if one.isascii() else json.dumps(one)[1:-1] for one in shown)


def json_line(value: Any) -> str:
    """JSON on one line, escaped where stdout's encoding lacks a character."""
    text = json.dumps(value, ensure_ascii=False)
    return text if encodable(text, _encoding()) else json.dumps(value)


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def replace_unprintable(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs for a stdout whose encoding lacks some characters.

    Drawings become plain characters, others are shown by their number.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown = (
        "#" if "\u2500" <= one <= "\u259f" else _REPLACED.get(one) or f"\\u{ord(one):04x}"
        for one in error.object[error.start : error.end]
    )
    return "".join(shown), error.end


def encodable(text: str, encoding: str = "utf-8") -> bool:
    """False for a text that the encoding cannot express, such as half a surrogate pair."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def plain(text: str) -> str:
    """The text on one line, as any terminal can show it.

    What would act on the terminal is shown by its number.
    """
    shown = _IN_TEXT.sub(_number, text)
    return shown if encodable(shown) else shown.encode(errors="backslashreplace").decode()


def _number(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def counts(numbers: Mapping[str, int]) -> str:
    """Counts on one line, without zeros: `3 new · 1 known`."""
    return " · ".join(f"{number} {name}" for name, number in numbers.items() if number)
