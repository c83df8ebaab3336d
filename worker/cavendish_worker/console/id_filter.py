"""The filter of ids as the words of a URL, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cavendish.errors import SubmissionError
from cavendish.filter import Filter, states_of
from cavendish.model import printable
from cavendish_worker.wording.times import duration

#: Words that stand in the URL as they stand in the filter.
TEXTS = ("service", "account", "producer", "model", "endpoint", "key", "group")
TIMES = ("since", "until")
#: Characters of one word.
LONGEST = 2_000


@dataclass(frozen=True, slots=True)
class Words:
    """What a URL says of the wanted ids: as it is written, and as the filter that it means."""

    said: Mapping[str, Any]
    filter: Filter

    @property
    def any(self) -> bool:
        """True if it narrows anything."""
        return bool(self.said)


def words(one: Callable[[str], str], states: list[str], now: float) -> Words:
    """Read the words of a URL: `one` finds each by its name. Raises SubmissionError."""
    said = {name: text for name in (*TEXTS, *TIMES) if (text := bounded(one(name)))}
    given: dict[str, Any] = {name: said[name] for name in TEXTS if name in said}
    given |= {name: time_in(said[name], now) for name in TIMES if name in said}
    if states := [each for each in states if each]:
        given["state"] = states
    found = Filter(**given)
    return Words(said | ({"state": list(states_of(found))} if states else {}), found)


def bounded(text: str) -> str:
    """The text. Raises SubmissionError for one that is too long for an address."""
    if len(text) > LONGEST:
        raise SubmissionError(f"{printable(text, 40)!r}… is too long: {LONGEST:,} characters fit.")
    return text


def time_in(text: str, now: float) -> float:
    """Unix time of a text: so long before now (90s, 2h, 3d), a date and time in UTC, or itself."""
    if (back := duration(text)) is not None:
        return now - back
    with suppress(ValueError):
        if math.isfinite(at := float(text)):
            return at
    try:
        day = datetime.fromisoformat(text)
    except ValueError:
        raise SubmissionError(
            f"{printable(text, 40)!r} is no time: write 90s, 2h, 3d or 2026-11-22 22:50 (UTC)."
        ) from None
    return (day if day.tzinfo else day.replace(tzinfo=UTC)).timestamp()
