"""Pure: how JSON is written into the store, and the one reader of what the store holds.

A stored value may be damaged, or written by another version. The reader checks the type of every
field and that every number is finite; what it cannot accept reads as None, never as an exception.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, time
from decimal import Decimal
from functools import cache
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints
from uuid import UUID

#: Seconds since the epoch that no calendar of Python reaches: the end of the year 9999.
END_OF_TIME = 253_402_300_800.0
#: The largest whole number that every reader of JSON takes for itself.
_LARGEST = 2**53
#: Levels of nesting that are kept of anything that comes from outside.
DEEPEST = 100

T = TypeVar("T")


def compact(value: Any) -> str:
    """The JSON text of a plain value or a dataclass, without spaces: the spelling of the store and
    of webhooks.

    What Celery's JSON carries beside plain values becomes a text: a UUID and a Decimal as Python
    prints them (all digits are kept), a date, time or datetime in ISO 8601, bytes in base64. Broken
    Unicode stays in its escaped form. Raises ValueError for a number that is not finite, and
    TypeError for any other object.
    """
    text = _READABLE.encode(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return _ESCAPED.encode(value)
    return text


def line_of(value: Any) -> str:
    """The line for `read_lines` of a dataclass whose texts are printable; empty for None."""
    return "" if value is None else compact(value)


def too_deep(value: Any) -> bool:
    """True for lists and objects nested deeper than DEEPEST; does not recurse."""
    layer = [value]
    for _ in range(DEEPEST):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list | tuple)
        ]
        if not layer:
            return False
    return True


def may_be_too_deep(text: str) -> bool:
    """False for a JSON text with too few brackets; so few values are walked through."""
    return text.count("[") + text.count("{") > DEEPEST


def parse(text: str, decode: Callable[[str], Any] = json.loads) -> Any:
    """The value of a JSON text. Raises ValueError if it cannot be read or is nested too deep."""
    try:
        value = decode(text)
    except RecursionError:
        raise ValueError(f"nested more than {DEEPEST} deep") from None
    if may_be_too_deep(text) and too_deep(value):
        raise ValueError(f"nested more than {DEEPEST} deep")
    return value


def read(kind: type[T], text: object, **known: Any) -> T | None:
    """The dataclass that `compact` wrote, or None for anything else, such as an error of Redis.

    `known`: fields that are not in the text. A field that is missing in the text has its default;
    a field that `kind` does not have is ignored. Lists are read as tuples.
    """
    try:
        return _object(kind, parse(text), known) if isinstance(text, str) else None
    except (ValueError, TypeError, OverflowError):
        return None


def read_lines(kind: type[T], text: str) -> list[T]:
    """The dataclasses of a text with a JSON object in each line; unreadable lines are left out."""
    return [found for line in text.splitlines() if (found := read(kind, line)) is not None]


def _plain(value: Any) -> object:
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if not is_dataclass(value):
        raise TypeError(f"{type(value).__name__} cannot be stored as JSON")
    return {field.name: getattr(value, field.name) for field in fields(value)}


_READABLE, _ESCAPED = (
    json.JSONEncoder(ensure_ascii=escaped, separators=(",", ":"), allow_nan=False, default=_plain)
    for escaped in (False, True)
)


def _object(kind: type[T], value: object, known: dict[str, Any]) -> T:
    if not isinstance(value, dict):
        raise TypeError(f"no {kind.__name__}")
    readers = _readers(cast(Any, kind))
    return kind(**{name: readers[name](value[name]) for name in readers if name in value} | known)


@cache
def _readers(kind: Any) -> dict[str, Callable[[Any], Any]]:
    """What checks each field of a dataclass, by name."""
    hints = get_type_hints(kind)
    return {field.name: _reader(hints[field.name]) for field in fields(kind)}


def _reader(hint: Any) -> Callable[[Any], Any]:
    """What checks one value: a number, text, a tuple, a dataclass, or one of these or None."""
    parts = get_args(hint)
    if NoneType in parts:
        reader = _reader(next(part for part in parts if part is not NoneType))
        return lambda value: None if value is None else reader(value)
    if get_origin(hint) is tuple:
        reader = _reader(parts[0])
        return lambda value: tuple(map(reader, _exactly(list, value)))
    if is_dataclass(hint):
        return lambda value: _object(hint, value, {})  # type: ignore[arg-type]
    if hint in (int, float):
        return _whole if hint is int else _finite
    return lambda value: _exactly(hint, value)


def _exactly(kind: type[T], value: Any) -> T:
    if type(value) is not kind:
        raise TypeError(f"no {kind.__name__}")
    return value


def _whole(value: Any) -> int:
    if abs(_exactly(int, value)) > _LARGEST:
        raise ValueError("no whole number of ours")
    return int(value)


def _finite(value: Any) -> float:
    if type(value) not in (float, int) or not math.isfinite(value):
        raise TypeError("no finite number")
    return float(value)
