"""As much of PromQL as it takes to know which metrics and labels a query names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKENS = re.compile(
    r"""\s+|(?P<text>"(?:[^"\\]|\\.)*")|(?P<span>\[[^\]]*\])|(?P<number>\d[\d.e+]*[a-z]*)"""
    r"""|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<mark>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},])"""
)
_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = _LISTS | {"and", "or", "unless", "bool", "offset"}


@dataclass
class Named:
    """A metric with the matchers of its selector: label -> (operator, text)."""

    metric: str
    matchers: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass
class Query:
    """What a query names: its metrics, and the labels that it groups or matches by."""

    metrics: list[Named]
    labels: set[str]


def tokens(query: str) -> Iterator[str]:
    """Raises ValueError for what is no PromQL."""
    place = 0
    while place < len(query):
        found = _TOKENS.match(query, place)
        if found is None:
            raise ValueError(f"no PromQL at {query[place : place + 20]!r}")
        place = found.end()
        if found.lastgroup:
            yield found[found.lastgroup]


def parse(query: str) -> Query:
    """Raises ValueError for brackets that do not match."""
    words, said = list(tokens(query)), Query([], set())
    if any(words.count(left) != words.count(right) for left, right in ("()", "{}")):
        raise ValueError(f"brackets do not match in {query!r}")
    place = 0
    while place < len(words):
        word, after = words[place], words[place + 1] if place + 1 < len(words) else ""
        place += 1
        if not re.match(r"[a-zA-Z_:]", word) or (
            after in ("(", "by", "without") and word not in _LISTS
        ):
            continue  # a number, a mark, a function or an aggregation
        if word in _LISTS:
            end = words.index(")", place)
            said.labels |= set(words[place + 1 : end]) - {","}
            place = end + 1
        elif word not in _WORDS:
            said.metrics.append(Named(word))
            if after == "{":
                end = words.index("}", place)
                matchers = [one for one in words[place + 1 : end] if one != ","]
                triples = zip(matchers[::3], matchers[1::3], matchers[2::3], strict=True)
                said.metrics[-1].matchers = {
                    label: (mark, text.strip('"')) for label, mark, text in triples
                }
                place = end + 1
    return said
