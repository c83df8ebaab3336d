"""The kinds of fields in the table of settings: how each is read, its unit and its meaning."""

from __future__ import annotations

import dataclasses
from typing import Any

from cavendish.environment.env_parsers import Reader, number, whole


def setting(default: Any, parse: Reader, unit: str, meaning: str, *, shown: str = "") -> Any:
    """A setting of any type. `shown` is the default as documents spell it."""
    about = {"read": parse, "unit": unit, "meaning": meaning, "secret": False, "shown": shown}
    return dataclasses.field(default=default, metadata=about)


def secret(default: Any, parse: Reader, unit: str, meaning: str) -> Any:
    """A setting that no `repr` and no complaint may show."""
    about = {"read": parse, "unit": unit, "meaning": meaning, "secret": True, "shown": ""}
    return dataclasses.field(default=default, repr=False, metadata=about)


def seconds(default: float, low: float, high: float, meaning: str) -> Any:
    """A time within bounds."""
    return setting(default, number(low, high), "s", meaning)


def count(default: int, low: int, high: int, unit: str, meaning: str) -> Any:
    """A whole number of a unit, within bounds."""
    return setting(default, whole(low, high), unit, meaning)


def complaint(name: str, text: str, error: ValueError, *, secret: bool) -> str:
    """One sentence about a text that a setting cannot have; a secret is not repeated in it."""
    why = str(error)
    if why.startswith(("could not convert", "invalid literal")):
        why = "must be a number"
    return f"{name} {why}" + ("." if secret else f", not {text!r}.")
