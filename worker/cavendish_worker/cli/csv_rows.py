"""Ids in CSV: the first row names the columns, each further row has one id."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cavendish import SubmissionError, Submitted

#: What may stand between the cells of a row, the most usual first.
_SEPARATORS = ",;\t"
_LINE = re.compile(r"[^\n]+")
_YES_OR_NO = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
#: How the text of a cell is read, where it is not kept as it is.
_READERS: dict[str, Callable[[str], Any]] = {
    "deadline": float,
    "group_size": int,
    "metadata": json.loads,
    "restart": lambda cell: _YES_OR_NO[cell.lower()],
    "webhook": str.split,  # several are separated by spaces, which no URL holds
}
ADVICE = (
    "Stdin looks like CSV. Give --format csv, with a first row that names the columns (id, …), "
    "or --format lines if each line is an id as it stands."
)


def looks_like_csv(text: str) -> bool:
    """True if the first line names a column `id`, or if each line has as many separators.

    JSON lines are no CSV, whatever they hold.
    """
    lines = (line for each in _LINE.finditer(text) if (line := each[0].strip()))
    first = next(lines, "")
    if _separator(first):
        return True
    second = next(lines, first)
    for mark in _SEPARATORS:
        count = first.count(mark)
        alike = count and second is not first and second.count(mark) == count
        if alike and not first.startswith("{"):
            return all(line.count(mark) == count and line[0] != "{" for line in lines)
    return False


def rows(
    text: str, known: Sequence[str] | None, refused: list[Submitted]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each row says, and where it stands; an empty cell says nothing.

    `known`: the columns that there may be; None: any, of which only the ids are read.
    A row that cannot be read is added to `refused`. Raises SubmissionError for a wrong header, and
    for what is no CSV, since a missing quote swallows the rows behind it.
    """
    mark = _separator(text.lstrip().partition("\n")[0]) or ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    filled = (row for row in reader if any(cell.strip() for cell in row))
    try:
        columns = _columns(next(filled, []), known)
        for row in filled:
            where = f"line {reader.line_num}"
            try:
                yield where, _read(columns, row)
            except ValueError as error:
                refused.append(Submitted(where, "refused", reason=str(error)))
    except csv.Error as error:
        why = f"line {reader.line_num}: {error}"
        raise SubmissionError(f"Stdin cannot be read as CSV: {why}.") from None


def _separator(header: str) -> str:
    """What separates the columns of a header, one of which is `id`; nothing if it has none."""
    return next((mark for mark in _SEPARATORS if "id" in map(_name, header.split(mark))), "")


def _name(cell: str) -> str:
    return cell.strip().strip('"').lower()


def _columns(header: Sequence[str], known: Sequence[str] | None) -> list[str | None]:
    """The names of the columns; None for those that are not to be read."""
    names = [_name(cell) for cell in header]
    for name in ["id"] if known is None else names:
        if known is not None and name not in known:
            complaint = f"names the unknown column {name[:40]!r}; known: {', '.join(known)}"
        elif names.count(name) > 1:
            complaint = f"names the column {name!r} twice"
        elif names and "id" not in names:
            complaint = "names no column 'id'"
        else:
            continue
        raise SubmissionError(f"The first row of the CSV {complaint}.")
    return [name if known or name == "id" else None for name in names]


def _read(columns: Sequence[str | None], row: Sequence[str]) -> dict[str, Any]:
    """What a row says. Raises ValueError with the reason why it cannot be read."""
    if len(row) != len(columns):
        raise ValueError(f"the row has {len(row)} cells, and the first row {len(columns)}")
    said: dict[str, Any] = {"id": ""}
    for name, padded in zip(columns, row, strict=True):
        if name is None or not (cell := padded.strip()):
            continue
        try:
            said[name] = _READERS.get(name, str)(cell)
        except (ValueError, KeyError, RecursionError):
            raise ValueError(f"the {name} of the row cannot be read") from None
    return said
