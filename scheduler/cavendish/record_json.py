"""Pure: the JSON text of an upstream record, kept as it came, and how it is read.

The text keeps what no Python value can: all digits of a number, the order of keys and keys that
come twice, escapes, white space.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from cavendish.stored_json import parse

#: Half of a surrogate pair: no encoding can write it, so it becomes an escape.
_SURROGATE = re.compile("[\ud800-\udfff]")
#: Digits of a whole number that Python's readers of JSON take, so those of many receivers.
DIGITS = 4300
#: Numbers that receivers may be unable to read.
_LONG = re.compile(rf"[0-9]{{{DIGITS + 1}}}")
_TOKEN = re.compile(
    r'"(?:[^"\\]++|\\.)*+"|-?(?:NaN|Infinity)|-?[0-9]++(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?',
    re.DOTALL,
)
_CONTROL = re.compile(r"[\x00-\x1f]")


class KeptRecord(dict[str, object]):
    """An upstream record, and its `text`: the JSON as it came."""

    __slots__ = ("text",)

    def __init__(self, value: Mapping[str, object], text: str) -> None:
        super().__init__(value)
        self.text = text


def reader() -> json.JSONDecoder:
    """Reads what the remote API sends.

    A number that Python cannot hold becomes its text, such as "1e400"; NaN and Infinity become
    None, since they are no JSON. Control characters in a text are taken.
    """
    return json.JSONDecoder(
        parse_float=_finite, parse_int=_whole, parse_constant=lambda _: None, strict=False
    )


def read_record(text: str) -> dict[str, object]:
    """The record of a stored text. Raises ValueError if it is no object, or nested too deep."""
    record = parse(text, _READER.decode)
    if not isinstance(record, dict):
        raise ValueError("the stored record is no JSON object")  # noqa: TRY004 (as of no JSON)
    return record


def encodable(text: str) -> str:
    """The same JSON with halves of surrogate pairs as escapes: these stand in texts only."""
    return _SURROGATE.sub(_escape, text)


def valid(text: str) -> str:
    """The same text as JSON that any receiver can read.

    NaN and Infinity are null, control characters are escapes, and a whole number of more than
    DIGITS digits is a text.
    """
    return _TOKEN.sub(_corrected, text) if _may_be_invalid(text) else text


def _may_be_invalid(text: str) -> bool:
    """True if a text has what the remote API may send and no JSON may contain: control characters
    in a text, NaN and Infinity; or a number that is too long.
    """
    return bool(
        "NaN" in text
        or "Infinity" in text
        or _CONTROL.search(text)
        or (len(text) > DIGITS and _LONG.search(text))
    )


def _corrected(found: re.Match[str]) -> str:
    token = found[0]
    if token.startswith('"'):
        return _CONTROL.sub(_escape, token)
    if token[-1].isdigit():
        return f'"{token}"' if len(token) > DIGITS and token.lstrip("-").isdigit() else token
    return "null"


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _whole(text: str) -> int | str:
    """A number with more digits than Python accepts stays text."""
    try:
        return int(text)
    except ValueError:
        return text


def _finite(text: str) -> float | str:
    """A number that is too large for a float stays text."""
    number = float(text)
    return number if math.isfinite(number) else text


_READER = reader()
