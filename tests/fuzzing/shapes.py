"""JSON of any shape as text, by chance: odd numbers, deep nesting, duplicate keys, surrogates."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

from hostile import KEYS, LEAVES

#: Texts that are long or deep cost a lot, and are drawn seldom.
_SMALL = [text for text in LEAVES if len(text) < 1000]
_LARGE = [text for text in LEAVES if len(text) >= 1000]
_KEYS = [key for key in KEYS if len(key) < 100]
#: Where the text of a mutated value goes.
_HOLE = "\x00hole\x00"


def leaf(chance: Random) -> str:
    """The text of one value."""
    if chance.random() < 0.004:
        return chance.choice(_LARGE)
    match chance.randrange(6):
        case 0:
            return str(chance.getrandbits(chance.choice((8, 31, 53, 64, 200))))
        case 1:
            return repr(chance.uniform(-1, 1) * 10.0 ** chance.randrange(-20, 20))
        case 2:
            return json.dumps(word(chance))
        case _:
            return chance.choice(_SMALL)


def word(chance: Random) -> str:
    """A few characters from anywhere in Unicode, surrogates and control characters included."""
    planes = ((0, 127), (0, 0x7FF), (0x2000, 0xFFFF), (0xD800, 0xDFFF), (0x1F300, 0x10FFFF))
    return "".join(chr(chance.randint(*chance.choice(planes))) for _ in range(chance.randrange(9)))


def value(chance: Random, size: int = 8) -> str:
    """A value of any shape."""
    if size <= 1 or chance.random() < 0.4:
        return leaf(chance)
    if chance.random() < 0.3:
        return "[" * size + leaf(chance) + "]" * size
    parts = [value(chance, size // 2) for _ in range(chance.randrange(4))]
    if chance.random() < 0.5:
        return f"[{','.join(parts)}]"
    return "{" + ",".join(f'"{chance.choice(_KEYS)}":{part}' for part in parts) + "}"


def fields(chance: Random, most: int = 4) -> str:
    """Fields of an object without its braces; names may come twice."""
    return ",".join(
        f'"{chance.choice(_KEYS)}":{value(chance)}' for _ in range(chance.randrange(most))
    )


def mutated(chance: Random, said: Any, odd: tuple[str, ...] = ()) -> str:
    """JSON in which a few places have other values, one of `odd` now and then, or are gone."""
    said = copy.deepcopy(said)
    for _ in range(chance.choice((1, 1, 2, 5))):
        _mutate(chance, said)
    first, *more = json.dumps(said).split(json.dumps(_HOLE))
    return first + "".join(
        (chance.choice(odd) if odd and chance.random() < 0.3 else value(chance)) + part
        for part in more
    )


def _mutate(chance: Random, said: Any) -> None:
    places = list(_places(said))
    if not places:
        return
    where, key = chance.choice(places)
    match chance.randrange(4):
        case 0 | 1:
            where[key] = _HOLE
        case 2:
            del where[key]
        case _:
            other, name = chance.choice(places)
            with contextlib.suppress(LookupError):
                where[key] = copy.deepcopy(other[name])


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def damaged(chance: Random, data: bytes) -> bytes:
    """The bytes cut, changed at one place, with something more, or with a part of them twice."""
    at = chance.randrange(len(data) + 1)
    match chance.randrange(6):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        case 2:
            return data[:at] + chance.choice(_JUNK) + data[at:]
        case 3:
            return data[:at] + data[at + chance.randrange(1, 9) :]
        case 4:
            start = chance.randrange(at + 1)
            return data[:at] + data[start:]
        case _:
            return data[:at] + chance.randbytes(chance.randrange(1, 20)) + data[at:]


_JUNK = [
    b"\0",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\xff",
    b"\xed\xa0\x80",
    b"\r\n\r\n",
    b'"',
    b"}",
    b":",
]
