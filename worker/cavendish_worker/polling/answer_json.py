"""Reads the JSON of an answer of the remote API leniently: one odd record must not cost the others.

Numbers that Python cannot hold stay text, what is nested too deep becomes null, and bytes that are
no text are replaced, except in an id: the id would look absent.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any

from cavendish.stored_json import DEEPEST

#: Lists and objects that a JSON read in C may hold. That reader gives the CPU to no other thread
#: before its end, however many there are; more are read in Python.
CONTAINERS = 100_000

_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[][{}]', re.DOTALL)


def read_answer(raw: bytes) -> Any:
    """The value of an answer in JSON. Raises ValueError."""
    encoding = json.detect_encoding(raw)
    try:
        return _read(raw.decode(encoding, "surrogatepass"))
    except UnicodeDecodeError:
        body = _read(raw.decode(encoding, "replace"))
    items = body.get("items") if isinstance(body, Mapping) else None
    for record in items if isinstance(items, list) else [body]:
        names = (record.get("id"), record.get("task_id")) if isinstance(record, Mapping) else ()
        if any("\ufffd" in str(name) for name in names):
            raise ValueError("An id is no text.")
    return body


def _read(text: str) -> Any:
    reader = _READER if text.count("[") + text.count("{") <= CONTAINERS else _YIELDING_READER
    try:
        return reader.decode(text)
    except RecursionError:
        return reader.decode(_shallow(text))


def _shallow(text: str) -> str:
    """JSON with null in place of what is nested deeper than DEEPEST."""
    kept, depth, start = list[str](), 0, 0
    for found in _BRACKET.finditer(text):
        if found[0] in ("[", "{"):
            depth += 1
            if depth == DEEPEST + 1:
                kept += text[start : found.start()], "null"
        elif found[0] in ("]", "}"):
            if depth == DEEPEST + 1:
                start = found.end()
            depth -= 1
    return "".join(kept) + text[start:] if depth <= DEEPEST else ""


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


def _reader() -> json.JSONDecoder:
    return json.JSONDecoder(
        parse_float=_finite, parse_int=_whole, parse_constant=lambda _: None, strict=False
    )


_READER, _YIELDING_READER = _reader(), _reader()
_YIELDING_READER.scan_once = py_make_scanner(_YIELDING_READER)  # type: ignore[attr-defined]


def inflate(raw: bytes, encoding: str, limit: int) -> bytes | None:
    """The body without its content encoding, at most `limit` bytes; None if there is none such.

    We ask the API to use no content encoding, but servers do.
    """
    if encoding.strip().lower() in ("", "identity"):
        return raw
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return None
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        body = unpacker.decompress(raw, limit + 1)
    except zlib.error:
        return None
    return body if len(body) <= limit and unpacker.eof else None
