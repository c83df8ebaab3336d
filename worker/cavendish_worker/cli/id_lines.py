"""Ids as `submit` and `wait` take them: as words, or from stdin in one of several formats."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any

import click

from cavendish import SubmissionError, Submitted, Task
from cavendish_worker.cli import csv_rows
from cavendish_worker.cli.output import encodable

#: What may be said of one id beside it: what a `Task` carries, and each option of a submit.
TASK_FIELDS = tuple(field.name for field in fields(Task) if field.name != "id")
SUBMIT_OPTIONS = tuple(
    "service account webhook deadline metadata model producer restart traceparent key group "
    "group_size".split()
)
KNOWN = tuple(dict.fromkeys(("id", *TASK_FIELDS, *SUBMIT_OPTIONS)))
_KNOWN = frozenset(KNOWN)

_JSON_TEXT = ("{", "[", '"')
_SPACE = re.compile(r"\s*")
_FORMATS = ("auto", "lines", "jsonl", "json", "csv")

format_option = click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    default="auto",
    show_default=True,
    help="Format of stdin. lines: each line is an id as it stands. jsonl: each line is JSON, an id "
    "or an object. json: arrays of these, or objects over several lines. csv: the first row names "
    f"the columns, of {', '.join(KNOWN)}. auto: any of these but csv.",
)


def named_ids(ids: tuple[str, ...], form: str) -> list[str]:
    """The ids, each once, for a command that looks at nothing else of a line, such as `wait`.

    Raises SubmissionError for what cannot be read of stdin, and for no ids at all.
    """
    refused: list[Submitted] = []
    wanted = [*dict.fromkeys(str(said.pop("id")) for _, said in _given(ids, form, None, refused))]
    if refused:
        raise SubmissionError(f"{refused[0].id}: {refused[0].reason}.")
    if not wanted:
        raise SubmissionError("Stdin held no ids.")
    return wanted


def read_ids(
    ids: tuple[str, ...], refused: list[Submitted], form: str, *, raw: bool = False
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each id with what its own line says of it; `-` alone reads stdin.

    `raw`: lines with commas are taken for ids, and not for CSV. What cannot be read is added to
    `refused`, and the others go on. Raises SubmissionError where nothing of stdin can be trusted,
    maybe after some ids.
    """
    for where, said in _given(ids, form, KNOWN, refused, raw=raw):
        task_id = said.pop("id")
        if unknown := sorted(set(said) - _KNOWN):
            reason = f"{where} has the unknown key {unknown[0][:40]!r}"
            refused.append(Submitted(str(task_id), "refused", reason=reason))
        else:
            yield task_id, said


def _given(
    ids: tuple[str, ...],
    form: str,
    known: Sequence[str] | None,
    refused: list[Submitted],
    *,
    raw: bool = False,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is said of each id, itself included, and where; what says no id is refused.

    `known`: the columns that CSV may have; None: any, which are not read.
    """
    if ids != ("-",):
        if form != "auto":
            raise click.UsageError("--format is for the ids of stdin: give - instead of ids.")
        yield from ((task_id, {"id": task_id}) for task_id in ids)
        return
    for where, value in _entries(sys.stdin.buffer.read(), form, known, refused, raw=raw):
        said = {"id": value} if isinstance(value, str) else value
        if isinstance(said, dict) and "id" in said:
            yield where, said
        else:
            kind = where.partition(" ")[0]
            reason = f"the {kind} is neither an id nor a JSON object with an id"
            refused.append(Submitted(where, "refused", reason=reason))


def _entries(
    data: bytes, form: str, known: Sequence[str] | None, refused: list[Submitted], *, raw: bool
) -> Iterator[tuple[str, Any]]:
    """What stdin says of each id, and where that stands."""
    text = _decoded(data)
    if form == "auto":
        first = text.lstrip().partition("\n")[0].rstrip()
        if first.startswith("[") or first == "{":
            form = "json"
        elif not raw and csv_rows.looks_like_csv(text):
            raise SubmissionError(csv_rows.ADVICE)
    if form in _LINES:
        return _lines(text, _LINES[form], refused)
    if not encodable(text):
        raise SubmissionError("Stdin is not UTF-8, nor UTF-16 with a byte order mark.")
    return csv_rows.rows(text, known, refused) if form == "csv" else _json_values(text)


def _decoded(data: bytes) -> str:
    """The text of stdin: UTF-8, or UTF-16 or 32 as some shells write it.

    In UTF-8, a byte that is wrong becomes half a surrogate pair, so that its line alone is refused.
    """
    encoding = json.detect_encoding(data)
    try:
        text = data.decode(
            encoding, "surrogateescape" if encoding.startswith("utf-8") else "strict"
        )
    except UnicodeDecodeError:
        raise SubmissionError(
            f"Stdin begins like {encoding}, but cannot be read as that."
        ) from None
    return text.replace("\n\ufeff", "\n")  # files one after the other, each with its mark


def _lines(
    text: str, read: Callable[[str], Any], refused: list[Submitted]
) -> Iterator[tuple[str, Any]]:
    for number, padded in enumerate(text.split("\n"), 1):
        if not (line := padded.strip()):
            continue
        where = f"line {number}"
        if not encodable(line):
            refused.append(Submitted(where, "refused", reason="the line is not UTF-8"))
            continue
        try:
            yield where, read(line)
        except (ValueError, RecursionError):
            yield where, None


def _id_or_json(line: str) -> Any:
    return json.loads(line) if line.startswith(_JSON_TEXT) else line


#: How each line is read, by the format.
_LINES: dict[str, Callable[[str], Any]] = {"auto": _id_or_json, "lines": str, "jsonl": json.loads}


def _json_values(text: str) -> Iterator[tuple[str, Any]]:
    """The values of JSON texts, one after the other; of an array its items."""
    decoder, place, number = json.JSONDecoder(), 0, 0
    try:
        while (place := _SPACE.match(text, place).end()) < len(text):  # type: ignore[union-attr]
            value, place = decoder.raw_decode(text, place)
            for said in value if isinstance(value, list) else [value]:
                number += 1
                yield f"entry {number}", said
    except json.JSONDecodeError as error:
        why = f"{error.msg}, line {error.lineno}, column {error.colno}"
        raise SubmissionError(f"Stdin cannot be read as JSON: {why}.") from None
    except (ValueError, RecursionError):
        why = "a number is too long, or it is nested too deep"
        raise SubmissionError(f"Stdin cannot be read as JSON: {why}.") from None
