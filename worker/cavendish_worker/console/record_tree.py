"""Pure: an upstream record as a tree for people, with every number exactly as it came."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cavendish.record_json import valid

#: Commas of a text that is made into a tree: that of a megabyte of numbers takes half a second.
COMMAS = 20_000
#: Leaves and branches that one page shows, characters of all of them and of each, and images.
MOST, CHARACTERS, LONGEST, IMAGES = 2_000, 100_000, 2_000, 12
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif")
#: A host that may stand in a content security policy: it ends no directive and begins none.
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?")


class Digits(str):
    """A number, as the API wrote it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Node:
    """One line of the tree: `depth` levels in, a `name` ("" in a list), and a value as text.

    `kind`: "object", "list", "number", "text", "word" (true, false, null) or "cut".
    """

    depth: int
    name: str
    value: str
    kind: str


def tree(record_json: str) -> list[Node]:
    """The beginning of a record, line by line; where it goes on, the last one says how far.

    One that cannot be read, or has too many values, is a single line: the beginning of its text.
    """
    lines, characters = list[Node](), 0
    if record_json.count(",") > COMMAS:
        return [Node(0, "", beginning(record_json, LONGEST), "text")]
    try:
        value = _READER.decode(valid(record_json))
        for node in _nodes(0, "", value):
            if len(lines) == MOST or characters > CHARACTERS:
                left = _values(value) - len(lines)
                return [*lines, Node(0, "", f"… and {left:,} more values", "cut")]
            lines.append(node)
            characters += len(node.name) + len(node.value)
    except (ValueError, RecursionError):
        return [Node(0, "", beginning(record_json, LONGEST), "text")]
    return lines


def beginning(text: str, most: int) -> str:
    """The first characters of a text, and how many more there are."""
    left = len(text) - most
    return text if left <= 0 else f"{text[:most]}… (and {left:,} more characters)"


def images(lines: list[Node]) -> list[str]:
    """The addresses of pictures in a record, by how they end; only https."""
    found = [node.value for node in lines if node.kind == "text" and _is_image(node.value)]
    return list(dict.fromkeys(found))[:IMAGES]


def _is_image(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    named = parts.scheme == "https" and _HOST.fullmatch(parts.netloc)
    return bool(named) and parts.path.lower().endswith(_IMAGES)


def _values(value: Any) -> int:
    """How many lines the tree of a whole value has."""
    number, layer = 0, [value]
    while layer:
        number += len(layer)
        layer = [
            inner[1] if isinstance(outer, _Pairs) else inner
            for outer in layer
            if isinstance(outer, list)
            for inner in outer
        ]
    return number


def _nodes(depth: int, name: str, value: Any) -> Iterator[Node]:
    name = beginning(name, LONGEST)
    if isinstance(value, _Pairs):
        yield Node(depth, name, "" if value else "{}", "object")
        for key, inner in value:
            yield from _nodes(depth + 1, key, inner)
    elif isinstance(value, list):
        yield Node(depth, name, "" if value else "[]", "list")
        for number, inner in enumerate(value):
            yield from _nodes(depth + 1, str(number), inner)
    elif isinstance(value, Digits):
        yield Node(depth, name, value, "number")
    elif isinstance(value, str):
        text = value.encode(errors="backslashreplace").decode()
        yield Node(depth, name, beginning(text, LONGEST), "text")
    else:
        yield Node(depth, name, json.dumps(value), "word")


class _Pairs(list[tuple[str, Any]]):
    """An object as it came: a key may come twice."""


_READER = json.JSONDecoder(
    parse_int=Digits, parse_float=Digits, parse_constant=Digits, object_pairs_hook=_Pairs
)
