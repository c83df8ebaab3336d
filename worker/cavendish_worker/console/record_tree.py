"""Pure: an upstream record as a tree for people, with every number exactly as it came."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cavendish.record_json import valid

#: Leaves and branches that one page shows, and images.
MOST, IMAGES = 2_000, 12
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
    """The lines of a record, at most MOST; a last one says that it goes on."""
    try:
        value = _READER.decode(valid(record_json))
    except (ValueError, RecursionError):
        return [Node(0, "", record_json[:10_000], "text")]
    lines = list[Node]()
    for node in _nodes(0, "", value):
        if len(lines) == MOST:
            return [*lines, Node(0, "", "…", "cut")]
        lines.append(node)
    return lines


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


def _nodes(depth: int, name: str, value: Any) -> Iterator[Node]:
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
        yield Node(depth, name, value.encode(errors="backslashreplace").decode(), "text")
    else:
        yield Node(depth, name, json.dumps(value), "word")


class _Pairs(list[tuple[str, Any]]):
    """An object as it came: a key may come twice."""


_READER = json.JSONDecoder(
    parse_int=Digits, parse_float=Digits, parse_constant=Digits, object_pairs_hook=_Pairs
)
