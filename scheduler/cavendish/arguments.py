"""Pure: whether the arguments of a public method are what its annotations say.

A wrong one is told in one sentence, which names it. Its value is not shown, since it may be secret.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial, wraps
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

from cavendish.errors import CavendishError, SubmissionError

P = ParamSpec("P")
R = TypeVar("R")


def checked(
    refusal: type[CavendishError] = SubmissionError,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a method, plain or async, raise a `refusal` for an argument of a wrong type.

    What is in a list or a mapping is for the method to check.
    """

    def decorated(method: Callable[P, R]) -> Callable[P, R]:
        names = [*inspect.signature(method).parameters][1:]
        hints = cache(partial(get_type_hints, method))  # at the first call: others import less

        def check(args: tuple[object, ...], options: Mapping[str, object]) -> None:
            told = {**dict(zip(names, args[1:], strict=False)), **options}
            if complaint := complaint_about(told, hints()):
                raise refusal(complaint)

        if inspect.iscoroutinefunction(method):

            @wraps(method)
            async def awaited(*args: P.args, **options: P.kwargs) -> object:
                check(args, options)
                return await method(*args, **options)

            return cast("Callable[P, R]", awaited)

        @wraps(method)
        def called(*args: P.args, **options: P.kwargs) -> R:
            check(args, options)
            return method(*args, **options)

        return called

    return decorated


def complaint_about(told: Mapping[str, object], hints: Mapping[str, Any]) -> str | None:
    """Which of these values is not of its type, or None."""
    for name, value in told.items():
        kinds = _kinds(hints[name]) if name in hints else ()
        if kinds and not any(kind.fits(value) for kind in kinds):
            words = " or ".join(dict.fromkeys(kind.words for kind in kinds))
            return f"`{name}` must be {words}, not {_shown(value)}."
    return None


@dataclass(frozen=True, slots=True)
class _Kind:
    """Values of one type: how a sentence calls them, and which they are."""

    words: str
    fits: Callable[[Any], bool]


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:  # an int that is too large for a float
        return False


def is_text(value: object) -> bool:
    """True for a text without halves of surrogate pairs, which no wire takes."""
    return isinstance(value, str) and (value.isascii() or not _HALF.search(value))


def _is_list(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


_HALF = re.compile("[\ud800-\udfff]")
_KINDS: dict[Any, _Kind] = {
    str: _Kind("a text", is_text),
    bool: _Kind("True or False", lambda value: isinstance(value, bool)),
    int: _Kind("a whole number", lambda value: _is_number(value) and isinstance(value, int)),
    float: _Kind("a number", _is_number),
    UUID: _Kind("a UUID", lambda value: isinstance(value, UUID)),
    NoneType: _Kind("None", lambda value: value is None),
    Iterable: _Kind("a list", _is_list),
    Mapping: _Kind("a mapping", lambda value: isinstance(value, Mapping)),
    Callable: _Kind("a function", callable),
}


@cache
def _kinds(hint: Any) -> tuple[_Kind, ...]:
    """The kinds of values that a type has."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return tuple(kind for each in get_args(hint) for kind in _kinds(each))
    return (_KINDS.get(origin or hint) or _of_class(hint),)


def _of_class(kind: type) -> _Kind:
    return _Kind(f"a {kind.__name__}", lambda value: isinstance(value, kind))


def _shown(value: object) -> str:
    if isinstance(value, str):
        return "a text" if is_text(value) else "one that UTF-8 cannot express"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    too_large = isinstance(value, int) and value.bit_length() > 1023
    return "one of that size" if too_large else type(value).__name__
