"""Reads the JSON of an answer of the remote API leniently: one odd record must not cost the others.

Each record keeps its JSON text as it came. What is nested too deep becomes null, and bytes that are
no text are replaced, except in an id: the id would look absent.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping
from json.decoder import scanstring  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any

from cavendish.record_json import KeptRecord, reader
from cavendish.stored_json import DEEPEST, compact

#: Lists and objects that a JSON read in C may hold. That reader gives the CPU to no other thread
#: before its end, however many there are; more are read in Python.
CONTAINERS = 100_000
#: Items of an answer that are read one by one; of more, none can be an answer to a batch of ours.
ITEMS = 10_000
#: Reads the value at a place in a text; returns it, and where it ends. Raises StopIteration.
Scan = Callable[[str, int], tuple[Any, int]]

_SPACE = re.compile(r"[ \t\n\r]*+")
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
    chosen = _READER if text.count("[") + text.count("{") <= CONTAINERS else _YIELDING_READER
    try:
        return _Answer(text, chosen).read()
    except RecursionError:
        return _Answer(_shallow(text), chosen).read()


class _Answer:
    """The text of an answer.

    The reader in Python takes digits that are not of ASCII, which is no JSON: where there may be
    some, its records are written anew.
    """

    def __init__(self, text: str, chosen: json.JSONDecoder) -> None:
        self._text, self._reader = text, chosen
        self._scan: Scan = chosen.scan_once  # type: ignore[attr-defined]
        self._exact = chosen is _READER or text.isascii()
        self._body: dict[str, Any] = {}
        self._items: list[Any] = []

    def read(self) -> Any:
        """The value; its records, those in `items` or the value itself, are KeptRecords."""
        text, start = self._text, self._skip(0)
        if not text.startswith("{", start):
            return self._reader.decode(text)
        try:
            end = self._separated(start + 1, "}", self._member)
        except StopIteration as none:
            raise ValueError(f"no JSON value at {none.value}") from None
        if self._skip(end) != len(text):
            raise ValueError(f"more than one JSON value, at {end}")
        return self._kept(self._body, start, end)

    def _member(self, at: int) -> int:
        """Read a name and its value."""
        if not self._text.startswith('"', at):
            raise ValueError(f"no name in JSON at {at}")
        name, at = scanstring(self._text, at + 1, False)  # noqa: FBT003 (not strict)
        at = self._skip(at)
        if not self._text.startswith(":", at):
            raise ValueError(f"no colon in JSON at {at}")
        at = self._skip(at + 1)
        if name == "items" and self._text.startswith("[", at):
            self._body[name] = self._items = []
            return self._separated(at + 1, "]", self._item)
        self._body[name], at = self._scan(self._text, at)
        return at

    def _item(self, at: int) -> int:
        if len(self._items) == ITEMS:
            raise ValueError(f"more than {ITEMS} items")
        value, end = self._scan(self._text, at)
        self._items.append(self._kept(value, at, end))
        return end

    def _kept(self, value: Any, at: int, end: int) -> Any:
        if not isinstance(value, dict):
            return value
        return KeptRecord(value, self._text[at:end] if self._exact else compact(value))

    def _separated(self, at: int, close: str, take: Callable[[int], int]) -> int:
        """Take what stands between commas until `close`; returns where that ends."""
        at = self._skip(at)
        if self._text.startswith(close, at):
            return at + 1
        while True:
            at = self._skip(take(self._skip(at)))
            if self._text.startswith(close, at):
                return at + 1
            if not self._text.startswith(",", at):
                raise ValueError(f"no comma in JSON at {at}")
            at += 1

    def _skip(self, at: int) -> int:
        return _SPACE.match(self._text, at).end()  # type: ignore[union-attr]


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


_READER, _YIELDING_READER = reader(), reader()
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
